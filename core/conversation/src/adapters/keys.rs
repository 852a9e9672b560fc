//! Keys of conversations; the table is in the crate's documentation.

use antiphon_slot::SlotError;
use antiphon_types::{ConversationId, UserId, kind, pack_key};
use bytes::Bytes;
use foundationdb_tuple::{Bytes as TupleBytes, Subspace, unpack};

/// `(slot, CONVERSATION, conversation id)`.
pub(crate) fn conversation(conversation: ConversationId) -> Bytes {
    let slot = conversation.slot().number();
    pack_key(&(slot, kind::CONVERSATION, conversation.as_bytes().as_slice()))
}

/// `(slot, MEMBER, conversation id, user id)`.
pub(crate) fn member(conversation: ConversationId, user: UserId) -> Bytes {
    let (id, user) = (conversation.as_bytes().as_slice(), user.as_bytes().as_slice());
    pack_key(&(conversation.slot().number(), kind::MEMBER, id, user))
}

/// The user id of a MEMBER key.
pub(crate) fn member_user(key: &[u8]) -> Result<UserId, SlotError> {
    UserId::from_bytes(&last_id(key)?).map_err(|reason| corrupt(&reason))
}

/// First (inclusive) and last (exclusive) MEMBER key of a conversation, from behind `after` on.
pub(crate) fn members(conversation: ConversationId, after: Option<UserId>) -> (Bytes, Bytes) {
    let id = conversation.as_bytes().as_slice();
    let all = Subspace::from((conversation.slot().number(), kind::MEMBER, id)).range();
    behind(all, after.map(|user| member(conversation, user)))
}

/// `(slot, PAIR, smaller user id, larger user id)`.
pub(crate) fn pair(smaller: UserId, larger: UserId) -> Bytes {
    let (one, other) = (smaller.as_bytes().as_slice(), larger.as_bytes().as_slice());
    pack_key(&(smaller.slot().number(), kind::PAIR, one, other))
}

/// `(slot, MEMBERSHIP, user id, conversation id)`.
pub(crate) fn membership(user: UserId, conversation: ConversationId) -> Bytes {
    let (user_id, id) = (user.as_bytes().as_slice(), conversation.as_bytes().as_slice());
    pack_key(&(user.slot().number(), kind::MEMBERSHIP, user_id, id))
}

/// The conversation id of a MEMBERSHIP key.
pub(crate) fn membership_conversation(key: &[u8]) -> Result<ConversationId, SlotError> {
    ConversationId::from_bytes(&last_id(key)?).map_err(|reason| corrupt(&reason))
}

/// First (inclusive) and last (exclusive) MEMBERSHIP key of a user, from behind `after` on.
pub(crate) fn memberships(user: UserId, after: Option<ConversationId>) -> (Bytes, Bytes) {
    let all = Subspace::from((user.slot().number(), kind::MEMBERSHIP, user.as_bytes().as_slice())).range();
    behind(all, after.map(|conversation| membership(user, conversation)))
}

/// The key right behind `key`: where a page that ended with it goes on.
pub(crate) fn next(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

fn behind((start, end): (Vec<u8>, Vec<u8>), after: Option<Bytes>) -> (Bytes, Bytes) {
    let start = after.map_or_else(|| start.into(), |key| next(&key));
    (start, end.into())
}

fn last_id(key: &[u8]) -> Result<TupleBytes<'_>, SlotError> {
    let (_, _, _, id): (u16, u16, TupleBytes<'_>, TupleBytes<'_>) = unpack(key).map_err(|reason| corrupt(&reason))?;
    Ok(id)
}

fn corrupt(reason: &impl ToString) -> SlotError {
    SlotError::Corrupt {
        what: "a key of conversations".to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_types::{SLOT_COUNT, Slot};
    use proptest::prelude::*;

    use super::*;

    fn users() -> impl Strategy<Value = UserId> {
        (0..SLOT_COUNT, 0_u64..(1 << 48), any::<u64>())
            .prop_map(|(slot, now_ms, random)| UserId::new(Slot::new(slot).unwrap(), now_ms, random))
    }

    fn conversations() -> impl Strategy<Value = ConversationId> {
        (0..SLOT_COUNT, 0_u64..(1 << 48), any::<u64>())
            .prop_map(|(slot, now_ms, random)| ConversationId::new(Slot::new(slot).unwrap(), now_ms, random))
    }

    proptest! {
        #[test]
        fn a_key_gives_back_the_id_it_was_made_of(id in conversations(), user in users()) {
            prop_assert_eq!(member_user(&member(id, user)).unwrap(), user);
            prop_assert_eq!(membership_conversation(&membership(user, id)).unwrap(), id);
        }

        #[test]
        fn members_are_in_the_order_of_their_ids(id in conversations(), a in users(), b in users()) {
            prop_assert_eq!(member(id, a).cmp(&member(id, b)), a.cmp(&b));
        }

        #[test]
        fn a_page_holds_what_is_behind_its_start_and_nothing_of_others(
            id in conversations(),
            other in conversations(),
            user in users(),
            after in users(),
        ) {
            let (start, end) = members(id, Some(after));
            prop_assert_eq!((&start..&end).contains(&&member(id, user)), user > after);
            let (start, end) = members(id, None);
            prop_assert!((&start..&end).contains(&&member(id, user)));
            prop_assert_eq!((&start..&end).contains(&&member(other, user)), other == id);
            let (start, end) = memberships(user, Some(id));
            prop_assert_eq!((&start..&end).contains(&&membership(user, other)), other > id);
            let (start, end) = memberships(user, None);
            prop_assert!((&start..&end).contains(&&membership(user, other)));
            prop_assert_eq!((&start..&end).contains(&&membership(after, other)), after == user);
        }

        #[test]
        fn keys_of_different_kinds_never_meet(id in conversations(), a in users(), b in users()) {
            let keys = [conversation(id), member(id, a), pair(a, b), membership(a, id)];
            for (index, key) in keys.iter().enumerate() {
                prop_assert!(keys[index + 1..].iter().all(|other| other != key));
            }
        }
    }
}
