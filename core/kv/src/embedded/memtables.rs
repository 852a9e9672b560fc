//! Freeing what the engine has written to its tables.

use std::{
    any::Any,
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use fjall::{AbstractTree as _, Keyspace};

use super::folder::give_way;

/// A part of the store in memory, whatever the engine calls its type.
type Memtable = Arc<dyn Any + Send + Sync>;

/// How often it is looked whether anybody else holds one still.
const LOOK: Duration = Duration::from_millis(100);

/// Holds each of the engine's memtables longer than the engine does, and frees it on a thread of its own. The engine itself would free one
/// under the lock that every read and write takes; a full one is hundreds of thousands of allocations, which take a tenth of a second.
pub(super) struct Memtables {
    /// What is written to now, and its number.
    active: (u64, Memtable),
}

impl Memtables {
    pub(super) fn of(keyspace: &Keyspace) -> Self {
        let active = keyspace.tree.active_memtable();
        Self {
            active: (active.id(), active),
        }
    }

    /// After each group: takes hold of a new one. Returns the thread that frees the one before it, if there is one.
    pub(super) fn look(&mut self, keyspace: &Keyspace) -> Option<JoinHandle<()>> {
        let active = keyspace.tree.active_memtable();
        if active.id() == self.active.0 {
            return None;
        }
        let (_, sealed) = mem::replace(&mut self.active, (active.id(), active));
        let free = move || {
            give_way();
            while Arc::strong_count(&sealed) > 1 {
                thread::park_timeout(LOOK);
            }
        };
        // Without a thread the engine frees it.
        thread::Builder::new().name("kv-free".to_owned()).spawn(free).ok()
    }
}

#[cfg(test)]
mod tests {
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
        let held = memtables.active.1.clone();
        let first = Arc::downgrade(&held);
        assert!(memtables.look(keyspace).is_none(), "nothing was put aside");
        let mut freeing = None;
        for key in ["a", "b"] {
            keyspace.insert(key, "value").unwrap();
            // Written to a table; the engine lets go of what it has written before.
            keyspace.rotate_memtable_and_wait().unwrap();
            freeing = freeing.or(memtables.look(keyspace));
        }
        let freeing = freeing.unwrap();
        sleep(LOOK * 3).await;
        assert!(!freeing.is_finished(), "somebody holds it still");
        drop(held);
        let until = Instant::now() + Duration::from_secs(10);
        while first.strong_count() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(first.strong_count(), 0, "freed");
    }
}
