use std::{
    any::Any,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::{EmbeddedOptions, KvError, Limits, Page, RangeRead, Txn, embedded::Embedded, write::WriteSet};

/// The store. Cheap to clone; the engine is erased inside.
#[derive(Clone)]
pub struct Kv {
    engine: Arc<dyn Engine>,
    limits: Limits,
}

/// A snapshot of the whole store.
pub(crate) trait Snapshot: Any + Send + Sync {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>>;
    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>>;
}

/// What a transaction has read and must not have changed.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) ranges: Vec<(Bytes, Bytes)>,
}

/// An engine under the port: the embedded one, and FoundationDB's in a crate of its own.
pub(crate) trait Engine: Send + Sync {
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>>;
    /// Commits; with an empty write set, makes sure that what the snapshot showed is durable.
    fn commit<'a>(
        &'a self,
        snapshot: &'a dyn Snapshot,
        reads: Reads,
        writes: WriteSet,
    ) -> BoxFuture<'a, Result<(), KvError>>;
    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>>;
    fn health(&self) -> BoxFuture<'_, Result<(), KvError>>;
    fn close(&self) -> BoxFuture<'_, Result<(), KvError>>;
}

/// How often a transaction is tried.
const ATTEMPTS_MAX: u32 = 64;

/// How long a transaction is tried.
const RETRY_TIME_MAX: Duration = Duration::from_secs(5);

impl Kv {
    /// Opens (or creates) the embedded engine.
    ///
    /// # Errors
    /// [`KvError::Io`] naming the folder when it cannot be opened, written, or is open in another process.
    pub async fn open_embedded(options: EmbeddedOptions) -> Result<Self, KvError> {
        let opened = tokio::task::spawn_blocking(move || Embedded::open(&options)).await;
        let engine = opened.map_err(|error| KvError::Io(error.to_string()))??;
        Ok(Self {
            engine: Arc::new(engine),
            limits: Limits::default(),
        })
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
            let txn = Txn::new(self.engine.begin().await?, self.limits);
            let (failure, result) = match body(txn.clone()).await {
                Ok(value) => match self.commit(&txn).await {
                    Ok(()) => return Ok(value),
                    Err(error) => (Some(error.clone()), E::from(error)),
                },
                Err(error) => (txn.last_error(), error),
            };
            let Some(failure) = failure.filter(KvError::is_retryable) else {
                return Err(result);
            };
            attempts += 1;
            if attempts >= ATTEMPTS_MAX || started.elapsed() > RETRY_TIME_MAX {
                return Err(KvError::RetriesExhausted {
                    attempts,
                    last: Box::new(failure),
                }
                .into());
            }
            metrics::counter!("antiphon_kv_retries_total").increment(1);
            let ceiling_us = 200_u64 << attempts.min(9);
            sleep(Duration::from_micros(rand::random_range(0..ceiling_us))).await;
        }
    }

    async fn commit(&self, txn: &Txn) -> Result<(), KvError> {
        let (writes, reads) = txn.take()?;
        let started = (!writes.is_empty()).then(Instant::now);
        let result = self.engine.commit(txn.snapshot(), reads, writes).await;
        if let Some(started) = started {
            metrics::histogram!("antiphon_kv_commit_seconds").record(started.elapsed().as_secs_f64());
        }
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

    /// Waits for what is in flight and shuts the store: later commits fail with [`KvError::Closed`].
    ///
    /// # Errors
    /// [`KvError::Io`] when the last sync fails.
    pub async fn close(&self) -> Result<(), KvError> {
        self.engine.close().await
    }
}

/// A watch on one key; see [`Kv::watch`].
pub struct Watch {
    pub(crate) fired: tokio::sync::oneshot::Receiver<()>,
}

impl Watch {
    /// Waits for the change.
    ///
    /// # Errors
    /// [`KvError::Closed`] when the store is shut first.
    pub async fn changed(self) -> Result<(), KvError> {
        self.fired.await.map_err(|_| KvError::Closed)
    }
}
