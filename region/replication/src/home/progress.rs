use std::{collections::HashMap, time::Instant};

use antiphon_slot::protocol::Replica;
use antiphon_types::{Epoch, LogIndex, Slot};
use parking_lot::Mutex;

/// What followers have said that they hold, and when they were last level with their home.
#[derive(Default)]
pub(crate) struct Progress {
    held: Mutex<HashMap<(Slot, Replica), Held>>,
}

/// What one follower holds of one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) epoch: Epoch,
    pub(crate) index: LogIndex,
    /// When it last held all that the home had; since when it follows, at first.
    pub(crate) level_at: Instant,
    /// Whether a stream of it follows the slot now.
    pub(crate) follows: bool,
}

impl Progress {
    /// A follower begins to follow a slot.
    pub(crate) fn begins(&self, slot: Slot, replica: Replica, epoch: Epoch, now: Instant) {
        let mut held = self.held.lock();
        let known = held.entry((slot, replica)).or_insert(Held {
            epoch,
            index: 0,
            level_at: now,
            follows: true,
        });
        known.follows = true;
        if known.epoch < epoch {
            (known.epoch, known.index, known.level_at) = (epoch, 0, now);
        }
    }

    /// A follower holds everything up to `index`, where the home's log ends at `last_index`.
    pub(crate) fn holds(
        &self,
        slot: Slot,
        replica: Replica,
        epoch: Epoch,
        (index, last_index): (LogIndex, LogIndex),
        now: Instant,
    ) {
        if let Some(known) = self.held.lock().get_mut(&(slot, replica))
            && known.epoch == epoch
        {
            known.index = index.max(known.index);
            if known.index >= last_index {
                known.level_at = now;
            }
        }
    }

    /// The stream of a follower has ended.
    pub(crate) fn ended(&self, replica: Replica) {
        for ((_, other), held) in self.held.lock().iter_mut() {
            if *other == replica {
                held.follows = false;
            }
        }
    }

    pub(crate) fn get(&self, slot: Slot, replica: Replica) -> Option<Held> {
        self.held.lock().get(&(slot, replica)).copied()
    }
}
