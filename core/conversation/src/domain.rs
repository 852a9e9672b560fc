use antiphon_types::{ConversationId, ErrorCode};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such conversation, or the caller is not a member of it. One answer for both, so that nobody can probe
    /// for conversations of others.
    #[error("conversation {conversation} does not exist, or you are not a member of it")]
    NotAMember {
        /// The conversation asked for.
        conversation: ConversationId,
    },
}

impl Rejection {
    /// The code a client sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotAMember { .. } => ErrorCode::NotFound,
        }
    }
}
