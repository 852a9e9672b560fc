use std::{collections::HashMap, time::Duration};

use antiphon_slot::protocol::Replica;
use antiphon_types::{Epoch, LogIndex, Slot};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What followers have said that they hold, and when they were last level with their home.
#[derive(Default)]
pub(crate) struct Progress {
    held: Mutex<HashMap<(Slot, Replica), Held>>,
}

/// What one follower holds of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: Epoch,
    /// Everything up to here; `None` before it has said so in this epoch.
    pub(crate) index: Option<LogIndex>,
    /// When it last was level with its home; since when it is expected to be, at first.
    pub(crate) level_at: Instant,
    /// Whether a stream of it follows the slot now.
    pub(crate) follows: bool,
    /// Where the home's log ended when it was looked at last, and when that was: whoever has come so far by the next look keeps up,
    /// though the log has gone on.
    target: LogIndex,
    target_at: Instant,
}

impl Held {
    /// Whether it was level a moment ago, and still follows.
    pub(crate) fn is_level(&self, now: Instant) -> bool {
        self.follows && self.index.is_some() && now.saturating_duration_since(self.level_at) < LEVEL
    }
}

/// How long ago a replica may have been level to count as level: a few looks.
const LEVEL: Duration = Duration::from_millis(1_500);

impl Progress {
    /// What a follower holds, where the home's log ends at `last_index` under `epoch`; one that was never heard of is expected
    /// from now on.
    pub(crate) fn look(
        &self,
        (slot, epoch): (Slot, Epoch),
        replica: Replica,
        last_index: LogIndex,
        now: Instant,
    ) -> Held {
        let mut held = self.held.lock();
        let known = entry(&mut held, slot, replica, epoch, now);
        if let (true, Some(index)) = (known.follows, known.index) {
            if index >= last_index {
                known.level_at = now;
            } else if index >= known.target {
                known.level_at = known.target_at;
            }
        }
        (known.target, known.target_at) = (last_index, now);
        *known
    }

    /// A follower begins to follow a slot.
    pub(crate) fn begins(&self, slot: Slot, replica: Replica, epoch: Epoch, now: Instant) {
        entry(&mut self.held.lock(), slot, replica, epoch, now).follows = true;
    }

    /// A follower holds everything up to `index`.
    pub(crate) fn holds(&self, slot: Slot, replica: Replica, epoch: Epoch, index: LogIndex) {
        if let Some(known) = self.held.lock().get_mut(&(slot, replica))
            && known.epoch == epoch
        {
            known.index = known.index.max(Some(index));
        }
    }

    /// A follower follows a slot no more.
    pub(crate) fn left(&self, slot: Slot, replica: Replica) {
        self.held.lock().remove(&(slot, replica));
    }

    /// The stream of a follower has ended.
    pub(crate) fn ended(&self, replica: Replica) {
        for ((_, other), held) in self.held.lock().iter_mut() {
            if *other == replica {
                held.follows = false;
            }
        }
    }
}

fn entry(
    held: &mut HashMap<(Slot, Replica), Held>,
    slot: Slot,
    replica: Replica,
    epoch: Epoch,
    now: Instant,
) -> &mut Held {
    let new = Held {
        epoch,
        index: None,
        level_at: now,
        follows: false,
        target: LogIndex::MAX,
        target_at: now,
    };
    let known = held.entry((slot, replica)).or_insert(new);
    if known.epoch < epoch {
        *known = new;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_up_with_a_busy_log_is_level_though_never_at_its_end() {
        let (progress, slot, start) = (Progress::default(), Slot::DEPLOYMENT, Instant::now());
        let at = |looks: u64| start + Duration::from_millis(500 * looks);
        progress.begins(slot, 2, 1, start);
        progress.begins(slot, 3, 1, start);
        for looks in 0..20 {
            let last_index = 100 * looks + 100;
            progress.holds(slot, 2, 1, last_index - 10);
            progress.holds(slot, 3, 1, 5);
            let quick = progress.look((slot, 1), 2, last_index, at(looks));
            let slow = progress.look((slot, 1), 3, last_index, at(looks));
            assert!(looks < 2 || quick.is_level(at(looks)), "{looks}: {quick:?}");
            assert!(looks < 4 || !slow.is_level(at(looks)), "{looks}: {slow:?}");
        }
        progress.ended(2);
        assert!(!progress.look((slot, 1), 2, 2_000, at(20)).is_level(at(20)));
    }

    #[test]
    fn what_was_held_under_another_epoch_counts_for_nothing() {
        let (progress, slot, now) = (Progress::default(), Slot::DEPLOYMENT, Instant::now());
        progress.begins(slot, 2, 1, now);
        progress.holds(slot, 2, 1, 9);
        progress.holds(slot, 2, 2, 99);
        assert_eq!(progress.look((slot, 1), 2, 9, now).index, Some(9));
        assert_eq!(progress.look((slot, 2), 2, 9, now).index, None);
    }
}
