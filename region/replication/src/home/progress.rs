use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use antiphon_slot::protocol::Replica;
use antiphon_types::{Epoch, LogIndex, Slot};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Round trips that are remembered of each follower: the least of them is the distance, as the others have waited for something else.
const ROUND_TRIPS: usize = 16;

/// Fewer say nothing: the first ones are taken while everything starts.
const ROUND_TRIPS_MIN: usize = 3;

/// What followers have said that they hold, when they were last level with their home, and how far away they are.
#[derive(Default)]
pub(crate) struct Progress {
    held: Mutex<HashMap<(Slot, Replica), Held>>,
    round_trips: Mutex<BTreeMap<Replica, VecDeque<Duration>>>,
}

/// Names a follower's stream to this home.
pub(crate) type StreamId = u64;

/// What one follower holds of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: Epoch,
    /// Everything up to here; `None` before it has said so in this epoch.
    pub(crate) index: Option<LogIndex>,
    /// When it last was level with its home; since when it is expected to be, at first.
    pub(crate) level_at: Instant,
    /// The stream by which it follows the slot now. A region of several nodes has several, and a slot may go from one to another.
    stream: Option<StreamId>,
    /// Where the home's log ended when it was looked at last, and when that was: whoever has come so far by the next look keeps up,
    /// though the log has gone on.
    target: LogIndex,
    target_at: Instant,
}

impl Held {
    /// Whether it was level a moment ago, and still follows.
    pub(crate) fn is_level(&self, now: Instant) -> bool {
        self.stream.is_some() && self.index.is_some() && now.saturating_duration_since(self.level_at) < LEVEL
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
        if let (Some(_), Some(index)) = (known.stream, known.index) {
            if index >= last_index {
                known.level_at = now;
            } else if index >= known.target {
                known.level_at = known.target_at;
            }
        }
        (known.target, known.target_at) = (last_index, now);
        *known
    }

    /// A follower begins to follow a slot by this stream, and by no other any more.
    pub(crate) fn begins(&self, slot: Slot, (replica, stream): (Replica, StreamId), epoch: Epoch, now: Instant) {
        entry(&mut self.held.lock(), slot, replica, epoch, now).stream = Some(stream);
    }

    /// A follower holds everything up to `index`.
    pub(crate) fn holds(&self, slot: Slot, replica: Replica, epoch: Epoch, index: LogIndex) {
        if let Some(known) = self.held.lock().get_mut(&(slot, replica))
            && known.epoch == epoch
        {
            known.index = known.index.max(Some(index));
        }
    }

    /// A follower follows a slot no more by this stream. Whether it follows it no more at all: false when it has begun on another
    /// stream, whose word may come before the end of this one.
    pub(crate) fn left(&self, slot: Slot, (replica, stream): (Replica, StreamId)) -> bool {
        let mut held = self.held.lock();
        let has_left = held
            .get(&(slot, replica))
            .is_some_and(|known| known.stream == Some(stream));
        if has_left {
            held.remove(&(slot, replica));
        }
        has_left
    }

    /// Whether a follower follows a slot by this stream.
    pub(crate) fn is_followed_by(&self, slot: Slot, (replica, stream): (Replica, StreamId)) -> bool {
        let held = self.held.lock();
        held.get(&(slot, replica))
            .is_some_and(|known| known.stream == Some(stream))
    }

    /// A follower has answered after this time.
    pub(crate) fn answered(&self, replica: Replica, round_trip: Duration) {
        let mut all = self.round_trips.lock();
        let of_replica = all.entry(replica).or_default();
        of_replica.truncate(ROUND_TRIPS - 1);
        of_replica.push_front(round_trip);
    }

    /// How far away each follower is that has answered often enough.
    pub(crate) fn round_trips(&self) -> Vec<(Replica, Duration)> {
        let all = self.round_trips.lock();
        let measured = all.iter().filter(|(_, of_replica)| of_replica.len() >= ROUND_TRIPS_MIN);
        let least =
            |(replica, of_replica): (&Replica, &VecDeque<Duration>)| Some((*replica, *of_replica.iter().min()?));
        measured.filter_map(least).collect()
    }

    /// A stream has ended. Returns the slots that were followed by it, and what their follower has said counts on.
    pub(crate) fn ended(&self, stream: StreamId) -> Vec<Slot> {
        let mut left = Vec::new();
        for ((slot, _), held) in self.held.lock().iter_mut() {
            if held.stream == Some(stream) {
                held.stream = None;
                left.push(*slot);
            }
        }
        left
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
        stream: None,
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
        progress.begins(slot, (2, 20), 1, start);
        progress.begins(slot, (3, 30), 1, start);
        for looks in 0..20 {
            let last_index = 100 * looks + 100;
            progress.holds(slot, 2, 1, last_index - 10);
            progress.holds(slot, 3, 1, 5);
            let quick = progress.look((slot, 1), 2, last_index, at(looks));
            let slow = progress.look((slot, 1), 3, last_index, at(looks));
            assert!(looks < 2 || quick.is_level(at(looks)), "{looks}: {quick:?}");
            assert!(looks < 4 || !slow.is_level(at(looks)), "{looks}: {slow:?}");
        }
        assert_eq!(progress.ended(20), [slot]);
        assert!(!progress.look((slot, 1), 2, 2_000, at(20)).is_level(at(20)));
    }

    #[test]
    fn what_was_held_under_another_epoch_counts_for_nothing() {
        let (progress, slot, now) = (Progress::default(), Slot::DEPLOYMENT, Instant::now());
        progress.begins(slot, (2, 20), 1, now);
        progress.holds(slot, 2, 1, 9);
        progress.holds(slot, 2, 2, 99);
        assert_eq!(progress.look((slot, 1), 2, 9, now).index, Some(9));
        assert_eq!(progress.look((slot, 2), 2, 9, now).index, None);
    }

    /// Another node of the follower's region has taken the slot over, and its word comes first.
    #[test]
    fn a_slot_that_goes_to_another_stream_is_followed_on() {
        let (progress, slot, now) = (Progress::default(), Slot::DEPLOYMENT, Instant::now());
        progress.begins(slot, (2, 20), 1, now);
        progress.holds(slot, 2, 1, 9);
        progress.begins(slot, (2, 21), 1, now);
        assert!(!progress.left(slot, (2, 20)));
        assert_eq!(progress.ended(20), []);
        assert!(progress.look((slot, 1), 2, 9, now).is_level(now));
        assert!(progress.left(slot, (2, 21)));
        assert!(!progress.look((slot, 1), 2, 9, now).is_level(now));
    }

    #[test]
    fn the_distance_is_the_least_of_the_last_round_trips() {
        let progress = Progress::default();
        let ms = Duration::from_millis;
        for round_trip in [90, 71, 300] {
            assert_eq!(progress.round_trips(), [], "too few to go by");
            progress.answered(2, ms(round_trip));
        }
        assert_eq!(progress.round_trips(), [(2, ms(71))]);
        (0..16).for_each(|_| progress.answered(2, ms(140)));
        assert_eq!(progress.round_trips(), [(2, ms(140))]);
    }
}
