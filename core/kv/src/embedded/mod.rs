//! The embedded engine: fjall for storage and snapshots, one thread that commits.
//!
//! All commits pass through that thread one after another: it finds conflicts by what was written lately, and one fsync serves
//! every commit that waits. Transactions read from the [`Generation`] that the thread publishes after the fsync, so that
//! nobody sees what is not durable. fjall's own snapshots are not taken at any other moment: a compaction that ends while a
//! batch is being applied would make half of it visible to them.

mod committer;
mod folder;
mod generation;
mod group;
mod history;
mod leftovers;
mod watches;

use std::{
    fmt, panic,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use self::{
    committer::{Commit, Committer},
    generation::Generation,
    watches::Watches,
};
use crate::{
    KvError, Page, RangeRead, Watch,
    engine::{Engine, Reads, Snapshot, WriteSet},
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
const COMMITS_WAITING_MAX: usize = 1_024;

/// A group of commits that takes longer means that the store is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long a close waits for running transactions: as long as one may last.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(6);

/// Opens (or creates) a store.
pub(crate) async fn open(options: EmbeddedOptions) -> Result<Embedded, KvError> {
    let opening = tokio::task::spawn_blocking(move || Embedded::open(&options));
    match opening.await {
        Ok(opened) => opened,
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        Err(error) => Err(KvError::Io(error.to_string())),
    }
}

pub(crate) struct Embedded {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What transactions use of the engine.
struct Shared {
    board: Arc<Board>,
    /// The way to the commit thread; none once the store is closing.
    commits: RwLock<Option<mpsc::Sender<Commit>>>,
}

/// Where the commit thread shows its state.
struct Board {
    /// What transactions begin on; none once the store is closed.
    generation: RwLock<Option<Arc<Generation>>>,
    /// Why nothing will be committed any more.
    failure: OnceLock<KvError>,
    /// When the group that is being committed was begun.
    group_began: Mutex<Option<Instant>>,
    watches: Arc<Watches>,
}

impl Embedded {
    fn open(options: &EmbeddedOptions) -> Result<Self, KvError> {
        let opened = folder::open(options)?;
        let generation = Arc::new(Generation::take(&opened, 0));
        let board = Arc::new(Board {
            generation: RwLock::new(Some(generation.clone())),
            failure: OnceLock::new(),
            group_began: Mutex::default(),
            watches: Watches::new(options.watches_max),
        });
        let (commits, waiting) = mpsc::channel(COMMITS_WAITING_MAX);
        let committer = Committer::new(opened, generation, board.clone());
        let thread = thread::Builder::new()
            .name("kv-commit".to_owned())
            .spawn(move || committer.run(waiting))?;
        let shared = Shared {
            board,
            commits: RwLock::new(Some(commits)),
        };
        Ok(Self {
            path: options.path.clone(),
            shared: Arc::new(shared),
            thread: Mutex::new(Some(thread)),
        })
    }

    async fn shut(&self) -> Result<(), KvError> {
        self.shared.commits.write().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                let path = self.path.display();
                return Err(KvError::Io(format!(
                    "the commit thread of the store in {path} panicked"
                )));
            }
        }
        let Some(generation) = self.shared.board.generation.write().take() else {
            return Ok(());
        };
        // fjall keeps the folder locked for as long as anyone may read.
        let deadline = Instant::now() + CLOSE_WAIT_MAX;
        while !generation.is_last() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    /// Ends the thread also when nobody has called `close`, so that the folder is free afterwards.
    fn drop(&mut self) {
        self.shared.commits.write().take();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been reported by its hook.
            let _ = thread.join();
        }
        self.shared.board.generation.write().take();
    }
}

impl Engine for Embedded {
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>> {
        ready(self.shared.begin()).boxed()
    }

    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>> {
        let watched = match self.shared.refusal() {
            Some(refusal) => Err(refusal),
            None => self.shared.board.watch(key),
        };
        ready(watched).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KvError>> {
        let stuck = || {
            let began = (*self.shared.board.group_began.lock())?;
            let stuck_ms = began.elapsed().as_millis();
            (began.elapsed() > STUCK_AFTER).then(|| KvError::Unavailable(format!("a commit has taken {stuck_ms} ms")))
        };
        let failure = self.shared.refusal().or_else(stuck);
        ready(failure.map_or(Ok(()), Err)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), KvError>> {
        self.shut().boxed()
    }

    fn version(&self) -> BoxFuture<'_, Result<String, KvError>> {
        ready(Ok("fjall 3".to_owned())).boxed()
    }

    fn name(&self) -> &'static str {
        "embedded"
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded({})", self.path.display())
    }
}

impl Shared {
    fn begin(self: &Arc<Self>) -> Result<Box<dyn Snapshot>, KvError> {
        if self.commits.read().is_none() {
            return Err(KvError::Closed);
        }
        let generation = self.board.generation.read().clone().ok_or(KvError::Closed)?;
        let shared = self.clone();
        Ok(Box::new(EmbeddedSnapshot { generation, shared }))
    }

    /// Why a commit would be refused.
    fn refusal(&self) -> Option<KvError> {
        if let Some(failure) = self.board.failure.get() {
            return Some(failure.clone());
        }
        match &*self.commits.read() {
            None => Some(KvError::Closed),
            Some(commits) if commits.is_closed() => Some(KvError::Io("the commit thread has ended".to_owned())),
            Some(_) => None,
        }
    }
}

impl Board {
    fn watch(self: &Arc<Self>, key: Bytes) -> Result<Watch, KvError> {
        let waiting = self.watches.wait_for(key)?;
        let board = self.clone();
        Ok(Watch::new(async move {
            let ended = waiting.changed().await;
            ended.map_err(|_| board.failure.get().cloned().unwrap_or(KvError::Closed))
        }))
    }
}

struct EmbeddedSnapshot {
    generation: Arc<Generation>,
    shared: Arc<Shared>,
}

impl Snapshot for EmbeddedSnapshot {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>> {
        ready(self.generation.get(key)).boxed()
    }

    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>> {
        ready(self.generation.range(&range)).boxed()
    }

    fn commit(&self, reads: Reads, writes: WriteSet) -> BoxFuture<'_, Result<(), KvError>> {
        async move {
            let commits = self.shared.commits.read().clone().ok_or(KvError::Closed)?;
            let (answer, answered) = oneshot::channel();
            let commit = Commit {
                generation: self.generation.clone(),
                reads,
                writes,
                answer,
            };
            let sent = commits.send(commit).await;
            drop(commits);
            if sent.is_err() {
                return Err(self.shared.refusal().unwrap_or(KvError::Closed));
            }
            answered.await.unwrap_or(Err(KvError::CommitUnknown))
        }
        .boxed()
    }
}
