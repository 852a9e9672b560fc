//! Messages as the slot stores them, and as devices see them.

use antiphon_proto::{client, log::StoredMessage};
use antiphon_slot::SlotError;
use antiphon_types::{ConversationId, Seq, UserId};
use bytes::Bytes;
use prost::Message;

/// Reads a stored value that may be absent; `what` names it where it cannot be read.
pub(crate) fn decoded<M: Message + Default>(what: &str, stored: Option<Bytes>) -> Result<Option<M>, SlotError> {
    stored.map(|value| decode(what, value)).transpose()
}

/// Reads a stored value; `what` names it where it cannot be read.
pub(crate) fn decode<M: Message + Default>(what: &str, value: Bytes) -> Result<M, SlotError> {
    M::decode(value).map_err(|error| SlotError::Corrupt {
        what: what.to_owned(),
        reason: error.to_string(),
    })
}

/// The stored form.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// A stored message as devices see it.
pub(crate) fn shown(
    conversation: ConversationId,
    seq: Seq,
    stored: StoredMessage,
) -> Result<client::Message, SlotError> {
    let sender = UserId::from_bytes(&stored.sender_id).map_err(|error| SlotError::Corrupt {
        what: format!("the sender of message {seq} of {conversation}"),
        reason: error.to_string(),
    })?;
    Ok(client::Message {
        conversation_id: conversation.to_string(),
        seq,
        sender_id: sender.to_string(),
        client_msg_id: stored.client_msg_id,
        text: stored.text,
        sent_at_ms: stored.sent_at_ms,
    })
}
