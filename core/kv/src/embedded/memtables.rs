//! Freeing what the engine has written to its tables.

use std::{any::Any, sync::Arc, thread};

use fjall::{AbstractTree as _, Keyspace};

use super::folder::give_way;

/// A part of the store in memory, whatever the engine calls its type.
type Memtable = Arc<dyn Any + Send + Sync>;

/// Holds the engine's memtables until nobody else does, and frees them on a thread of their own. The engine itself would free one under
/// the lock that every read and write takes; a full one is hundreds of thousands of allocations, which take a tenth of a second.
pub(super) struct Memtables {
    /// What is written to now, and its number.
    active: (u64, Memtable),
    /// What was, while the engine has use for it.
    sealed: Vec<Memtable>,
}

impl Memtables {
    pub(super) fn of(keyspace: &Keyspace) -> Self {
        let active = keyspace.tree.active_memtable();
        Self {
            active: (active.id(), active),
            sealed: Vec::new(),
        }
    }

    /// After each group: takes hold of a new one, and frees those that nobody else holds.
    pub(super) fn look(&mut self, keyspace: &Keyspace) {
        let active = keyspace.tree.active_memtable();
        if active.id() != self.active.0 {
            let (_, sealed) = std::mem::replace(&mut self.active, (active.id(), active));
            self.sealed.push(sealed);
        }
        for free in self.sealed.extract_if(.., |sealed| Arc::strong_count(sealed) == 1) {
            // Without a thread it is freed here.
            let _ = thread::Builder::new().name("kv-free".to_owned()).spawn(move || {
                give_way();
                drop(free);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::embedded::{EmbeddedOptions, folder};

    #[tokio::test]
    async fn a_memtable_is_not_freed_by_the_engine() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().to_owned(),
            ..EmbeddedOptions::default()
        };
        let opened = folder::open(&options).unwrap();
        let keyspace = &opened.keyspace;
        let mut memtables = Memtables::of(keyspace);
        let first = Arc::downgrade(&memtables.active.1);
        for key in ["a", "b"] {
            keyspace.insert(key, "value").unwrap();
            memtables.look(keyspace);
            // Written to a table; the engine lets go of what it has written before.
            keyspace.rotate_memtable_and_wait().unwrap();
        }
        let until = Instant::now() + Duration::from_secs(10);
        while first.strong_count() > 1 && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(first.strong_count(), 1, "held here alone");
        memtables.look(keyspace);
        while first.strong_count() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(first.strong_count(), 0, "freed");
        assert_eq!(memtables.sealed.len(), 1);
    }
}
