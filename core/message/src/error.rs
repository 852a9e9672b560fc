use antiphon_conversation::ConversationError;
use antiphon_proto::refusal;
use antiphon_slot::SlotError;
use antiphon_types::{ErrorCode, IdError, NameError};
use tonic::Status;

use crate::Rejection;

/// Why a request about messages failed.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
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
    /// A client message id is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Membership refused it.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl MessageError {
    /// The code a client sees; [`ErrorCode::is_retryable`] says whether to try again.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Id { .. } | Self::Name(_) => ErrorCode::InvalidArgument,
            Self::Conversation(error) => error.code(),
            Self::Slot(error) => error.code(),
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Rejected(_) | Self::Id { .. } | Self::Name(_) => {
                refusal::status(self.code().as_str(), self.to_string(), None)
            }
            Self::Conversation(error) => error.to_status(),
            Self::Slot(error) => error.to_status(),
        }
    }
}
