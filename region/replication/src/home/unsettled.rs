use std::collections::{BTreeMap, BTreeSet};

use antiphon_slot::protocol::LogState;
use antiphon_types::Slot;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Slots that were opened and commit nothing before the directory has heard of it.
#[derive(Default)]
pub(crate) struct Unsettled {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The opening that was noted last of each slot that is not settled: each is asked about at once, and then when it is its turn.
    noted: BTreeMap<Slot, u64>,
    waiting: BTreeSet<Slot>,
}

impl Unsettled {
    /// Takes note of how a slot stands.
    pub(crate) fn moved(&self, slot: Slot, log: &LogState) {
        let mut state = self.state.lock();
        if log.is_settled {
            state.noted.remove(&slot);
            state.waiting.remove(&slot);
        } else if state.noted.insert(slot, log.opening) != Some(log.opening) {
            state.waiting.insert(slot);
            self.changed.notify_one();
        }
    }

    /// Those that nobody has asked about yet.
    pub(crate) fn take(&self) -> Vec<Slot> {
        std::mem::take(&mut self.state.lock().waiting).into_iter().collect()
    }

    /// These have to wait a little longer.
    pub(crate) fn give_back(&self, slots: &[Slot]) {
        if !slots.is_empty() {
            self.state.lock().waiting.extend(slots);
            self.changed.notify_one();
        }
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opening_is_asked_about_once() {
        let (unsettled, slot) = (Unsettled::default(), Slot::DEPLOYMENT);
        let log = |opening, is_settled| LogState {
            opening,
            is_settled,
            ..LogState::default()
        };
        unsettled.moved(slot, &log(1, true));
        assert_eq!(unsettled.take(), []);
        unsettled.moved(slot, &log(2, false));
        unsettled.moved(slot, &log(2, false));
        assert_eq!(unsettled.take(), [slot]);
        unsettled.moved(slot, &log(2, false));
        assert_eq!(unsettled.take(), [], "the question is on its way");
        unsettled.moved(slot, &log(3, false));
        unsettled.moved(slot, &log(3, true));
        assert_eq!(unsettled.take(), [], "it was heard meanwhile");
        unsettled.moved(slot, &log(4, false));
        let taken = unsettled.take();
        unsettled.give_back(&taken);
        assert_eq!(unsettled.take(), [slot]);
    }
}
