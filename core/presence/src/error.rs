use antiphon_proto::refusal;
use antiphon_slot::SlotError;
use antiphon_types::{ErrorCode, IdError};
use tonic::Status;

use crate::Rejection;

/// Why a request about presence failed.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
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
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl PresenceError {
    /// The code a client sees; [`ErrorCode::is_retryable`] says whether to try again.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Id { .. } => ErrorCode::InvalidArgument,
            Self::Slot(error) => error.code(),
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Rejected(_) | Self::Id { .. } => refusal::status(self.code().as_str(), self.to_string(), None),
            Self::Slot(error) => error.to_status(),
        }
    }
}
