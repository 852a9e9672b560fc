use std::fmt;

use antiphon_types::{ConversationId, IdError, Slot, UserId};
use bytes::Bytes;

/// What one subscribes to: a conversation, or a user (own memberships, revoked logins, presence).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic([u8; 16]);

/// Bytes that name no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic is the 16 bytes of a conversation id or a user id, not {len} bytes of another form")]
pub struct TopicError {
    /// How many bytes were given.
    pub len: usize,
}

impl Topic {
    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes of the id as a buffer of its own.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The conversation, if it is one.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        ConversationId::from_bytes(&self.0).ok()
    }

    /// The user, if it is one.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        UserId::from_bytes(&self.0).ok()
    }

    /// The slot whose home feeds the topic.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.conversation().map_or_else(
            || self.user().map_or(Slot::DEPLOYMENT, |user| user.slot()),
            |id| id.slot(),
        )
    }
}

impl From<ConversationId> for Topic {
    fn from(id: ConversationId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<UserId> for Topic {
    fn from(id: UserId) -> Self {
        Self(*id.as_bytes())
    }
}

impl TryFrom<&[u8]> for Topic {
    type Error = TopicError;

    fn try_from(bytes: &[u8]) -> Result<Self, TopicError> {
        let wrong = |_: IdError| TopicError { len: bytes.len() };
        ConversationId::from_bytes(bytes)
            .map(Self::from)
            .or_else(|_| UserId::from_bytes(bytes).map(Self::from))
            .map_err(wrong)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.conversation(), self.user()) {
            (Some(id), _) => id.fmt(f),
            (None, Some(id)) => id.fmt(f),
            (None, None) => write!(f, "{:?}", self.0),
        }
    }
}
