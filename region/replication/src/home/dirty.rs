use std::collections::{HashSet, VecDeque};

use antiphon_types::Slot;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Slots that have something to ship on one stream: each once, in turn, so that a busy slot does not starve the others.
#[derive(Default)]
pub(crate) struct Dirty {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    followed: HashSet<Slot>,
    waiting: HashSet<Slot>,
    order: VecDeque<Slot>,
}

impl Dirty {
    /// From now on marks of this slot count.
    pub(crate) fn follow(&self, slot: Slot) {
        self.state.lock().followed.insert(slot);
        self.mark(slot);
    }

    pub(crate) fn leave(&self, slot: Slot) {
        self.state.lock().followed.remove(&slot);
    }

    /// The slot has something to ship.
    pub(crate) fn mark(&self, slot: Slot) {
        let mut state = self.state.lock();
        if state.followed.contains(&slot) && state.waiting.insert(slot) {
            state.order.push_back(slot);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The slot whose turn it is.
    pub(crate) fn next(&self) -> Option<Slot> {
        let mut state = self.state.lock();
        let slot = state.order.pop_front()?;
        state.waiting.remove(&slot);
        Some(slot)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().order.is_empty()
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
