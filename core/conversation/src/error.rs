use antiphon_proto::refusal;
use antiphon_slot::SlotError;
use antiphon_types::{ErrorCode, IdError, NameError};
use tonic::Status;

use crate::Rejection;

/// Why a request about a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// An id is malformed.
    #[error("{field}: {reason}")]
    Id {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: IdError,
    },
    /// A title is out of its limits.
    #[error(transparent)]
    Title(#[from] NameError),
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Another service refused, in its own words.
    #[error("{}", .0.message())]
    Peer(Box<Status>),
}

impl ConversationError {
    /// The code a client sees; [`ErrorCode::is_retryable`] says whether to try again.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Id { .. } | Self::Title(_) => ErrorCode::InvalidArgument,
            Self::Slot(error) => error.code(),
            Self::Peer(status) => {
                let code = ErrorCode::parse(&refusal::of(status).code);
                // Said of the other service's slot: the caller came to the right place, and would look for it elsewhere.
                if code == ErrorCode::NotHome {
                    ErrorCode::Unavailable
                } else {
                    code
                }
            }
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Rejected(_) | Self::Id { .. } | Self::Title(_) => {
                refusal::status(self.code().as_str(), self.to_string(), None)
            }
            Self::Slot(error) => error.to_status(),
            Self::Peer(status) => refusal::status(
                self.code().as_str(),
                status.message(),
                refusal::of(status).retry_after_ms,
            ),
        }
    }
}

impl From<Status> for ConversationError {
    fn from(status: Status) -> Self {
        Self::Peer(Box::new(status))
    }
}
