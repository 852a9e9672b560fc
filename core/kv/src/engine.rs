//! What an engine does for the port: snapshots and commits. For engines alone; everybody else holds a [`Kv`](crate::Kv).
//!
//! The port keeps the buffered writes, what was read, the limits and the retries, so that they are the same over each engine.

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};

use crate::{KvError, Page, RangeRead, Watch};
pub use crate::{
    range::PAGE_BYTES_MAX,
    write::{Atomic, Mutation, WriteSet, fold},
};

/// An engine under the port: the embedded one, and FoundationDB's in a crate of its own.
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Takes a snapshot: it holds every commit that was answered before, and nothing that is not durable.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>>;
    /// See [`Kv::watch`](crate::Kv::watch).
    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>>;
    /// Whether a commit could succeed now.
    fn health(&self) -> BoxFuture<'_, Result<(), KvError>>;
    /// Waits for the commits in flight and releases everything.
    fn close(&self) -> BoxFuture<'_, Result<(), KvError>>;
    /// Which version of which software stores, for who looks after it.
    fn version(&self) -> BoxFuture<'_, Result<String, KvError>> {
        ready(Ok(self.name().to_owned())).boxed()
    }
    /// About how many bytes the keys from `start` up to `end` take, where the engine knows that without reading them.
    fn estimate(&self, start: Bytes, end: Bytes) -> BoxFuture<'_, Result<Option<u64>, KvError>> {
        let _ = (start, end);
        ready(Ok(None)).boxed()
    }
    /// What metrics call it.
    fn name(&self) -> &'static str {
        "other"
    }
}

/// A snapshot of the whole store, and the way to commit what was decided on it.
pub trait Snapshot: Send + Sync + 'static {
    /// Reads a key.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>>;
    /// Reads a page of a range that is not empty. The engine may cut it short of the limit; a page that says `more` holds
    /// one pair at least.
    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>>;
    /// Commits `writes` if nothing of `reads` has changed since the snapshot. Never called with an empty write set.
    /// [`KvError::CommitUnknown`] when it may or may not have happened, or may still happen.
    fn commit(&self, reads: Reads, writes: WriteSet) -> BoxFuture<'_, Result<(), KvError>>;
    /// See [`Txn::is_remote`](crate::Txn::is_remote).
    fn is_remote(&self) -> bool {
        false
    }
}

/// What a transaction has read and must not have changed.
#[derive(Debug, Default)]
pub struct Reads {
    pub(crate) keys: BTreeSet<Bytes>,
    pub(crate) ranges: BTreeSet<(Bytes, Bytes)>,
    bytes: usize,
}

impl Reads {
    /// The single keys.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }

    /// The ranges: first key, inclusive; last key, exclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.ranges.iter().map(|(start, end)| (start, end))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn add_key(&mut self, key: &[u8]) {
        if !self.keys.contains(key) {
            self.bytes += key.len();
            self.keys.insert(Bytes::copy_from_slice(key));
        }
    }

    pub(crate) fn add_range(&mut self, start: Bytes, end: Bytes) {
        let bytes = start.len() + end.len();
        if self.ranges.insert((start, end)) {
            self.bytes += bytes;
        }
    }
}
