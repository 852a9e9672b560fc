//! Keys of messages; the table is in the crate's documentation.

use antiphon_types::{ConversationId, Seq, UserId, kind, pack_key};
use bytes::Bytes;
use foundationdb_tuple::{Bytes as TupleBytes, unpack};

/// `(slot, TAIL, conversation id)`.
pub(crate) fn tail(conversation: ConversationId) -> Bytes {
    pack_key(&(
        conversation.slot().number(),
        kind::TAIL,
        conversation.as_bytes().as_slice(),
    ))
}

/// `(slot, MESSAGE, conversation id, seq)`.
pub(crate) fn message(conversation: ConversationId, seq: Seq) -> Bytes {
    pack_key(&(
        conversation.slot().number(),
        kind::MESSAGE,
        conversation.as_bytes().as_slice(),
        seq,
    ))
}

/// The seq of a MESSAGE key.
pub(crate) fn message_seq(key: &[u8]) -> Option<Seq> {
    let (_, found, _, seq): (u16, u16, TupleBytes<'_>, Seq) = unpack(key).ok()?;
    (found == kind::MESSAGE).then_some(seq)
}

/// `(slot, IDEMPOTENCY, conversation id, sender id, client message id)`.
pub(crate) fn idempotency(conversation: ConversationId, sender: UserId, client_msg_id: &str) -> Bytes {
    let (id, sender) = (conversation.as_bytes().as_slice(), sender.as_bytes().as_slice());
    pack_key(&(
        conversation.slot().number(),
        kind::IDEMPOTENCY,
        id,
        sender,
        client_msg_id,
    ))
}

/// `(slot, INBOX, conversation id, user id)`.
pub(crate) fn inbox(conversation: ConversationId, user: UserId) -> Bytes {
    let (id, user) = (conversation.as_bytes().as_slice(), user.as_bytes().as_slice());
    pack_key(&(conversation.slot().number(), kind::INBOX, id, user))
}

#[cfg(test)]
mod tests {
    use antiphon_types::{SLOT_COUNT, Slot};
    use proptest::prelude::*;

    use super::*;

    fn conversation(slot: u16, random: u64) -> ConversationId {
        ConversationId::new(Slot::new(slot).unwrap(), 1, random)
    }

    proptest! {
        #[test]
        fn messages_sort_by_seq_inside_their_conversation(
            slot in 0..SLOT_COUNT, random: u64, a: u64, b: u64,
        ) {
            let id = conversation(slot, random);
            prop_assert_eq!(message(id, a).cmp(&message(id, b)), a.cmp(&b));
            prop_assert_eq!(message_seq(&message(id, a)), Some(a));
        }

        #[test]
        fn keys_of_different_things_differ(random: u64, other: u64, text in "[!-~]{1,64}") {
            let id = conversation(1, random);
            let user = UserId::new(Slot::DEPLOYMENT, 1, other);
            let keys = [tail(id), message(id, other), idempotency(id, user, &text), inbox(id, user)];
            for (at, key) in keys.iter().enumerate() {
                prop_assert!(keys.iter().skip(at + 1).all(|other| other != key));
            }
            prop_assert_eq!(message_seq(&keys[0]), None);
        }
    }
}
