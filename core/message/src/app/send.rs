use std::sync::Arc;

use antiphon_conversation::membership;
use antiphon_proto::log::{Inbox, MessageSent, StoredMessage, event};
use antiphon_slot::{Opening, SlotTxn};
use antiphon_types::{ClientMsgId, ConversationId, Seq, TimestampMs, UserId};
use bytes::Bytes;
use futures_util::join;

use crate::{
    MessageError,
    adapters::{keys, store},
    domain,
};

/// A message on its way in.
pub(crate) struct Sending {
    pub(crate) conversation: ConversationId,
    pub(crate) sender: UserId,
    pub(crate) client_msg_id: ClientMsgId,
    pub(crate) text: String,
    /// SHA-256 of the text.
    pub(crate) text_hash: [u8; 32],
    pub(crate) now_ms: TimestampMs,
}

/// A message that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) seq: Seq,
    pub(crate) sent_at_ms: TimestampMs,
    /// It had been sent before.
    pub(crate) is_duplicate: bool,
}

/// Stores a message under the conversation's next seq, once per idempotency key.
pub(crate) async fn send(opening: &Opening, sending: Sending) -> Result<Sent, MessageError> {
    let sending = Arc::new(sending);
    let written = opening.write(move |txn| write(txn, sending.clone())).await?;
    Ok(written.value)
}

async fn write(txn: SlotTxn, sending: Arc<Sending>) -> Result<Sent, MessageError> {
    let Sending {
        conversation,
        sender,
        client_msg_id,
        text,
        text_hash,
        now_ms,
    } = &*sending;
    let idempotency_key = keys::idempotency(*conversation, *sender, client_msg_id.as_str());
    let tail_key = keys::tail(*conversation);
    let (found, member, tail) = join!(
        txn.get(&idempotency_key),
        membership::member_in(&txn, *conversation, *sender),
        txn.get(&tail_key)
    );
    // Before the question of membership: what was acknowledged stays acknowledged (I5).
    if let Some(found) = store::decoded("an idempotency key", found?)? {
        let (seq, sent_at_ms) = domain::sent_before(&found, client_msg_id.as_str(), text_hash)?;
        return Ok(Sent {
            seq,
            sent_at_ms,
            is_duplicate: true,
        });
    }
    member?;

    let tail = domain::appended(store::decoded("a tail", tail?)?, txn.index());
    let seq = tail.last_seq;
    let stored = StoredMessage {
        sender_id: sender.to_bytes(),
        client_msg_id: client_msg_id.as_str().to_owned(),
        text: text.clone(),
        sent_at_ms: *now_ms,
        index: txn.index(),
    };
    let answer = antiphon_proto::log::Idempotency {
        seq,
        sent_at_ms: *now_ms,
        text_hash: Bytes::copy_from_slice(text_hash),
    };
    let inbox = Inbox {
        delivered_seq: seq,
        read_seq: seq,
    };
    txn.set(tail_key, store::encode(&tail));
    txn.set(keys::message(*conversation, seq), store::encode(&stored));
    txn.set(idempotency_key, store::encode(&answer));
    txn.set(keys::inbox(*conversation, *sender), store::encode(&inbox));
    txn.emit(event::Body::MessageSent(MessageSent {
        conversation_id: conversation.to_bytes(),
        seq,
    }));
    Ok(Sent {
        seq,
        sent_at_ms: *now_ms,
        is_duplicate: false,
    })
}
