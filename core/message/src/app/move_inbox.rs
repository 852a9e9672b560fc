use antiphon_conversation::membership;
use antiphon_proto::log::{Inbox, ReceiptMoved, Tail, event};
use antiphon_slot::{SlotTxn, Slots};
use antiphon_types::{ConversationId, Seq, UserId};

use crate::{
    MessageError,
    adapters::{keys, store},
    domain,
};

/// Moves how far a member's devices hold the conversation and how far the member has read it; both only grow (I6).
pub(crate) async fn move_inbox(
    slots: &Slots,
    conversation: ConversationId,
    user: UserId,
    delivered: Option<Seq>,
    read: Option<Seq>,
) -> Result<Inbox, MessageError> {
    let slot = conversation.slot();
    let body = move |txn| write(txn, conversation, user, delivered, read);
    // Every device of a group says so of every message, and nobody waits for it.
    let written = match read {
        None => slots.write_patiently(slot, body).await?,
        Some(_) => slots.write(slot, body).await?,
    };
    Ok(written.value)
}

async fn write(
    txn: SlotTxn,
    conversation: ConversationId,
    user: UserId,
    delivered: Option<Seq>,
    read: Option<Seq>,
) -> Result<Inbox, MessageError> {
    membership::member_in(&txn, conversation, user).await?;
    let inbox_key = keys::inbox(conversation, user);
    let inbox: Inbox = store::decoded("an inbox", txn.get(&inbox_key).await?)?.unwrap_or_default();
    let tail: Tail = store::decoded("a tail", txn.get(&keys::tail(conversation)).await?)?.unwrap_or_default();
    let Some(moved) = domain::moved(&inbox, delivered, read, tail.last_seq)? else {
        return Ok(inbox);
    };
    txn.set(inbox_key, store::encode(&moved));
    txn.emit(event::Body::ReceiptMoved(ReceiptMoved {
        conversation_id: conversation.to_bytes(),
        user_id: user.to_bytes(),
        delivered_seq: moved.delivered_seq,
        read_seq: moved.read_seq,
    }));
    Ok(moved)
}
