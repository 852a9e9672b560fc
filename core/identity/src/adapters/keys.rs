//! The keys of identity. Persisted, so their form never changes.

use antiphon_types::{Slot, UserId, Username, kind, pack_key};
use bytes::Bytes;
use foundationdb_tuple::{Bytes as TupleBytes, unpack};

use crate::{
    domain::{FamilyId, username_slot},
    options::KEYS_SLOT,
};

/// `(slot, USERNAME, username)`.
pub(crate) fn username(username: &Username) -> Bytes {
    pack_key(&(username_slot(username).number(), kind::USERNAME, username.as_str()))
}

/// `(slot, ACCOUNT, user id)`.
pub(crate) fn account(user_id: UserId) -> Bytes {
    pack_key(&(user_id.slot().number(), kind::ACCOUNT, user_id.as_bytes().as_slice()))
}

/// `(slot, REFRESH_FAMILY, user id, family id)`.
pub(crate) fn family(user_id: UserId, family_id: FamilyId) -> Bytes {
    let slot = user_id.slot().number();
    pack_key(&(
        slot,
        kind::REFRESH_FAMILY,
        user_id.as_bytes().as_slice(),
        family_id.as_bytes().as_slice(),
    ))
}

/// The keys of all families of a user: first, inclusive, and last, exclusive.
pub(crate) fn families(user_id: UserId) -> (Bytes, Bytes) {
    let start = pack_key(&(
        user_id.slot().number(),
        kind::REFRESH_FAMILY,
        user_id.as_bytes().as_slice(),
    ));
    // Above the type code of any further element.
    let end = [start.as_ref(), &[0xff]].concat();
    (start, end.into())
}

/// Reads a key of [`family`].
pub(crate) fn read_family(key: &[u8]) -> Option<(UserId, FamilyId)> {
    let (slot, of_kind, user_id, family_id) = unpack::<(u16, u16, TupleBytes<'_>, TupleBytes<'_>)>(key).ok()?;
    let user_id = UserId::from_bytes(&user_id).ok()?;
    let is_ours = of_kind == kind::REFRESH_FAMILY && Slot::new(slot) == Some(user_id.slot());
    is_ours.then_some((user_id, FamilyId::from_bytes(&family_id)?))
}

/// `(slot 0, SIGNING_KEYS)`.
pub(crate) fn signing_keys() -> Bytes {
    pack_key(&(KEYS_SLOT.number(), kind::SIGNING_KEYS))
}

#[cfg(test)]
mod tests {
    use foundationdb_tuple::pack;
    use proptest::prelude::*;

    use super::*;

    fn user() -> impl Strategy<Value = UserId> {
        (0..4096_u16, any::<u64>()).prop_map(|(number, random)| UserId::new(Slot::new(number).unwrap(), random, random))
    }

    proptest! {
        #[test]
        fn a_family_survives_its_key_and_lies_among_its_users(user_id in user(), other in user(), family_id: [u8; 16]) {
            let family_id = FamilyId::from_bytes(&family_id).unwrap();
            let key = family(user_id, family_id);
            prop_assert_eq!(read_family(&key), Some((user_id, family_id)));
            let (start, end) = families(user_id);
            prop_assert!(start < key && key < end);
            let (start, end) = families(other);
            prop_assert!(user_id == other || key < start || key >= end);
        }

        #[test]
        fn every_key_begins_with_its_slot_and_kind(user_id in user(), name in "[a-z][a-z0-9._-]{2,31}") {
            let name = Username::parse(&name).unwrap();
            let prefix = |slot: Slot, of_kind: u16| pack(&(slot.number(), of_kind));
            prop_assert!(username(&name).starts_with(&prefix(username_slot(&name), kind::USERNAME)));
            prop_assert!(account(user_id).starts_with(&prefix(user_id.slot(), kind::ACCOUNT)));
            prop_assert_eq!(signing_keys(), prefix(Slot::DEPLOYMENT, kind::SIGNING_KEYS));
        }
    }
}
