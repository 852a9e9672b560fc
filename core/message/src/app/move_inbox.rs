use antiphon_conversation::membership;
use antiphon_proto::log::{Inbox, ReceiptMoved, Tail, event};
use antiphon_slot::{SlotTxn, Slots};
use antiphon_types::{ConversationId, Seq, UserId};
use futures_util::join;

use crate::{
    MessageError,
    adapters::{keys, store},
    domain::{self, Told},
};

/// How far a member's devices hold a conversation, and how far the member has read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) delivered: Option<Seq>,
    pub(crate) read: Option<Seq>,
}

/// Moves the inbox of a member; both of its seqs only grow (I6). All members are told in a conversation of up to `members_max`.
pub(crate) async fn move_inbox(slots: &Slots, moves: Move, members_max: u32) -> Result<Inbox, MessageError> {
    let slot = moves.conversation.slot();
    let body = move |txn| write(txn, moves, members_max);
    // Every device of a group says so of every message, and nobody waits for it.
    let written = match moves.read {
        None => slots.write_patiently(slot, body).await?,
        Some(_) => slots.write(slot, body).await?,
    };
    Ok(written.value)
}

async fn write(txn: SlotTxn, moves: Move, members_max: u32) -> Result<Inbox, MessageError> {
    let Move {
        conversation,
        user,
        delivered,
        read,
    } = moves;
    let (inbox_key, tail_key) = (keys::inbox(conversation, user), keys::tail(conversation));
    let (member, members, inbox, tail) = join!(
        membership::member_in(&txn, conversation, user),
        membership::count_in(&txn, conversation),
        txn.get(&inbox_key),
        txn.get(&tail_key)
    );
    member?;
    let inbox: Inbox = store::decoded("an inbox", inbox?)?.unwrap_or_default();
    let tail: Tail = store::decoded("a tail", tail?)?.unwrap_or_default();
    let Some(moved) = domain::moved(&inbox, delivered, read, tail.last_seq)? else {
        return Ok(inbox);
    };
    txn.set(inbox_key, store::encode(&moved));
    let told = domain::told(&inbox, &moved, members?, members_max);
    if told != Told::Nobody {
        txn.emit(event::Body::ReceiptMoved(ReceiptMoved {
            conversation_id: conversation.to_bytes(),
            user_id: user.to_bytes(),
            delivered_seq: moved.delivered_seq,
            read_seq: moved.read_seq,
            own_devices: told == Told::OwnDevices,
        }));
    }
    Ok(moved)
}
