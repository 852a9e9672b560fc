//! Keys of presence; the table is in the crate's documentation.

use antiphon_types::{UserId, kind, pack_key};
use bytes::Bytes;

/// `(slot, PRESENCE, user id)`.
pub(crate) fn presence(user: UserId) -> Bytes {
    pack_key(&(user.slot().number(), kind::PRESENCE, user.as_bytes().as_slice()))
}

#[cfg(test)]
mod tests {
    use antiphon_types::{SLOT_COUNT, Slot};
    use foundationdb_tuple::{Bytes as TupleBytes, unpack};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_gives_back_what_it_was_made_of(slot in 0..SLOT_COUNT, now_ms in 0_u64..(1 << 48), random: u64) {
            let user = UserId::new(Slot::new(slot).unwrap(), now_ms, random);
            let key = presence(user);
            let (in_slot, of_kind, id): (u16, u16, TupleBytes<'_>) = unpack(&key).unwrap();
            prop_assert_eq!((in_slot, of_kind), (slot, kind::PRESENCE));
            prop_assert_eq!(UserId::from_bytes(&id), Ok(user));
        }
    }
}
