use antiphon_proto::refusal;
use antiphon_slot::SlotError;
use antiphon_types::ErrorCode;
use tonic::Status;

use crate::Rejection;

/// Why a request about a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl ConversationError {
    /// The code a client sees; [`ErrorCode::is_retryable`] says whether to try again.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Slot(error) => error.code(),
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Rejected(rejection) => refusal::status(rejection.code().as_str(), rejection.to_string(), None),
            Self::Slot(error) => error.to_status(),
        }
    }
}
