use antiphon_directory::{Route, Table};
use antiphon_types::{ConversationId, Slot, TimestampMs};

/// Makes the id of a new conversation in a slot whose home is the region of `route`: where its creator is.
/// `random` comes from a cryptographic generator.
#[must_use]
pub fn new_conversation_id(route: &Route, now_ms: TimestampMs, random: u128) -> ConversationId {
    let [high, low] = halves(random);
    ConversationId::new(slot_homed_in(&route.table().load(), route.region(), high), now_ms, low)
}

/// One of the region's slots; of all slots when the region is home of none (it is being drained).
fn slot_homed_in(table: &Table, region: &str, random: u64) -> Slot {
    let homed: Vec<Slot> = table.homed_in(region).collect();
    let index = random
        .checked_rem(homed.len() as u64)
        .and_then(|index| usize::try_from(index).ok());
    index
        .and_then(|index| homed.get(index))
        .copied()
        .unwrap_or(Slot::of_hash(random))
}

#[allow(clippy::cast_possible_truncation, reason = "each half is 64 bits")]
const fn halves(random: u128) -> [u64; 2] {
    [(random >> 64) as u64, random as u64]
}

#[cfg(test)]
mod tests {
    use antiphon_directory::TableWatch;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_new_conversation_is_homed_where_its_creator_is(now_ms in 0_u64..(1 << 48), random: u128) {
            let route = Route::new("here", TableWatch::new(Table::single("here")));
            let id = new_conversation_id(&route, now_ms, random);
            let table = route.table().load();
            prop_assert_eq!(&*table.placement(id.slot()).home, "here");
        }
    }

    #[test]
    fn new_conversations_spread_over_the_slots() {
        let route = Route::new("here", TableWatch::new(Table::single("here")));
        let slots: std::collections::BTreeSet<Slot> = (0..64_u128)
            .map(|number| new_conversation_id(&route, 1, number << 64).slot())
            .collect();
        assert_eq!(slots.len(), 64);
    }

    #[test]
    fn a_region_that_is_home_of_nothing_still_makes_ids() {
        let route = Route::new("here", TableWatch::new(Table::single("elsewhere")));
        assert_eq!(new_conversation_id(&route, 1, 7 << 64).slot(), Slot::of_hash(7));
    }
}
