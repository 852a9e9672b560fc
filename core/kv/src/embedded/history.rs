use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{KvError, engine::Reads};

/// What was written lately, by version: where a commit looks for conflicts. It reaches back to the oldest transaction that
/// runs, but not beyond the age and the number of keys allowed: a transaction that is older is refused.
#[derive(Debug)]
pub(super) struct History<G> {
    age_max: Duration,
    keys_max: usize,
    /// The version that wrote a key last.
    keys: BTreeMap<Bytes, u64>,
    /// The keys of each version, oldest first.
    commits: VecDeque<(u64, Vec<Bytes>)>,
    /// The generations that transactions may run on, oldest first; the last one is current.
    generations: VecDeque<Published<G>>,
    /// All is remembered that was written after this version.
    floor: u64,
}

#[derive(Debug)]
struct Published<G> {
    version: u64,
    at: Instant,
    alive: Weak<G>,
}

impl<G> History<G> {
    pub(super) fn new(age_max: Duration, keys_max: usize) -> Self {
        Self {
            age_max,
            keys_max,
            keys: BTreeMap::new(),
            commits: VecDeque::new(),
            generations: VecDeque::new(),
            floor: 0,
        }
    }

    /// Whether nothing that was read at `read_version` has been written since.
    pub(super) fn check(&self, read_version: u64, reads: &Reads) -> Result<(), KvError> {
        if reads.is_empty() {
            return Ok(());
        }
        if read_version < self.floor {
            let limit_ms = u64::try_from(self.age_max.as_millis()).unwrap_or(u64::MAX);
            return Err(KvError::TooOld { limit_ms });
        }
        let is_newer = |version: &u64| *version > read_version;
        let key_changed = |key: &Bytes| self.keys.get(key).is_some_and(is_newer);
        let range_changed = |(start, end): (&Bytes, &Bytes)| {
            let mut written = self.keys.range::<Bytes, _>(start..end);
            written.any(|(_, version)| is_newer(version))
        };
        if reads.keys().any(key_changed) || reads.ranges().any(range_changed) {
            return Err(KvError::Conflict);
        }
        Ok(())
    }

    /// Takes note of a commit.
    pub(super) fn record(&mut self, version: u64, keys: Vec<Bytes>) {
        for key in &keys {
            self.keys.insert(key.clone(), version);
        }
        self.commits.push_back((version, keys));
    }

    /// Takes note of a generation that transactions may begin on from now, and forgets what nobody needs any more.
    pub(super) fn publish(&mut self, version: u64, generation: &Arc<G>, now: Instant) {
        let alive = Arc::downgrade(generation);
        self.generations.push_back(Published {
            version,
            at: now,
            alive,
        });
        while self.oldest_is_over(now) {
            self.generations.pop_front();
            self.forget();
        }
    }

    /// Whether the oldest generation has been replaced and is read no more, or has been replaced for too long.
    fn oldest_is_over(&self, now: Instant) -> bool {
        let (Some(oldest), Some(next)) = (self.generations.front(), self.generations.get(1)) else {
            return false;
        };
        oldest.alive.strong_count() == 0
            || now.duration_since(next.at) > self.age_max
            || self.keys.len() > self.keys_max
    }

    fn forget(&mut self) {
        let Some(oldest) = self.generations.front() else { return };
        self.floor = oldest.version;
        let floor = self.floor;
        while let Some((version, keys)) = self.commits.pop_front_if(|(version, _)| *version <= floor) {
            for key in keys {
                if self.keys.get(&key) == Some(&version) {
                    self.keys.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MAX: Duration = Duration::from_millis(100);

    /// Publishes a generation of `version` that wrote `key`.
    fn publish(history: &mut History<u64>, version: u64, key: &'static str, now: Instant) -> Arc<u64> {
        let generation = Arc::new(version);
        history.record(version, vec![key.into()]);
        history.publish(version, &generation, now);
        generation
    }

    fn read(key: &str) -> Reads {
        let mut reads = Reads::default();
        reads.add_key(key.as_bytes());
        reads
    }

    #[test]
    fn what_no_transaction_can_conflict_with_is_forgotten() {
        let now = Instant::now();
        let mut history = History::new(AGE_MAX, 100);
        for version in 1..1_000 {
            publish(&mut history, version, "key", now);
        }
        assert!(
            history.commits.len() <= 1,
            "{} commits are remembered",
            history.commits.len()
        );
        assert!(history.keys.len() <= 1);
        assert!(history.generations.len() <= 2);
    }

    #[test]
    fn what_a_running_transaction_can_conflict_with_is_remembered() {
        let now = Instant::now();
        let mut history = History::new(AGE_MAX, 100);
        let first = publish(&mut history, 1, "a", now);
        let _second = publish(&mut history, 2, "b", now);
        let _third = publish(&mut history, 3, "c", now);
        assert!(matches!(history.check(*first, &read("b")), Err(KvError::Conflict)));
        assert!(matches!(history.check(2, &read("b")), Ok(())));
        assert!(matches!(history.check(*first, &read("a")), Ok(())));
    }

    #[test]
    fn transaction_older_than_the_age_is_too_old() {
        let now = Instant::now();
        let mut history = History::new(AGE_MAX, 100);
        let first = publish(&mut history, 1, "a", now);
        publish(&mut history, 2, "b", now);
        assert!(matches!(history.check(*first, &read("x")), Ok(())));
        publish(&mut history, 3, "c", now + AGE_MAX * 2);
        assert!(matches!(history.check(*first, &read("x")), Err(KvError::TooOld { .. })));
        assert!(
            matches!(history.check(*first, &Reads::default()), Ok(())),
            "blind writes are never too old here"
        );
    }

    #[test]
    fn a_transaction_on_the_current_generation_is_never_too_old_here() {
        let now = Instant::now();
        let mut history = History::new(AGE_MAX, 100);
        let first = publish(&mut history, 1, "a", now);
        publish(&mut history, 2, "b", now + AGE_MAX * 9);
        assert!(matches!(history.check(*first, &read("x")), Ok(())));
    }

    #[test]
    fn number_of_keys_is_bounded_whoever_still_reads() {
        let now = Instant::now();
        let mut history = History::new(AGE_MAX, 10);
        let mut held = Vec::new();
        for (index, key) in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]
            .iter()
            .enumerate()
        {
            held.push(publish(&mut history, index as u64 + 1, key, now));
        }
        assert!(history.keys.len() <= 10);
        assert!(matches!(history.check(1, &read("x")), Err(KvError::TooOld { .. })));
        assert!(matches!(history.check(12, &read("x")), Ok(())));
    }
}
