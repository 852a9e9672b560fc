use std::future::Future;

use crate::{EmbeddedOptions, KvError, Txn};

/// The store. Cheap to clone; the engine is erased inside.
#[derive(Clone)]
pub struct Kv {}

impl Kv {
    /// Opens (or creates) the embedded engine.
    pub async fn open_embedded(options: EmbeddedOptions) -> Result<Self, KvError> {
        todo!()
    }

    /// Runs `body` in a transaction and commits it; reruns it on a retryable failure, bounded in count and time.
    /// A body that wrote nothing commits nothing. `body` must have no effect outside of the transaction.
    pub async fn transact<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<KvError> + Send,
        F: Fn(Txn) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        todo!()
    }

    /// Resolves when `key` has changed after this call returned (or at a wake-up without change: read again).
    /// The number of watches is bounded; over it `KvError::Unavailable`.
    pub async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        todo!()
    }

    /// Waits for what is in flight and shuts the store.
    pub async fn close(&self) -> Result<(), KvError> {
        todo!()
    }
}

/// A watch on one key; see [`Kv::watch`].
pub struct Watch {}

impl Watch {
    /// Waits for the change.
    pub async fn changed(self) -> Result<(), KvError> {
        todo!()
    }
}
