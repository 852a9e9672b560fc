use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    KvError,
    engine::{Reads, Snapshot},
    write::{Atomic, Buffered, Mutation, WriteSet, fold},
};

/// What the port accepts, whatever the engine: FoundationDB's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Bytes of all keys and values written, and of the conflict ranges read.
    pub transaction_bytes_max: usize,
    /// Age of a transaction's snapshot.
    pub transaction_age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 10_000,
            value_bytes_max: 100_000,
            transaction_bytes_max: 1_000_000,
            transaction_age_ms_max: 5_000,
        }
    }
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPair {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// What to read of a range of keys.
#[derive(Debug, Clone)]
pub struct RangeRead {
    /// First key, inclusive.
    pub start: Bytes,
    /// Last key, exclusive.
    pub end: Bytes,
    /// At most this many pairs; 0 is refused.
    pub limit: usize,
    /// Read from the end backwards; pairs come in descending order.
    pub reverse: bool,
}

/// One page of a range.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The pairs, in the order asked for.
    pub pairs: Vec<KvPair>,
    /// Whether the range holds more beyond the last pair (cut by the limit or by bytes).
    pub more: bool,
}

/// A running transaction. Cheap to clone: clones are the same transaction.
#[derive(Clone)]
pub struct Txn {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: Box<dyn Snapshot>,
    limits: Limits,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writes: WriteSet,
    reads: Reads,
    bytes: usize,
    /// The first write that broke a limit; the commit fails with it.
    violation: Option<KvError>,
    /// The last failure that a read has returned: the retry loop sees it even when the body wraps it.
    last_error: Option<KvError>,
}

impl Txn {
    pub(crate) fn new(snapshot: Box<dyn Snapshot>, limits: Limits) -> Self {
        let shared = Shared {
            snapshot,
            limits,
            started: Instant::now(),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Reads a key; the commit fails with a conflict when another transaction has changed it by then.
    ///
    /// # Errors
    /// [`KvError`] when the store fails or the transaction has grown too old.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.shared.state.lock().reads.keys.push(Bytes::copy_from_slice(key));
        self.read(key).await
    }

    /// Reads a key without taking part in conflicts.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn snapshot_get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.read(key).await
    }

    /// Reads a page of a range; the commit fails with a conflict when another transaction has changed anything in what was
    /// read by then, be it by a key that is new.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn range(&self, range: RangeRead) -> Result<Page, KvError> {
        let page = self.read_range(&range).await?;
        // Beyond a page that was cut short nothing has been read.
        let (mut start, mut end) = (range.start, range.end);
        if let (true, Some(last)) = (page.more, page.pairs.last()) {
            if range.reverse {
                start = last.key.clone();
            } else {
                end = after(&last.key);
            }
        }
        self.shared.state.lock().reads.ranges.push((start, end));
        Ok(page)
    }

    /// Reads a page of a range without taking part in conflicts.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn snapshot_range(&self, range: RangeRead) -> Result<Page, KvError> {
        self.read_range(&range).await
    }

    /// Writes a key.
    pub fn set(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        let limit = self.shared.limits.value_bytes_max;
        let too_large = (value.len() > limit).then(|| KvError::TooLarge {
            what: "a value",
            size: value.len(),
            limit,
        });
        self.write(&[&key], value.len(), too_large, |writes| writes.set(key.clone(), value));
    }

    /// Clears a key.
    pub fn clear(&self, key: impl Into<Bytes>) {
        let key = key.into();
        self.write(&[&key], 0, None, |writes| writes.clear(key.clone()));
    }

    /// Clears every key from `start` (inclusive) to `end` (exclusive).
    pub fn clear_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        self.write(&[&start, &end], 0, None, |writes| {
            writes.clear_range(start.clone(), end.clone());
        });
    }

    /// Adds to a little-endian u64 (absent = 0), wrapping; never conflicts with another atomic operation.
    pub fn add(&self, key: impl Into<Bytes>, delta: u64) {
        let key = key.into();
        self.write(&[&key], 8, None, |writes| {
            writes.atomic(key.clone(), Atomic::Add(delta));
        });
    }

    /// Raises a little-endian u64 (absent = 0) to at least `value`; never conflicts with another atomic operation.
    pub fn max(&self, key: impl Into<Bytes>, value: u64) {
        let key = key.into();
        self.write(&[&key], 8, None, |writes| {
            writes.atomic(key.clone(), Atomic::Max(value));
        });
    }

    fn write(
        &self,
        keys: &[&Bytes],
        value_bytes: usize,
        too_large: Option<KvError>,
        write: impl FnOnce(&mut WriteSet),
    ) {
        let limits = &self.shared.limits;
        let mut state = self.shared.state.lock();
        let long_key = keys
            .iter()
            .find(|key| key.len() > limits.key_bytes_max)
            .map(|key| KvError::TooLarge {
                what: "a key",
                size: key.len(),
                limit: limits.key_bytes_max,
            });
        state.bytes += value_bytes + keys.iter().map(|key| key.len()).sum::<usize>();
        let long_transaction = (state.bytes > limits.transaction_bytes_max).then(|| KvError::TooLarge {
            what: "a transaction",
            size: state.bytes,
            limit: limits.transaction_bytes_max,
        });
        match long_key.or(too_large).or(long_transaction) {
            Some(violation) => {
                state.violation.get_or_insert(violation);
            }
            None => write(&mut state.writes),
        }
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.check()?;
        let atomics = match self.shared.state.lock().writes.buffered(key) {
            Buffered::Value(value) => return Ok(value.cloned()),
            Buffered::Atomics(atomics) => atomics.to_vec(),
            Buffered::Unknown => Vec::new(),
        };
        let stored = self.noted(self.shared.snapshot.get(key).await)?;
        Ok(fold(&atomics, stored))
    }

    async fn read_range(&self, range: &RangeRead) -> Result<Page, KvError> {
        self.check()?;
        let buffered = self.shared.state.lock().writes.clone();
        if range.start >= range.end || range.limit == 0 {
            return Ok(Page::default());
        }
        if buffered.is_empty() {
            return self.noted(self.shared.snapshot.range(range.clone()).await);
        }
        self.overlaid(range, &buffered).await
    }

    /// Reads pages of the store until the buffered writes laid over them fill the page asked for.
    async fn overlaid(&self, range: &RangeRead, buffered: &WriteSet) -> Result<Page, KvError> {
        let mut merged: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut rest = range.clone();
        loop {
            let page = self.noted(self.shared.snapshot.range(rest.clone()).await)?;
            let edge = page.pairs.last().map(|pair| pair.key.clone());
            // This pass covers the keys up to the edge of the page, or all that is left.
            let (mut start, mut end) = (rest.start.clone(), rest.end.clone());
            if let (true, Some(edge)) = (page.more, &edge) {
                if range.reverse {
                    start = edge.clone();
                } else {
                    end = after(edge);
                }
            }
            let mut stored: BTreeMap<Bytes, Bytes> =
                page.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
            stored.retain(|key, _| !buffered.is_cleared(key));
            for (key, mutation) in buffered.mutations.range(start.clone()..end.clone()) {
                let value = match mutation {
                    Mutation::Set(value) => Some(value.clone()),
                    Mutation::Clear => None,
                    Mutation::Atomics(atomics) => fold(atomics, stored.get(key).cloned()),
                };
                match value {
                    Some(value) => stored.insert(key.clone(), value),
                    None => stored.remove(key),
                };
            }
            merged.extend(stored);
            if !page.more || merged.len() > range.limit {
                let more = page.more || merged.len() > range.limit;
                let pairs = merged.into_iter().map(|(key, value)| KvPair { key, value });
                let pairs: Vec<_> = if range.reverse {
                    pairs.rev().take(range.limit).collect()
                } else {
                    pairs.take(range.limit).collect()
                };
                return Ok(Page { pairs, more });
            }
            if range.reverse {
                rest.end = start;
            } else {
                rest.start = end;
            }
        }
    }

    fn check(&self) -> Result<(), KvError> {
        let limit_ms = self.shared.limits.transaction_age_ms_max;
        if self.shared.started.elapsed().as_millis() > u128::from(limit_ms) {
            return self.noted(Err(KvError::TooOld { limit_ms }));
        }
        match &self.shared.state.lock().violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn noted<T>(&self, result: Result<T, KvError>) -> Result<T, KvError> {
        if let Err(error) = &result {
            self.shared.state.lock().last_error = Some(error.clone());
        }
        result
    }

    pub(crate) fn last_error(&self) -> Option<KvError> {
        self.shared.state.lock().last_error.clone()
    }

    /// Takes what is to be committed; clones of the transaction that live on write into nothing.
    pub(crate) fn take(&self) -> Result<(WriteSet, Reads), KvError> {
        self.check()?;
        let mut state = self.shared.state.lock();
        Ok((std::mem::take(&mut state.writes), std::mem::take(&mut state.reads)))
    }

    pub(crate) fn snapshot(&self) -> &dyn Snapshot {
        &*self.shared.snapshot
    }
}

/// The key right after `key`.
pub(crate) fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
