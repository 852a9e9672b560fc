use std::{collections::HashSet, mem};

use antiphon_types::Slot;

/// Slots whose high watermark a follower is still to be told. Whoever asks at regular moments what is due gets each slot once it has waited
/// from one of them to the next.
#[derive(Default)]
pub(super) struct Watermarks {
    /// Since the moment before the last, and since the last.
    waited: HashSet<Slot>,
    recent: HashSet<Slot>,
}

impl Watermarks {
    /// The slot's high watermark has moved, and the follower has all of its entries.
    pub(super) fn moved(&mut self, slot: Slot) {
        if !self.waited.contains(&slot) {
            self.recent.insert(slot);
        }
    }

    /// The follower was told.
    pub(super) fn told(&mut self, slot: Slot) {
        self.waited.remove(&slot);
        self.recent.remove(&slot);
    }

    /// Those that have waited long enough.
    pub(super) fn due(&mut self) -> HashSet<Slot> {
        mem::replace(&mut self.waited, mem::take(&mut self.recent))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waited.is_empty() && self.recent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_due_when_it_has_waited_from_one_moment_to_the_next_and_nobody_has_told() {
        let [busy, quiet] = [1, 2].map(|number| Slot::new(number).unwrap());
        let mut watermarks = Watermarks::default();
        watermarks.moved(quiet);
        watermarks.moved(busy);
        assert_eq!(watermarks.due(), HashSet::new(), "a moment ago");
        watermarks.moved(quiet);
        watermarks.told(busy);
        watermarks.moved(busy);
        assert_eq!(watermarks.due(), HashSet::from([quiet]));
        watermarks.told(busy);
        assert_eq!(watermarks.due(), HashSet::new());
        assert!(watermarks.is_empty());
    }
}
