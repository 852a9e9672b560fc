//! Changes of in-sync sets that a home asks the directory for, until it is known what became of each.
//!
//! Who is to come in counts from the moment at which it is wanted: nothing is acknowledged without it. The directory is asked once it
//! holds everything that was acknowledged before (Kafka's maximal in-sync set, KIP-497). Whether a question that was not answered will
//! be granted yet is not known, so that whom it names goes on counting, until the set has another version. What an earlier opening of the
//! slot has asked in the same epoch is not known here at all: such a slot commits nothing before the directory has heard of this one.

use std::collections::{BTreeSet, HashMap};

use antiphon_directory::domain::RegionId;
use antiphon_slot::protocol::LogState;
use antiphon_types::{Epoch, Slot};
use parking_lot::Mutex;

/// A slot's placement at one moment: leader epoch, and version of the in-sync set.
pub(crate) type Moment = (Epoch, u64);

/// The questions of one home.
#[derive(Debug, Default)]
pub(crate) struct Asking(Mutex<HashMap<Slot, Asked>>);

/// What was asked for one slot.
#[derive(Debug, Default)]
struct Asked {
    moment: Moment,
    /// Who counts beyond the members that the directory has confirmed.
    adding: BTreeSet<u64>,
    /// Whether the directory was asked and has not said what became of it.
    is_open: bool,
}

/// A change that is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) slot: Slot,
    pub(crate) moment: Moment,
    /// Without the home.
    pub(crate) set: Vec<RegionId>,
    /// Of these, those that are to come.
    pub(crate) new: BTreeSet<u64>,
    /// As it is, without the home.
    present: Vec<RegionId>,
    /// Whether an earlier question may still be granted.
    is_open: bool,
    /// Who asks; known once it is allowed.
    pub(crate) opening: u64,
}

impl Asking {
    /// Who counts beyond the members at this moment. What was asked at another is over.
    pub(crate) fn adding(&self, slot: Slot, moment: Moment) -> BTreeSet<u64> {
        let mut all = self.0.lock();
        if all.get(&slot).is_some_and(|asked| asked.moment != moment) {
            all.remove(&slot);
        }
        all.get(&slot).map(|asked| asked.adding.clone()).unwrap_or_default()
    }

    /// The slot is another region's.
    pub(crate) fn forget(&self, slot: Slot) {
        self.0.lock().remove(&slot);
    }

    /// Takes up what is wanted, if anything is: who is to come counts from now on, who is not to come after all no more. Returns
    /// whether others count than before, and what may have to be asked. A slot that is not settled has to ask in any case.
    pub(crate) fn want(
        &self,
        (slot, is_settled): (Slot, bool),
        moment: Moment,
        present: Vec<RegionId>,
        wanted: Option<Vec<RegionId>>,
    ) -> (bool, Option<Change>) {
        let is_wanted = wanted.is_some();
        let set = wanted.unwrap_or_else(|| present.clone());
        let added = set.iter().filter(|region| !present.contains(region));
        let new: BTreeSet<u64> = added.map(|region| region.0).collect();

        let mut all = self.0.lock();
        let asked = all.entry(slot).or_default();
        if asked.moment != moment {
            *asked = Asked {
                moment,
                ..Asked::default()
            };
        }
        let before = asked.adding.clone();
        if !asked.is_open {
            asked.adding.clear();
        }
        asked.adding.extend(&new);
        let is_open = asked.is_open || !is_settled;
        let change = Change {
            slot,
            moment,
            set,
            new,
            present,
            is_open,
            opening: 0,
        };
        (asked.adding != before, (is_wanted || is_open).then_some(change))
    }

    /// The directory is about to be asked.
    pub(crate) fn opened(&self, changes: &[Change]) {
        let mut all = self.0.lock();
        for change in changes {
            if let Some(asked) = all.get_mut(&change.slot) {
                asked.is_open = true;
            }
        }
    }

    /// It has refused: that did not happen and will not, unless an earlier question is still on its way.
    pub(crate) fn refused<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) {
        let mut all = self.0.lock();
        for change in changes.into_iter().filter(|change| !change.is_open) {
            if let Some(asked) = all.get_mut(&change.slot) {
                asked.is_open = false;
            }
        }
    }
}

impl Change {
    /// What to ask for, as the log shows. Members may come who are level. As long as they are not, an earlier question that was never
    /// answered is ended by asking for the present set: it is refused from then on.
    pub(crate) fn allowed(mut self, log: &LogState) -> Option<Self> {
        if log.epoch != self.moment.0 {
            return None;
        }
        self.opening = log.opening;
        if self.new.is_subset(&log.level) {
            return Some(self);
        }
        self.set.clone_from(&self.present);
        self.is_open.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = (4, 7);

    fn slot() -> Slot {
        Slot::new(5).unwrap()
    }

    fn ids(regions: &[u64]) -> Vec<RegionId> {
        regions.iter().copied().map(RegionId).collect()
    }

    fn want(asking: &Asking, wanted: Option<&[u64]>) -> (bool, Option<Change>) {
        asking.want((slot(), true), NOW, ids(&[2]), wanted.map(ids))
    }

    fn adding(asking: &Asking) -> Vec<u64> {
        asking.adding(slot(), NOW).into_iter().collect()
    }

    fn log(epoch: Epoch, level: &[u64]) -> LogState {
        LogState {
            epoch,
            level: level.iter().copied().collect(),
            ..LogState::default()
        }
    }

    #[test]
    fn who_is_to_come_counts_at_once_and_is_asked_for_when_it_is_level() {
        let asking = Asking::default();
        let (is_news, change) = want(&asking, Some(&[3]));
        assert!(is_news);
        assert_eq!(adding(&asking), [3]);
        let change = change.unwrap();
        assert_eq!(change.clone().allowed(&log(4, &[2])), None, "entries could be missing");
        assert_eq!(change.clone().allowed(&log(3, &[2, 3])), None, "of another epoch");
        assert_eq!(change.allowed(&log(4, &[2, 3])).unwrap().set, ids(&[3]));
        assert!(!want(&asking, Some(&[3])).0, "nothing is new");
    }

    #[test]
    fn who_is_not_to_come_after_all_counts_no_more() {
        let asking = Asking::default();
        want(&asking, Some(&[3]));
        assert_eq!(want(&asking, None), (true, None));
        assert!(adding(&asking).is_empty());
    }

    #[test]
    fn who_was_asked_for_counts_until_the_question_is_over() {
        let asking = Asking::default();
        let change = want(&asking, Some(&[3])).1.unwrap();
        asking.opened(&[change]);
        // No answer. It is wanted no more, or another is: it may still be granted.
        let ending = want(&asking, None).1.unwrap();
        assert_eq!(ending.allowed(&log(4, &[])).unwrap().set, ids(&[2]));
        let other = want(&asking, Some(&[9])).1.unwrap();
        assert_eq!(adding(&asking), [3, 9]);
        assert_eq!(
            other.clone().allowed(&log(4, &[2])).unwrap().set,
            ids(&[2]),
            "it is ended first"
        );
        asking.refused([&other]);
        assert_eq!(adding(&asking), [3, 9], "the first may be on its way");
        assert!(asking.adding(slot(), (4, 8)).is_empty(), "another version: it is over");
        assert!(adding(&asking).is_empty());
    }

    #[test]
    fn a_slot_that_is_not_settled_asks_for_what_it_may_have() {
        let asking = Asking::default();
        let unsettled = |wanted: Option<&[u64]>| asking.want((slot(), false), NOW, ids(&[2]), wanted.map(ids)).1;
        assert_eq!(unsettled(None).unwrap().allowed(&log(4, &[])).unwrap().set, ids(&[2]));
        let other = unsettled(Some(&[3])).unwrap();
        assert_eq!(other.clone().allowed(&log(4, &[2])).unwrap().set, ids(&[2]));
        assert_eq!(other.allowed(&log(4, &[2, 3])).unwrap().set, ids(&[3]));
        assert_eq!(want(&asking, None).1, None, "settled, and nothing wanted");
    }

    #[test]
    fn what_was_refused_did_not_happen() {
        let asking = Asking::default();
        let change = want(&asking, Some(&[3])).1.unwrap();
        asking.opened(std::slice::from_ref(&change));
        asking.refused([&change]);
        assert_eq!(want(&asking, None), (true, None));
        assert!(adding(&asking).is_empty());
    }
}
