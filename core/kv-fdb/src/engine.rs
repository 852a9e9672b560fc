use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    sync::Arc,
    time::Duration,
};

use antiphon_kv::{
    KvError, Watch,
    engine::{Engine, Snapshot},
};
use bytes::Bytes;
use foundationdb::{
    Database, FdbResult, Transaction,
    options::{DatabaseOption, TransactionOption},
};
use futures_util::{FutureExt as _, future::BoxFuture, future::ready};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    FdbOptions,
    availability::{self, Availability},
    errors::{failed, of_read},
    network,
    prefix::Prefix,
    snapshot::FdbSnapshot,
    watches::{self, Watches},
};

/// Most watches that the client takes.
const WATCHES_MAX: usize = 1_000_000;

/// Where the cluster tells of itself, in JSON (FoundationDB, "Special keys").
const STATUS: &[u8] = b"\xff\xff/status/json";

/// What is read of that.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    cluster: ClusterStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClusterStatus {
    processes: BTreeMap<String, ProcessStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProcessStatus {
    version: String,
}

/// A store on a cluster.
pub(crate) struct Fdb {
    shared: Arc<Shared>,
    watching_over: Mutex<Option<JoinHandle<()>>>,
}

/// What transactions use of the engine.
pub(crate) struct Shared {
    pub(crate) prefix: Prefix,
    pub(crate) step_timeout: Duration,
    pub(crate) availability: Availability,
    database: Database,
    watches: Watches,
    is_open: RwLock<bool>,
    commits: TaskTracker,
    closing: CancellationToken,
}

impl Fdb {
    pub(crate) async fn open(options: &FdbOptions) -> Result<Self, KvError> {
        network::start(&options.client)?;
        let watches_max = options.watches_max.min(WATCHES_MAX);
        let shared = Arc::new(Shared {
            prefix: Prefix::new(&options.prefix)?,
            step_timeout: options.step_timeout,
            availability: Availability::default(),
            database: database(options, watches_max)?,
            watches: Watches::new(watches_max),
            is_open: RwLock::new(true),
            commits: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        match shared.version().await {
            Err(error @ KvError::Io(_)) => return Err(error),
            answer => shared.availability.answered(answer.err()),
        }
        let watching_over = tokio::spawn(availability::watch_over(shared.clone(), shared.closing.clone()));
        Ok(Self {
            shared,
            watching_over: Mutex::new(Some(watching_over)),
        })
    }

    pub(crate) fn prefix_len(&self) -> usize {
        self.shared.prefix.len()
    }

    async fn shut(&self) -> Result<(), KvError> {
        *self.shared.is_open.write() = false;
        self.shared.closing.cancel();
        let watching_over = self.watching_over.lock().take();
        if let Some(task) = watching_over {
            // A panic of the task has been reported by its hook.
            let _ = task.await;
        }
        self.shared.commits.close();
        self.shared.commits.wait().await;
        Ok(())
    }
}

fn database(options: &FdbOptions, watches_max: usize) -> Result<Database, KvError> {
    let path = options.cluster_file.as_deref();
    if let Some(path) = path {
        // The client finds out only when it is used, and not with the name.
        let unreadable = |error| KvError::Io(format!("the cluster file {} cannot be read: {error}", path.display()));
        fs::read(path).map_err(unreadable)?;
    }
    let path = path.map(|path| path.display().to_string());
    let database = Database::new(path.as_deref()).map_err(failed)?;
    let watches_max = i32::try_from(watches_max).unwrap_or(i32::MAX);
    database
        .set_option(DatabaseOption::MaxWatches(watches_max))
        .map_err(failed)?;
    Ok(database)
}

impl Drop for Fdb {
    fn drop(&mut self) {
        *self.shared.is_open.write() = false;
        self.shared.closing.cancel();
    }
}

impl Engine for Fdb {
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>> {
        self.shared.begin().boxed()
    }

    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>> {
        async move { self.shared.watch(&key).await }.boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KvError>> {
        let fault = self.shared.closed().err().or_else(|| self.shared.availability.fault());
        ready(fault.map_or(Ok(()), Err)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), KvError>> {
        self.shut().boxed()
    }

    fn version(&self) -> BoxFuture<'_, Result<String, KvError>> {
        async move { self.shared.versions().await }.boxed()
    }

    fn estimate(&self, start: Bytes, end: Bytes) -> BoxFuture<'_, Result<Option<u64>, KvError>> {
        async move {
            let transaction = self.shared.transaction()?;
            let (start, end) = (self.shared.prefix.outer(&start), self.shared.prefix.outer(&end));
            let bytes = self
                .shared
                .step(transaction.get_estimated_range_size_bytes(&start, &end))
                .await?;
            Ok(u64::try_from(bytes).ok())
        }
        .boxed()
    }

    fn name(&self) -> &'static str {
        "fdb"
    }
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fdb({:?})", self.shared.prefix)
    }
}

impl Shared {
    async fn begin(self: &Arc<Self>) -> Result<Box<dyn Snapshot>, KvError> {
        self.closed()?;
        if let Some(fault) = self.availability.fault() {
            return Err(fault);
        }
        let transaction = self.transaction()?;
        // Now, and not at the first read: whatever is committed from here on is not part of it.
        let version = self.step(transaction.get_read_version()).await?;
        let shared = self.clone();
        Ok(Box::new(FdbSnapshot {
            transaction,
            version,
            shared,
            found: Mutex::default(),
        }))
    }

    /// Asks the cluster for a version.
    pub(crate) async fn version(&self) -> Result<i64, KvError> {
        let transaction = self.transaction()?;
        self.step(transaction.get_read_version()).await
    }

    /// The versions of the cluster's servers.
    async fn versions(&self) -> Result<String, KvError> {
        self.closed()?;
        let transaction = self.database.create_trx().map_err(failed)?;
        let status = self.step(transaction.get(STATUS, true)).await?;
        let status: Status = status
            .and_then(|status| serde_json::from_slice(&status).ok())
            .unwrap_or_default();
        let versions: BTreeSet<String> = status
            .cluster
            .processes
            .into_values()
            .map(|process| process.version)
            .collect();
        let versions: Vec<String> = versions.into_iter().collect();
        Ok(format!("FoundationDB {}", versions.join(", ")))
    }

    /// A transaction that is as plain as can be: the port reads its own writes.
    pub(crate) fn transaction(&self) -> Result<Transaction, KvError> {
        let transaction = self.database.create_trx().map_err(failed)?;
        transaction
            .set_option(TransactionOption::ReadYourWritesDisable)
            .map_err(failed)?;
        Ok(transaction)
    }

    /// Waits for one step of a transaction, and no longer than it may take.
    pub(crate) async fn step<T>(&self, step: impl Future<Output = FdbResult<T>>) -> Result<T, KvError> {
        let Ok(done) = timeout(self.step_timeout, step).await else {
            let waited_ms = self.step_timeout.as_millis();
            let reason = format!("FoundationDB has not answered within {waited_ms} ms");
            return Err(KvError::Unavailable(reason));
        };
        done.map_err(of_read)
    }

    /// Keeps the store from being closed while a commit runs.
    pub(crate) fn enter(&self) -> Result<TaskTrackerToken, KvError> {
        let is_open = self.is_open.read();
        if !*is_open {
            return Err(KvError::Closed);
        }
        Ok(self.commits.token())
    }

    fn closed(&self) -> Result<(), KvError> {
        if *self.is_open.read() {
            Ok(())
        } else {
            Err(KvError::Closed)
        }
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        self.closed()?;
        let place = self.watches.place()?;
        let key = self.prefix.outer(key);
        let begun = async {
            // With its own writes, which it does not have: without them the client refuses watches.
            let transaction = self.database.create_trx()?;
            let changed = transaction.watch(&key);
            // From here on it is set, against the value that the key has at this version.
            transaction.commit().await?;
            Ok(changed)
        };
        let changed = self.step(begun).await?;
        let closing = self.closing.clone();
        Ok(watches::watch(place, async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => Err(KvError::Closed),
                fired = changed => {
                    // A watch that is lost, as in a recovery of the cluster, may have missed the change: read again.
                    if let Err(error) = fired {
                        tracing::debug!(%error, "a watch was lost");
                    }
                    Ok(())
                }
            }
        }))
    }
}
