//! Freeing what the engine needs no more.

use std::{
    any::Any,
    collections::VecDeque,
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use fjall::{AbstractTree as _, Keyspace};

use super::folder::give_way;

/// A part of the store in memory, whatever the engine calls its type.
type Memtable = Arc<dyn Any + Send + Sync>;
/// A list of the store's tables, as above. Whoever lets go of the last one that has a table deletes that.
type Version = Box<dyn Any + Send + Sync>;

/// How often it is looked whether anybody else holds a memtable still.
const LOOK: Duration = Duration::from_millis(100);

/// Holds each of the engine's memtables and tables longer than the engine does, and frees it on a thread of its own. The engine itself would
/// do so under locks that every commit takes. A full memtable is hundreds of thousands of allocations, which take a tenth of a second, and so
/// do some dozens of tables, which are files of up to 64 MiB, deleted once others have all that is in them.
pub(super) struct Leftovers {
    /// What is written to now, and its number.
    active: (u64, Memtable),
    /// The versions that the engine may hold, the newest last, and its number.
    versions: VecDeque<Version>,
    newest: u64,
}

impl Leftovers {
    pub(super) fn of(keyspace: &Keyspace) -> Self {
        let active = keyspace.tree.active_memtable();
        let version = keyspace.tree.current_version();
        Self {
            active: (active.id(), active),
            newest: version.id(),
            versions: VecDeque::from([Box::new(version) as Version]),
        }
    }

    /// After each group: takes hold of what is new, and has freed what nobody needs.
    pub(super) fn look(&mut self, keyspace: &Keyspace) {
        // They end by themselves.
        drop((self.look_at_memtable(keyspace), self.look_at_tables(keyspace)));
    }

    /// Returns the thread that frees the memtable before this one, once the engine and all snapshots have let go, if there is one.
    fn look_at_memtable(&mut self, keyspace: &Keyspace) -> Option<JoinHandle<()>> {
        let active = keyspace.tree.active_memtable();
        if active.id() == self.active.0 {
            return None;
        }
        let (_, sealed) = mem::replace(&mut self.active, (active.id(), active));
        free(move || {
            while Arc::strong_count(&sealed) > 1 {
                thread::park_timeout(LOOK);
            }
        })
    }

    /// Returns the thread that frees the tables which the engine has let go of, if there are any.
    fn look_at_tables(&mut self, keyspace: &Keyspace) -> Option<JoinHandle<()>> {
        let version = keyspace.tree.current_version();
        if version.id() != self.newest {
            self.newest = version.id();
            self.versions.push_back(Box::new(version));
        }
        // The engine forgets the oldest first, and may have had some that were never seen here: those of these that it holds are among as
        // many of the newest.
        let held = keyspace.tree.version_free_list_len() + 1;
        let count = self.versions.len().checked_sub(held).filter(|count| *count > 0)?;
        let let_go: Vec<Version> = self.versions.drain(..count).collect();
        free(move || drop(let_go))
    }
}

/// Without a thread the engine frees it, or whoever looks.
fn free(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let work = || {
        give_way();
        work();
    };
    thread::Builder::new().name("kv-free".to_owned()).spawn(work).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tempfile::TempDir;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::embedded::{
        EmbeddedOptions,
        folder::{Opened, open},
    };

    fn opened() -> (TempDir, Opened) {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().to_owned(),
            ..EmbeddedOptions::default()
        };
        let opened = open(&options).unwrap();
        (folder, opened)
    }

    #[tokio::test]
    async fn a_memtable_is_not_freed_by_the_engine() {
        let (_folder, opened) = opened();
        let keyspace = &opened.keyspace;
        let mut leftovers = Leftovers::of(keyspace);
        let held = leftovers.active.1.clone();
        let first = Arc::downgrade(&held);
        assert!(leftovers.look_at_memtable(keyspace).is_none(), "nothing was put aside");
        let mut freeing = None;
        for key in ["a", "b"] {
            keyspace.insert(key, "value").unwrap();
            // Written to a table; the engine lets go of what it has written before.
            keyspace.rotate_memtable_and_wait().unwrap();
            freeing = freeing.or(leftovers.look_at_memtable(keyspace));
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

    /// The files in the folders of this name.
    fn files(folder: &Path, name: &str) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let of_each = entries.map(|path| match path.is_dir() {
            true => files(&path, name),
            false => usize::from(folder.ends_with(name)),
        });
        of_each.sum()
    }

    #[tokio::test]
    async fn tables_are_not_deleted_by_the_engine() {
        let (folder, opened) = opened();
        let keyspace = &opened.keyspace;
        let mut leftovers = Leftovers::of(keyspace);
        let table = |key: &str| {
            keyspace.insert(key, "value").unwrap();
            keyspace.rotate_memtable_and_wait().unwrap();
        };
        // The engine has others of its own.
        let others = files(folder.path(), "tables") - keyspace.tree.table_count();
        let tables = || files(folder.path(), "tables") - others;
        // So few that the engine merges none by itself.
        table("a");
        table("b");
        leftovers.look(keyspace);
        let replaced = keyspace.tree.table_count();
        keyspace.major_compact().unwrap();
        // With each the engine lets go of what was before.
        table("c");
        table("d");
        assert_eq!(tables(), keyspace.tree.table_count() + replaced, "they are held");
        let mut all_are_needed = false;
        for key in 0..10 {
            if let Some(freeing) = leftovers.look_at_tables(keyspace) {
                freeing.join().unwrap();
            }
            all_are_needed |= tables() == keyspace.tree.table_count();
            table(&key.to_string());
        }
        assert!(
            all_are_needed,
            "{} files of {} tables",
            tables(),
            keyspace.tree.table_count()
        );
        assert_eq!(keyspace.get("a").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
