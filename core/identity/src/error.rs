use antiphon_proto::refusal;
use antiphon_slot::SlotError;
use antiphon_types::{ErrorCode, IdError, NameError, UserId, Username};
use tonic::Status;

use crate::domain::PasswordError;

/// Why a request about an identity was refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A username or device id breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A new password breaks a rule.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Somebody else holds the username.
    #[error("the username {username} is taken")]
    Taken {
        /// The name.
        username: Username,
    },
    /// Nobody holds the username.
    #[error("nobody is called {username}")]
    UnknownUsername {
        /// The name.
        username: Username,
    },
    /// There is no such account.
    #[error("there is no account {user_id}")]
    UnknownUser {
        /// The id.
        user_id: UserId,
    },
    /// The username is claimed, and the account not there yet.
    #[error("the account {user_id} is being made; try again")]
    AccountPending {
        /// The id.
        user_id: UserId,
    },
    /// No such account, or another password: the same answer for both.
    #[error("the username or the password is wrong")]
    WrongPassword,
    /// A refresh token that is malformed, spent, expired or revoked: the same answer for all.
    #[error("the refresh token is not valid (any more); log in again")]
    RefreshToken,
    /// Too many log-ins to the account have failed.
    #[error("too many log-ins have failed; try again in {retry_after_ms} ms")]
    Throttled {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// As many passwords are being hashed, and wait for it, as may.
    #[error("{pending_max} passwords are being checked or wait for it, which is the limit")]
    Busy {
        /// The bound.
        pending_max: usize,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// No slot has its home in the region that was asked for.
    #[error("no slot is homed in region {region:?}")]
    NoSlot {
        /// The region.
        region: String,
    },
    /// The signing keys cannot be had now.
    #[error("the signing keys cannot be had: {0}")]
    Keys(String),
    /// Something stored is not what it should be, or the machine has no randomness.
    #[error("{what} failed: {reason}")]
    Internal {
        /// What failed.
        what: &'static str,
        /// How.
        reason: String,
    },
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl IdentityError {
    /// The code a client sees; [`ErrorCode::is_retryable`] says whether to try again.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) | Self::Id(_) | Self::Password(_) | Self::Missing { .. } => ErrorCode::InvalidArgument,
            Self::Taken { .. } => ErrorCode::AlreadyExists,
            Self::UnknownUsername { .. } | Self::UnknownUser { .. } => ErrorCode::NotFound,
            Self::WrongPassword | Self::RefreshToken => ErrorCode::Unauthenticated,
            Self::Throttled { .. } => ErrorCode::RateLimited,
            Self::Busy { .. } => ErrorCode::ResourceExhausted,
            Self::NoSlot { .. } | Self::Keys(_) | Self::AccountPending { .. } => ErrorCode::Unavailable,
            Self::Internal { .. } => ErrorCode::Internal,
            Self::Slot(error) => error.code(),
        }
    }

    const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Throttled { retry_after_ms } | Self::Busy { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::NoSlot { .. } | Self::Keys(_) => Some(1_000),
            Self::AccountPending { .. } => Some(200),
            Self::Slot(error) => error.retry_after_ms(),
            Self::Name(_)
            | Self::Id(_)
            | Self::Password(_)
            | Self::Missing { .. }
            | Self::Taken { .. }
            | Self::UnknownUsername { .. }
            | Self::UnknownUser { .. }
            | Self::WrongPassword
            | Self::RefreshToken
            | Self::Internal { .. } => None,
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        if let Self::Slot(error) = self {
            return error.to_status();
        }
        refusal::status(self.code().as_str(), self.to_string(), self.retry_after_ms())
    }

    pub(crate) fn internal(what: &'static str, reason: &impl ToString) -> Self {
        Self::Internal {
            what,
            reason: reason.to_string(),
        }
    }
}
