//! The embedded engine: fjall for storage and snapshots, one thread that commits.
//!
//! All commits pass through that thread one after another, so conflicts are found by a table of what was written lately, and
//! one fsync serves every commit that waits. After a failed fsync nothing is acknowledged any more: what the kernel has
//! dropped cannot be synced again (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    KvError, KvPair, Page, RangeRead, Watch,
    conflicts::Conflicts,
    engine::{Engine, Reads, Snapshot},
    write::{Mutation, WriteSet, fold},
};

/// How the embedded engine is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The folder of the store; created when it is missing.
    pub path: PathBuf,
    /// Bytes of the block cache.
    pub cache_bytes: u64,
    /// Watches that may wait at once.
    pub watches_max: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./data"),
            cache_bytes: 64 << 20,
            watches_max: 10_000,
        }
    }
}

/// Commits that may wait for the commit thread.
const COMMITS_WAITING_MAX: usize = 8_192;

/// Commits that share one fsync at the most.
const COMMITS_PER_SYNC_MAX: usize = 1_024;

/// Bytes of one page of a range: what FoundationDB's bindings read at once.
const PAGE_BYTES_MAX: usize = 256 * 1_024;

/// What snapshots hold, by the numbers of commits.
#[derive(Debug, Default)]
struct Versions {
    /// The commit that is being applied: a snapshot taken now holds nothing beyond it.
    applying: AtomicU64,
    /// The last commit that a snapshot taken now holds for sure.
    applied: AtomicU64,
    /// The versions that open snapshots were taken at, and how many each.
    open: Mutex<BTreeMap<u64, usize>>,
}

impl Versions {
    fn enter(&self) -> u64 {
        let mut open = self.open.lock();
        let version = self.applied.load(Ordering::Acquire);
        *open.entry(version).or_default() += 1;
        version
    }

    fn leave(&self, version: u64) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                open.remove(&version);
            }
        }
    }

    /// No open or later snapshot is older than this.
    fn oldest(&self) -> u64 {
        let open = self.open.lock();
        open.keys()
            .next()
            .copied()
            .unwrap_or_else(|| self.applied.load(Ordering::Acquire))
    }
}

type Watches = Arc<Mutex<HashMap<Bytes, Vec<oneshot::Sender<()>>>>>;

/// fjall under the port.
pub(crate) struct Embedded {
    database: Database,
    keyspace: Keyspace,
    path: PathBuf,
    versions: Arc<Versions>,
    /// What has reached the disk.
    durable: watch::Receiver<Durable>,
    commits: Mutex<Option<mpsc::Sender<Commit>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    watches: Watches,
    watches_max: usize,
}

/// Version of the last durable commit, or why there will be no more.
#[derive(Debug, Clone)]
struct Durable {
    version: u64,
    failed: Option<KvError>,
}

struct Commit {
    /// The snapshot that was read holds everything up to this version.
    read_version: u64,
    reads: Reads,
    writes: WriteSet,
    answer: oneshot::Sender<Result<(), KvError>>,
}

struct EmbeddedSnapshot {
    snapshot: fjall::Snapshot,
    keyspace: Keyspace,
    /// The snapshot holds every commit up to here …
    version: u64,
    /// … and none beyond here.
    version_max: u64,
    versions: Arc<Versions>,
}

impl Drop for EmbeddedSnapshot {
    fn drop(&mut self) {
        self.versions.leave(self.version);
    }
}

impl Embedded {
    pub(crate) fn open(options: &EmbeddedOptions) -> Result<Self, KvError> {
        let path = options.path.clone();
        let failed = |error: fjall::Error| KvError::Io(format!("the store in {}: {error}", options.path.display()));
        let database = Database::builder(&path)
            .cache_size(options.cache_bytes)
            .open()
            .map_err(failed)?;
        let keyspace = database
            .keyspace("antiphon", KeyspaceCreateOptions::default)
            .map_err(failed)?;
        let versions = Arc::new(Versions::default());
        let (durable_sender, durable) = watch::channel(Durable {
            version: 0,
            failed: None,
        });
        let (commits, waiting) = mpsc::channel(COMMITS_WAITING_MAX);
        let watches = Watches::default();
        let committer = Committer {
            database: database.clone(),
            keyspace: keyspace.clone(),
            versions: versions.clone(),
            durable: durable_sender,
            conflicts: Conflicts::default(),
            watches: watches.clone(),
        };
        let thread = thread::Builder::new()
            .name("kv-commit".to_owned())
            .spawn(move || committer.run(waiting))
            .map_err(KvError::from)?;
        Ok(Self {
            database,
            keyspace,
            path,
            versions,
            durable,
            commits: Mutex::new(Some(commits)),
            thread: Mutex::new(Some(thread)),
            watches,
            watches_max: options.watches_max,
        })
    }

    async fn send(&self, snapshot: &EmbeddedSnapshot, reads: Reads, writes: WriteSet) -> Result<(), KvError> {
        let commits = self.commits.lock().clone().ok_or(KvError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let commit = Commit {
            read_version: snapshot.version,
            reads,
            writes,
            answer,
        };
        commits.send(commit).await.map_err(|_| KvError::Closed)?;
        answered.await.map_err(|_| KvError::CommitUnknown)?
    }

    async fn wait_durable(&self, version: u64) -> Result<(), KvError> {
        let arrived = |durable: &Durable| durable.version >= version || durable.failed.is_some();
        let mut durable = self.durable.clone();
        let state = durable.wait_for(arrived).await.map_err(|_| KvError::Closed)?;
        match &state.failed {
            Some(failed) if state.version < version => Err(failed.clone()),
            Some(_) | None => Ok(()),
        }
    }
}

impl Engine for Embedded {
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>> {
        let versions = self.versions.clone();
        let version = versions.enter();
        let snapshot = self.database.snapshot();
        let version_max = versions.applying.load(Ordering::Acquire);
        let keyspace = self.keyspace.clone();
        let snapshot = EmbeddedSnapshot {
            snapshot,
            keyspace,
            version,
            version_max,
            versions,
        };
        let snapshot: Box<dyn Snapshot> = Box::new(snapshot);
        ready(Ok(snapshot)).boxed()
    }

    fn commit<'a>(
        &'a self,
        snapshot: &'a dyn Snapshot,
        reads: Reads,
        writes: WriteSet,
    ) -> BoxFuture<'a, Result<(), KvError>> {
        async move {
            let snapshot: &dyn Any = snapshot;
            let Some(snapshot) = snapshot.downcast_ref::<EmbeddedSnapshot>() else {
                return Err(KvError::Io("a snapshot of another engine".to_owned()));
            };
            if writes.is_empty() {
                // A commit that is applied and not synced yet may have been read: it has to last before it is told.
                return self.wait_durable(snapshot.version_max).await;
            }
            self.send(snapshot, reads, writes).await
        }
        .boxed()
    }

    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>> {
        let mut watches = self.watches.lock();
        watches.retain(|_, waiting| {
            waiting.retain(|watch| !watch.is_closed());
            !waiting.is_empty()
        });
        if watches.values().map(Vec::len).sum::<usize>() >= self.watches_max {
            let refused = KvError::Unavailable(format!("{} watches wait already", self.watches_max));
            return ready(Err(refused)).boxed();
        }
        let (fire, fired) = oneshot::channel();
        watches.entry(key).or_default().push(fire);
        ready(Ok(Watch { fired })).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KvError>> {
        let failed = self.durable.borrow().failed.clone();
        let result = match failed {
            Some(failed) => Err(failed),
            None if self.commits.lock().is_none() => Err(KvError::Closed),
            None => Ok(()),
        };
        ready(result).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), KvError>> {
        async move {
            drop(self.commits.lock().take());
            let thread = self.thread.lock().take();
            if let Some(thread) = thread {
                let joined = tokio::task::spawn_blocking(move || thread.join()).await;
                if !matches!(joined, Ok(Ok(()))) {
                    return Err(KvError::Io(format!(
                        "the commit thread of {} panicked",
                        self.path.display()
                    )));
                }
            }
            self.watches.lock().clear();
            Ok(())
        }
        .boxed()
    }
}

impl Snapshot for EmbeddedSnapshot {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>> {
        let value = self.snapshot.get(&self.keyspace, key).map_err(engine_error);
        ready(value.map(|value| value.map(|value| Bytes::copy_from_slice(&value)))).boxed()
    }

    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>> {
        ready(self.read_range(&range)).boxed()
    }
}

impl EmbeddedSnapshot {
    fn read_range(&self, range: &RangeRead) -> Result<Page, KvError> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        let mut found = self.snapshot.range(&self.keyspace, start..end);
        let mut page = Page::default();
        let mut bytes = 0;
        loop {
            let next = if range.reverse { found.next_back() } else { found.next() };
            let Some(next) = next else { return Ok(page) };
            if page.pairs.len() == range.limit || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                return Ok(page);
            }
            let (key, value) = next.into_inner().map_err(engine_error)?;
            bytes += key.len() + value.len();
            page.pairs.push(KvPair {
                key: Bytes::copy_from_slice(&key),
                value: Bytes::copy_from_slice(&value),
            });
        }
    }
}

/// The thread that commits.
struct Committer {
    database: Database,
    keyspace: Keyspace,
    versions: Arc<Versions>,
    durable: watch::Sender<Durable>,
    conflicts: Conflicts,
    watches: Watches,
}

type Answer = (oneshot::Sender<Result<(), KvError>>, Result<(), KvError>);

impl Committer {
    fn run(mut self, mut waiting: mpsc::Receiver<Commit>) {
        let mut group = Vec::new();
        while waiting.blocking_recv_many(&mut group, COMMITS_PER_SYNC_MAX) > 0 {
            let answers = self.commit_group(group.drain(..));
            for (answer, result) in answers {
                // Whoever asked may have gone.
                let _ = answer.send(result);
            }
        }
    }

    fn commit_group(&mut self, group: impl Iterator<Item = Commit>) -> Vec<Answer> {
        if let Some(failed) = self.durable.borrow().failed.clone() {
            return group.map(|commit| (commit.answer, Err(failed.clone()))).collect();
        }
        let mut answers = Vec::new();
        let mut touched = Vec::new();
        let mut applied = 0_u32;
        for commit in group {
            let result = self.apply(&commit, &mut touched);
            if result.is_ok() {
                applied += 1;
            }
            answers.push((commit.answer, result));
        }
        if applied == 0 {
            return answers;
        }
        let syncing = Instant::now();
        let synced = self.database.persist(PersistMode::SyncData).map_err(engine_error);
        metrics::histogram!("antiphon_fsync_seconds").record(syncing.elapsed().as_secs_f64());
        metrics::histogram!("antiphon_kv_commits_per_fsync").record(f64::from(applied));
        let version = self.versions.applied.load(Ordering::Acquire);
        match synced {
            Ok(()) => {
                self.durable.send_modify(|durable| durable.version = version);
                self.fire(touched);
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot be synced; nothing is committed any more");
                self.durable.send_modify(|durable| durable.failed = Some(error));
                for (_, result) in &mut answers {
                    if result.is_ok() {
                        *result = Err(KvError::CommitUnknown);
                    }
                }
            }
        }
        answers
    }

    fn apply(&mut self, commit: &Commit, touched: &mut Vec<Bytes>) -> Result<(), KvError> {
        if let Err(conflict) = self.conflicts.check(commit.read_version, &commit.reads) {
            metrics::counter!("antiphon_kv_conflicts_total").increment(1);
            return Err(conflict);
        }
        let mut batch = self.database.batch();
        for (start, end) in &commit.writes.cleared {
            self.clear_range(&mut batch, start, end, &commit.writes, touched)?;
        }
        for (key, mutation) in &commit.writes.mutations {
            match mutation {
                Mutation::Set(value) => batch.insert(&self.keyspace, key.as_ref(), value.as_ref()),
                Mutation::Clear => batch.remove(&self.keyspace, key.as_ref()),
                Mutation::Atomics(atomics) => {
                    let stored = self.keyspace.get(key).map_err(engine_error)?;
                    let value = fold(atomics, stored.map(|value| Bytes::copy_from_slice(&value)));
                    batch.insert(&self.keyspace, key.as_ref(), value.unwrap_or_default().as_ref());
                }
            }
            touched.push(key.clone());
        }
        let version = self.versions.applied.load(Ordering::Acquire) + 1;
        self.versions.applying.store(version, Ordering::Release);
        if let Err(error) = batch.commit() {
            // Half of it may be in the journal: nobody may build on that.
            let error = engine_error(error);
            self.durable.send_modify(|durable| durable.failed = Some(error));
            return Err(KvError::CommitUnknown);
        }
        self.versions.applied.store(version, Ordering::Release);
        self.conflicts.forget(self.versions.oldest());
        self.conflicts.remember(version, &commit.writes);
        Ok(())
    }

    fn clear_range(
        &self,
        batch: &mut OwnedWriteBatch,
        start: &Bytes,
        end: &Bytes,
        writes: &WriteSet,
        touched: &mut Vec<Bytes>,
    ) -> Result<(), KvError> {
        for guard in self.keyspace.range(start.as_ref()..end.as_ref()) {
            let key = Bytes::copy_from_slice(&guard.key().map_err(engine_error)?);
            if !writes.mutations.contains_key(&key) {
                batch.remove(&self.keyspace, key.as_ref());
                touched.push(key);
            }
        }
        Ok(())
    }

    fn fire(&self, touched: Vec<Bytes>) {
        let mut watches = self.watches.lock();
        if watches.is_empty() {
            return;
        }
        for key in touched {
            for watch in watches.remove(&key).unwrap_or_default() {
                // Whoever watched may have gone.
                let _ = watch.send(());
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn engine_error(error: fjall::Error) -> KvError {
    KvError::Io(error.to_string())
}
