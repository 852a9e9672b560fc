//! The thread that commits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode};
use tokio::sync::{mpsc, oneshot};

use super::{
    Board,
    folder::Opened,
    generation::{Generation, engine_error},
    group::Group,
    history::History,
    leftovers::Leftovers,
};
use crate::{
    KvError, Limits,
    engine::{Reads, WriteSet},
};

/// Commits that share one fsync at the most.
const COMMITS_PER_FSYNC_MAX: usize = 1_024;

/// Bytes after which a group is written, whoever else waits.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Keys of recent commits that are remembered for conflicts, whatever transaction is running.
const HISTORY_KEYS_MAX: usize = 1_000_000;

/// How often it is told at the most how much memory the engine uses.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// What a transaction asks for.
pub(super) struct Commit {
    /// What it has read from.
    pub(super) generation: Arc<Generation>,
    pub(super) reads: Reads,
    pub(super) writes: WriteSet,
    pub(super) answer: oneshot::Sender<Result<(), KvError>>,
}

pub(super) struct Committer {
    opened: Opened,
    board: Arc<Board>,
    /// What the last group has left.
    current: Arc<Generation>,
    /// The version of the last commit that was accepted.
    version: u64,
    history: History<Generation>,
    leftovers: Leftovers,
    /// When it was told how much memory the engine uses.
    told: Option<Instant>,
    #[cfg(test)]
    pub(super) fails_next_fsync: bool,
}

type Answer = (oneshot::Sender<Result<(), KvError>>, Result<(), KvError>);

impl Committer {
    pub(super) fn new(opened: Opened, current: Arc<Generation>, board: Arc<Board>) -> Self {
        let age_max = Duration::from_millis(Limits::default().transaction_age_ms_max);
        let mut history = History::new(age_max, HISTORY_KEYS_MAX);
        history.publish(current.version, &current, Instant::now());
        Self {
            leftovers: Leftovers::of(&opened.keyspace),
            opened,
            board,
            version: current.version,
            current,
            history,
            told: None,
            #[cfg(test)]
            fails_next_fsync: false,
        }
    }

    /// Commits what comes, until there is nobody left to send anything.
    pub(super) fn run(mut self, mut commits: mpsc::Receiver<Commit>) {
        let mut waiting = Vec::new();
        while commits.blocking_recv_many(&mut waiting, COMMITS_PER_FSYNC_MAX) > 0 {
            let mut waiting = waiting.drain(..).peekable();
            while waiting.peek().is_some() {
                self.commit_group(&mut waiting);
            }
        }
        self.board.watches.close();
    }

    /// Commits and answers a group of `waiting`: all that fits.
    pub(super) fn commit_group(&mut self, waiting: impl Iterator<Item = Commit>) {
        *self.board.group_began.lock() = Some(Instant::now());
        let mut group = Group::default();
        let mut answers: Vec<Answer> = Vec::new();
        for commit in waiting {
            answers.push(self.judge(commit, &mut group));
            if group.bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        let accepted = answers.iter().filter(|(_, result)| result.is_ok()).count();
        if accepted > 0 {
            let made = self.make_durable(group, accepted);
            if let Err(failure) = made {
                let accepted = answers.iter_mut().filter(|(_, result)| result.is_ok());
                accepted.for_each(|(_, result)| *result = Err(failure.clone()));
            }
        }
        // Also those who were refused are answered now: tried again sooner, they would read the same snapshot.
        for (answer, result) in answers {
            // Whoever asked may have gone.
            let _ = answer.send(result);
        }
        *self.board.group_began.lock() = None;
        self.leftovers.look(&self.opened.keyspace);
        self.tell_memory();
    }

    #[allow(clippy::cast_precision_loss, reason = "gauges of far fewer than 2^52 bytes")]
    fn tell_memory(&mut self) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < TELL_INTERVAL) {
            return;
        }
        self.told = Some(now);
        let database = &self.opened.database;
        metrics::gauge!("antiphon_kv_buffer_bytes").set(database.write_buffer_size() as f64);
        metrics::gauge!("antiphon_kv_cache_bytes").set(database.cache_size() as f64);
    }

    fn judge(&mut self, commit: Commit, group: &mut Group) -> Answer {
        let result = self.accept(commit.generation.version, &commit.reads, commit.writes, group);
        (commit.answer, result)
    }

    fn accept(&mut self, read_version: u64, reads: &Reads, writes: WriteSet, group: &mut Group) -> Result<(), KvError> {
        if let Some(failure) = self.board.failure.get() {
            return Err(failure.clone());
        }
        self.history.check(read_version, reads)?;
        let keys = group.add(writes, &self.current)?;
        self.version += 1;
        self.history.record(self.version, keys);
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "a histogram of small counts")]
    fn make_durable(&mut self, group: Group, commits: usize) -> Result<(), KvError> {
        let keys = self.write(group)?;
        metrics::histogram!("antiphon_kv_commits_per_fsync").record(commits as f64);
        self.current = Arc::new(Generation::take(&self.opened, self.version));
        *self.board.generation.write() = Some(self.current.clone());
        self.history.publish(self.version, &self.current, Instant::now());
        self.board.watches.fire(keys.iter());
        Ok(())
    }

    /// Writes the group; returns its keys once they are on the disk.
    fn write(&mut self, group: Group) -> Result<Vec<Bytes>, KvError> {
        let keyspace = &self.opened.keyspace;
        let mut keys = Vec::with_capacity(group.values.len());
        let mut batch = OwnedWriteBatch::with_capacity(self.opened.database.clone(), group.values.len());
        for (key, value) in group.values {
            match value {
                Some(value) => batch.insert(keyspace, key.as_ref(), value.as_ref()),
                None => batch.remove(keyspace, key.as_ref()),
            }
            keys.push(key);
        }
        // fjall refuses before it writes anything when one of its own threads has failed earlier.
        batch.commit().map_err(|error| {
            if matches!(error, fjall::Error::Poisoned) {
                return self.fail(error).clone();
            }
            self.fail_halfway(error)
        })?;
        let syncing = Instant::now();
        self.fsync().map_err(|error| self.fail_halfway(error))?;
        metrics::histogram!("antiphon_fsync_seconds").record(syncing.elapsed().as_secs_f64());
        Ok(keys)
    }

    /// The journal's size and content are what recovery reads; fdatasync brings both to the disk.
    fn fsync(&mut self) -> Result<(), fjall::Error> {
        #[cfg(test)]
        if std::mem::take(&mut self.fails_next_fsync) {
            return Err(std::io::Error::other("injected").into());
        }
        self.opened.database.persist(PersistMode::SyncData)
    }

    /// Ends the service of commits: what the kernel has dropped after a failed fsync, another fsync does not bring back
    /// (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    fn fail(&self, error: fjall::Error) -> &KvError {
        tracing::error!(%error, "the store cannot write; nothing is committed any more");
        let failure = self.board.failure.get_or_init(|| engine_error(error));
        self.board.watches.close();
        failure
    }

    /// As [`Self::fail`], when what was to be committed may be found after the next start.
    fn fail_halfway(&self, error: fjall::Error) -> KvError {
        self.fail(error);
        KvError::CommitUnknown
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::sync::OnceLock;
    use tempfile::TempDir;

    use super::*;
    use crate::embedded::{EmbeddedOptions, folder, watches::Watches};

    /// The committer without its thread.
    fn committer() -> (Committer, Arc<Board>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let options = EmbeddedOptions {
            path,
            ..EmbeddedOptions::default()
        };
        let opened = folder::open(&options).unwrap();
        let generation = Arc::new(Generation::take(&opened, 0));
        let board = Arc::new(Board {
            generation: Some(generation.clone()).into(),
            failure: OnceLock::new(),
            group_began: Mutex::default(),
            watches: Watches::new(10),
        });
        (Committer::new(opened, generation, board.clone()), board, folder)
    }

    /// A commit that sets `key`, on the current generation.
    fn commit(
        board: &Board,
        read: Option<&str>,
        key: &'static str,
    ) -> (Commit, oneshot::Receiver<Result<(), KvError>>) {
        let (answer, answered) = oneshot::channel();
        let mut reads = Reads::default();
        if let Some(read) = read {
            reads.add_key(read.as_bytes());
        }
        let mut writes = WriteSet::default();
        writes.set(key.into(), "value".into());
        let generation = board.generation.read().clone().unwrap();
        (
            Commit {
                generation,
                reads,
                writes,
                answer,
            },
            answered,
        )
    }

    fn shown(board: &Board, key: &str) -> bool {
        board
            .generation
            .read()
            .as_ref()
            .unwrap()
            .get(key.as_bytes())
            .unwrap()
            .is_some()
    }

    #[test]
    fn a_group_finds_conflicts_between_its_own_commits() {
        let (mut committer, board, _folder) = committer();
        let (first, mut answered_first) = commit(&board, Some("a"), "b");
        let (second, mut answered_second) = commit(&board, Some("b"), "a");
        committer.commit_group([first, second].into_iter());
        assert!(matches!(answered_first.try_recv().unwrap(), Ok(())));
        assert!(matches!(answered_second.try_recv().unwrap(), Err(KvError::Conflict)));
        assert!(shown(&board, "b") && !shown(&board, "a"));
    }

    #[test]
    fn failed_fsync_acknowledges_nothing_and_ends_the_service() {
        let (mut committer, board, _folder) = committer();
        let (before, mut answered_before) = commit(&board, None, "before");
        committer.commit_group([before].into_iter());
        assert!(matches!(answered_before.try_recv().unwrap(), Ok(())));

        let waiter = board.watches.wait_for("unknown".into()).unwrap();
        committer.fails_next_fsync = true;
        let (unknown, mut answered_unknown) = commit(&board, None, "unknown");
        let (refused, mut answered_refused) = commit(&board, Some("unknown"), "x");
        committer.commit_group([unknown, refused].into_iter());
        assert!(matches!(
            answered_unknown.try_recv().unwrap(),
            Err(KvError::CommitUnknown)
        ));
        assert!(matches!(answered_refused.try_recv().unwrap(), Err(KvError::Conflict)));
        assert!(!shown(&board, "unknown"), "nobody reads what may not be durable");
        assert!(shown(&board, "before"));
        assert!(
            futures_util::FutureExt::now_or_never(waiter.changed())
                .unwrap()
                .is_err(),
            "the watch ends"
        );

        // The disk works again, and still nothing is acknowledged.
        let (after, mut answered_after) = commit(&board, None, "after");
        committer.commit_group([after].into_iter());
        assert!(matches!(answered_after.try_recv().unwrap(), Err(KvError::Io(_))));
        assert!(matches!(board.failure.get(), Some(KvError::Io(_))));
    }

    #[test]
    fn large_groups_are_divided() {
        let (mut committer, board, _folder) = committer();
        let mut commits = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (mut commit, answered) = commit(&board, None, "key");
            commit.writes.set("large".into(), vec![b'v'; GROUP_BYTES_MAX].into());
            commits.push(commit);
            answers.push(answered);
        }
        let mut waiting = commits.into_iter();
        committer.commit_group(&mut waiting);
        assert_eq!(waiting.len(), 2, "the first commit alone fills a group");
        assert!(matches!(answers[0].try_recv().unwrap(), Ok(())));
        assert!(answers[1].try_recv().is_err(), "the second one waits");
    }
}
