use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::Instant;

use crate::{
    CommitFault, EmbeddedOptions, Faults, KvError, Limits, Page, RangeRead, Txn, embedded, engine::Engine,
    meters::Meters,
};

/// The store. Cheap to clone; the engine is erased inside.
#[derive(Debug, Clone)]
pub struct Kv {
    engine: Arc<dyn Engine>,
    limits: Limits,
    faults: Option<Faults>,
    meters: Arc<Meters>,
}

/// How often a transaction is tried.
const ATTEMPTS_MAX: u32 = 64;

/// How long a transaction is tried.
const RETRY_TIME_MAX: Duration = Duration::from_secs(5);

/// Pairs that are read at once to be added up.
const SIZED_PAGE_LEN: usize = 1_000;

/// The longest wait between two attempts.
const BACKOFF_US_MAX: u64 = 64_000;

impl Kv {
    /// Opens (or creates) the embedded engine.
    ///
    /// # Errors
    /// [`KvError::Unavailable`] when the folder is open already, here or in another process; [`KvError::Io`] when it cannot
    /// be opened or written. Both name the folder.
    pub async fn open_embedded(options: EmbeddedOptions) -> Result<Self, KvError> {
        Ok(Self::over(Arc::new(embedded::open(options).await?)))
    }

    /// Puts the port over an engine.
    #[must_use]
    pub fn over(engine: Arc<dyn Engine>) -> Self {
        Self {
            meters: Arc::new(Meters::of(engine.name())),
            engine,
            limits: Limits::default(),
            faults: None,
        }
    }

    /// What a transaction may hold.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The same store under other limits. An engine may not bear more than the default ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same store with commits that fail as `faults` says. For tests.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self {
            faults: Some(faults),
            ..self
        }
    }

    /// Runs `body` in a transaction and commits it; reruns it on a retryable failure, bounded in count and time.
    /// A body that wrote nothing commits nothing. `body` must have no effect outside of the transaction.
    ///
    /// # Errors
    /// What `body` returns; [`KvError::CommitUnknown`] at once; the store's failures; [`KvError::RetriesExhausted`].
    pub async fn transact<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<KvError> + Send,
        F: Fn(Txn) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let started = Instant::now();
        let mut attempts = 0;
        loop {
            let (failure, error) = match self.attempt(&body).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let Some(failure) = failure.filter(KvError::is_retryable) else {
                return Err(error);
            };
            attempts += 1;
            let backoff = backoff(attempts);
            if attempts >= ATTEMPTS_MAX || started.elapsed() + backoff > RETRY_TIME_MAX {
                let last = Box::new(failure);
                return Err(KvError::RetriesExhausted { attempts, last }.into());
            }
            self.meters.retries.increment(1);
            tokio::time::sleep(backoff).await;
        }
    }

    /// Runs `body` once. A failure is the store's, where one is known, and what to answer if it is not tried again.
    async fn attempt<T, E, F, Fut>(&self, body: &F) -> Result<T, (Option<KvError>, E)>
    where
        T: Send,
        E: From<KvError> + Send,
        F: Fn(Txn) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let failed = |error: KvError| (Some(error.clone()), E::from(error));
        let txn = self.begin().await.map_err(failed)?;
        let value = body(txn.clone()).await.map_err(|error| (txn.last_error(), error))?;
        self.commit(&txn).await.map_err(failed)?;
        Ok(value)
    }

    pub(crate) async fn begin(&self) -> Result<Txn, KvError> {
        let snapshot = self.engine.begin().await?;
        Ok(Txn::new(snapshot, self.limits, self.meters.clone()))
    }

    pub(crate) async fn commit(&self, txn: &Txn) -> Result<(), KvError> {
        let (reads, writes) = txn.take()?;
        if writes.is_empty() {
            return Ok(());
        }
        let fault = self.faults.as_ref().and_then(Faults::take);
        if let Some(CommitFault::Before(error)) = fault {
            return Err(error);
        }
        let (started, size) = (Instant::now(), (writes.len(), writes.bytes()));
        let mut result = txn.snapshot().commit(reads, writes).await;
        if let Some(CommitFault::After(error)) = fault {
            result = result.and(Err(error));
        }
        self.meters.committed(started.elapsed(), size, result.as_ref().err());
        result
    }

    /// Resolves when `key` has changed after this call returned (or wakes up without a change: read again).
    ///
    /// # Errors
    /// [`KvError::Unavailable`] over the bound on watches.
    pub async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        self.engine.watch(Bytes::copy_from_slice(key)).await
    }

    /// Whether the store can commit.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn health(&self) -> Result<(), KvError> {
        self.engine.health().await
    }

    /// What metrics call the engine.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine.name()
    }

    /// Which version of which software stores.
    ///
    /// # Errors
    /// [`KvError::Unavailable`] when that has to be asked and is not answered.
    pub async fn version(&self) -> Result<String, KvError> {
        self.engine.version().await
    }

    /// How many bytes the keys from `start` up to `end` take, with their values: about, from an engine that estimates; else they are
    /// read.
    ///
    /// # Errors
    /// What reading fails with.
    pub async fn size(&self, start: Bytes, end: Bytes) -> Result<u64, KvError> {
        if let Some(bytes) = self.engine.estimate(start.clone(), end.clone()).await? {
            return Ok(bytes);
        }
        let (mut from, mut bytes) = (start, 0);
        loop {
            let range = &RangeRead {
                start: from.clone(),
                end: end.clone(),
                limit: SIZED_PAGE_LEN,
                reverse: false,
            };
            let page = self.transact(|txn| async move { txn.snapshot_range(range.clone()).await });
            let page: Page = page.await?;
            let sizes = page.pairs.iter().map(|pair| (pair.key.len() + pair.value.len()) as u64);
            bytes += sizes.sum::<u64>();
            match page.next_start() {
                Some(next) => from = next,
                None => return Ok(bytes),
            }
        }
    }

    /// Waits for what is in flight and shuts the store: later transactions fail with [`KvError::Closed`].
    ///
    /// # Errors
    /// [`KvError::Io`] when the store did not end well.
    pub async fn close(&self) -> Result<(), KvError> {
        self.engine.close().await
    }
}

/// Up to twice as long after each attempt, at random: those who have collided shall not meet again.
fn backoff(attempts: u32) -> Duration {
    let ceiling_us = 500_u64 << attempts.min(16);
    Duration::from_micros(rand::random_range(0..ceiling_us.min(BACKOFF_US_MAX)))
}

/// A watch on one key; see [`Kv::watch`]. Dropping it gives its place free.
pub struct Watch {
    changed: BoxFuture<'static, Result<(), KvError>>,
}

impl Watch {
    /// A watch that fires when `changed` resolves.
    pub fn new(changed: impl Future<Output = Result<(), KvError>> + Send + 'static) -> Self {
        Self {
            changed: changed.boxed(),
        }
    }

    /// Waits for the change.
    ///
    /// # Errors
    /// [`KvError::Closed`] when the store is shut first; [`KvError::Io`] when it fails first.
    pub async fn changed(self) -> Result<(), KvError> {
        self.changed.await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
