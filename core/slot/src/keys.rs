//! Keys of the slot itself.

use antiphon_types::{LogIndex, Slot, kind, pack_key, packed_key};
use bytes::Bytes;

/// What is before it is the slot's own.
const FIRST_OF_SERVICES: u16 = kind::UNDO + 1;

/// `(slot, HEADER)`.
pub(crate) fn header(slot: Slot) -> Bytes {
    pack_key(&(slot.number(), kind::HEADER))
}

/// `(slot, LOG, index)`.
pub(crate) fn log(slot: Slot, index: LogIndex) -> Bytes {
    pack_key(&(slot.number(), kind::LOG, index))
}

/// `(slot, CUT, index)`.
pub(crate) fn cut(slot: Slot, index: LogIndex) -> Bytes {
    pack_key(&(slot.number(), kind::CUT, index))
}

/// `(slot, UNDO, index)`.
pub(crate) fn undo(slot: Slot, index: LogIndex) -> Bytes {
    pack_key(&(slot.number(), kind::UNDO, index))
}

/// The keys of services, which come after those of the slot itself: from the first, inclusive, to the end, exclusive.
pub(crate) fn services(slot: Slot) -> (Bytes, Bytes) {
    (
        pack_key(&(slot.number(), FIRST_OF_SERVICES)),
        pack_key(&(slot.number(), u64::MAX)),
    )
}

/// What every key of the slot begins with.
pub(crate) fn prefix(slot: Slot) -> Bytes {
    pack_key(&(slot.number(),))
}

/// Every key of the slot, its header and log included: from the first, inclusive, to the end, exclusive.
#[must_use]
pub fn slot_range(slot: Slot) -> (Bytes, Bytes) {
    let start = prefix(slot);
    // No element of a tuple begins with this byte.
    let end = [start.as_ref(), &[0xff]].concat().into();
    (start, end)
}

/// Whether a service may write `key` as part of `slot`: inside the slot, and neither its header nor its log.
pub(crate) fn is_service_key(slot: Slot, key: &[u8]) -> bool {
    let prefix = packed_key(&(slot.number(),));
    let first = packed_key(&(slot.number(), FIRST_OF_SERVICES));
    key.starts_with(&prefix) && *key >= *first && *key < *packed_key(&(slot.number(), u64::MAX))
}

#[cfg(test)]
mod tests {
    use antiphon_types::SLOT_COUNT;
    use foundationdb_tuple::pack;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn log_keys_sort_by_slot_and_index(a in 0..SLOT_COUNT, b in 0..SLOT_COUNT, i: u64, j: u64) {
            let (slot_a, slot_b) = (Slot::new(a).unwrap(), Slot::new(b).unwrap());
            prop_assert_eq!(log(slot_a, i).cmp(&log(slot_b, j)), (a, i).cmp(&(b, j)));
        }
    }

    #[test]
    fn the_range_of_a_slot_holds_its_keys_and_no_others() {
        for number in [0, 1, 255, 256, SLOT_COUNT - 1] {
            let slot = Slot::new(number).unwrap();
            let (start, end) = slot_range(slot);
            for other in [0, 1, 2, 254, 255, 256, 257, SLOT_COUNT - 2, SLOT_COUNT - 1] {
                let first = header(Slot::new(other).unwrap());
                let last = pack(&(other, u64::MAX, vec![0xff_u8; 9]));
                assert_eq!((start.clone()..end.clone()).contains(&first), other == number);
                assert_eq!(
                    (start.as_ref()..end.as_ref()).contains(&last.as_slice()),
                    other == number
                );
            }
        }
    }

    #[test]
    fn a_service_cannot_write_header_log_or_another_slot() {
        let (slot, other) = (Slot::new(7).unwrap(), Slot::new(8).unwrap());
        assert!(is_service_key(slot, &pack(&(7_u16, kind::MESSAGE, 1_u64))));
        assert!(!is_service_key(slot, &header(slot)));
        assert!(!is_service_key(slot, &log(slot, 1)));
        assert!(!is_service_key(slot, &cut(slot, 1)));
        assert!(!is_service_key(slot, &undo(slot, 1)));
        assert!(!is_service_key(slot, &pack(&(other.number(), kind::MESSAGE, 1_u64))));
    }
}
