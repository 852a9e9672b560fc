//! JSON values that several resources have. Numbers are numbers here; ids are their text form.

use antiphon_proto::client;
use antiphon_types::{Seq, TimestampMs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A message.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    /// Its conversation.
    pub(super) conversation_id: String,
    /// 1, 2, 3 … without gaps.
    #[schema(example = 17)]
    pub(super) seq: Seq,
    /// Who sent it.
    pub(super) sender_id: String,
    /// The sender's idempotency key.
    pub(super) client_msg_id: String,
    /// The text.
    #[schema(example = "hello")]
    pub(super) text: String,
    /// Milliseconds since the Unix epoch.
    #[schema(example = 1_700_000_000_000_u64)]
    pub(super) sent_at_ms: TimestampMs,
}

impl From<client::Message> for Message {
    fn from(message: client::Message) -> Self {
        Self {
            conversation_id: message.conversation_id,
            seq: message.seq,
            sender_id: message.sender_id,
            client_msg_id: message.client_msg_id,
            text: message.text,
            sent_at_ms: message.sent_at_ms,
        }
    }
}

/// A role of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// Reads and writes.
    Member,
    /// Adds and removes members too.
    Admin,
    /// Gives roles too.
    Owner,
}

impl From<Role> for antiphon_proto::log::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}
