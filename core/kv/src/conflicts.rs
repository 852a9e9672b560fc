use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{KvError, engine::Reads, write::WriteSet};

/// What was written lately, by version: the table in which a commit looks for conflicts.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    keys: BTreeMap<Bytes, u64>,
    cleared: VecDeque<(u64, Bytes, Bytes)>,
    /// What to forget, oldest first.
    remembered: VecDeque<(u64, Vec<Bytes>)>,
}

impl Conflicts {
    /// Whether nothing that was read at `read_version` has been written since.
    pub(crate) fn check(&self, read_version: u64, reads: &Reads) -> Result<(), KvError> {
        if reads.keys.is_empty() && reads.ranges.is_empty() {
            return Ok(());
        }
        let is_newer = |version: u64| version > read_version;
        let cleared_since = || self.cleared.iter().rev().take_while(|(version, ..)| is_newer(*version));
        let key_conflicts = |key: &Bytes| {
            self.keys.get(key).is_some_and(|version| is_newer(*version))
                || cleared_since().any(|(_, start, end)| start <= key && key < end)
        };
        let range_conflicts = |start: &Bytes, end: &Bytes| {
            start < end
                && (self
                    .keys
                    .range::<Bytes, _>(start..end)
                    .any(|(_, version)| is_newer(*version))
                    || cleared_since().any(|(_, from, to)| from < end && start < to))
        };
        let conflict =
            reads.keys.iter().any(key_conflicts) || reads.ranges.iter().any(|(start, end)| range_conflicts(start, end));
        if conflict { Err(KvError::Conflict) } else { Ok(()) }
    }

    /// Takes note of a commit.
    pub(crate) fn remember(&mut self, version: u64, writes: &WriteSet) {
        let keys: Vec<Bytes> = writes.mutations.keys().cloned().collect();
        for key in &keys {
            self.keys.insert(key.clone(), version);
        }
        for (start, end) in &writes.cleared {
            self.cleared.push_back((version, start.clone(), end.clone()));
        }
        self.remembered.push_back((version, keys));
    }

    /// Forgets what was written up to `version`: no open transaction is older.
    pub(crate) fn forget(&mut self, version: u64) {
        while let Some((oldest, keys)) = self.remembered.pop_front_if(|(remembered, _)| *remembered <= version) {
            for key in keys {
                if self.keys.get(&key) == Some(&oldest) {
                    self.keys.remove(&key);
                }
            }
        }
        while self.cleared.pop_front_if(|(cleared, ..)| *cleared <= version).is_some() {}
    }
}
