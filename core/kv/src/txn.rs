use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    KvError, Limits, Page, RangeRead,
    engine::{Reads, Snapshot},
    meters::Meters,
    range::{PAGE_BYTES_MAX, overlaid},
    write::{Atomic, Buffered, WriteSet, fold},
};

/// A running transaction. Cheap to clone: clones are the same transaction.
#[derive(Clone)]
pub struct Txn {
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: Box<dyn Snapshot>,
    limits: Limits,
    meters: Arc<Meters>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writes: WriteSet,
    reads: Reads,
    /// The first breach of a limit: every later read and the commit fail with it.
    violation: Option<KvError>,
    /// The last failure that a read has returned: the retry loop sees it even when the body wraps it.
    last_error: Option<KvError>,
}

/// Whether a read takes part in conflicts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    Serializable,
    Snapshot,
}

impl Txn {
    pub(crate) fn new(snapshot: Box<dyn Snapshot>, limits: Limits, meters: Arc<Meters>) -> Self {
        let shared = Shared {
            snapshot,
            limits,
            meters,
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
    /// [`KvError`] when the store fails, a limit is broken or the transaction has grown too old.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.noted(self.read(key, Isolation::Serializable).await)
    }

    /// Reads a key without taking part in conflicts.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn snapshot_get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.noted(self.read(key, Isolation::Snapshot).await)
    }

    /// Reads a page of a range; the commit fails with a conflict when another transaction has changed anything in what was
    /// read by then, be it by a key that is new.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn range(&self, range: RangeRead) -> Result<Page, KvError> {
        self.noted(self.read_range(range, Isolation::Serializable).await)
    }

    /// Reads a page of a range without taking part in conflicts.
    ///
    /// # Errors
    /// As [`Txn::get`].
    pub async fn snapshot_range(&self, range: RangeRead) -> Result<Page, KvError> {
        self.noted(self.read_range(range, Isolation::Snapshot).await)
    }

    /// Whether a key costs a round trip over a network the first time that it is read, and nothing after that: what will be
    /// read is better asked for at once then.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.shared.snapshot.is_remote()
    }

    /// Writes a key.
    pub fn set(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        let limits = &self.shared.limits;
        let checked = limits.check_key(&key).and_then(|()| limits.check_value(&value));
        self.write(checked, |writes| writes.set(key, value));
    }

    /// Clears a key.
    pub fn clear(&self, key: impl Into<Bytes>) {
        let key = key.into();
        self.write(self.shared.limits.check_key(&key), |writes| writes.clear(key));
    }

    /// Clears every key from `start` (inclusive) to `end` (exclusive).
    pub fn clear_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        let checked = self.shared.limits.check_bounds(&start, &end);
        self.write(checked, |writes| writes.clear_range(start, end));
    }

    /// Adds to a little-endian u64 (absent = 0), wrapping; never conflicts with another atomic operation.
    pub fn add(&self, key: impl Into<Bytes>, delta: u64) {
        self.atomic(key.into(), Atomic::Add(delta));
    }

    /// Raises a little-endian u64 (absent = 0) to at least `value`; never conflicts with another atomic operation.
    pub fn max(&self, key: impl Into<Bytes>, value: u64) {
        self.atomic(key.into(), Atomic::Max(value));
    }

    fn atomic(&self, key: Bytes, atomic: Atomic) {
        self.write(self.shared.limits.check_key(&key), |writes| writes.atomic(key, atomic));
    }

    fn write(&self, checked: Result<(), KvError>, write: impl FnOnce(&mut WriteSet)) {
        let mut state = self.shared.state.lock();
        let result = checked.and_then(|()| {
            write(&mut state.writes);
            state.check_bytes(&self.shared.limits)
        });
        if let Err(violation) = result {
            state.violation.get_or_insert(violation);
        }
    }

    async fn read(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        self.check_age()?;
        self.shared.limits.check_key(key)?;
        let atomics = {
            let mut state = self.shared.state.lock();
            state.check_violation()?;
            let atomics = match state.writes.buffered(key) {
                Buffered::Value(value) => return Ok(value.cloned()),
                Buffered::Atomics(atomics) => atomics.to_vec(),
                Buffered::Unknown => Vec::new(),
            };
            if isolation == Isolation::Serializable {
                state.reads.add_key(key);
                state.check_bytes(&self.shared.limits)?;
            }
            atomics
        };
        let stored = self.shared.snapshot.get(key).await?;
        self.shared.meters.read(stored.as_ref().map_or(0, Bytes::len));
        Ok(fold(&atomics, stored))
    }

    async fn read_range(&self, range: RangeRead, isolation: Isolation) -> Result<Page, KvError> {
        self.check_age()?;
        self.shared.limits.check_bounds(&range.start, &range.end)?;
        self.shared.state.lock().check_violation()?;
        if range.limit == 0 {
            return Err(KvError::Io(
                "a range read with a limit of 0 pairs is refused".to_owned(),
            ));
        }
        if range.is_empty() {
            return Ok(Page::default());
        }
        let (page, extent) = self.read_page(&range).await?;
        if isolation == Isolation::Serializable {
            let mut state = self.shared.state.lock();
            state.reads.add_range(extent.0, extent.1);
            state.check_bytes(&self.shared.limits)?;
        }
        Ok(page)
    }

    /// Reads pages of the store until, with the buffered writes laid over them, they fill the page asked for. Returns the
    /// page and the range of keys that it depends on.
    async fn read_page(&self, range: &RangeRead) -> Result<(Page, (Bytes, Bytes)), KvError> {
        let mut page = Page::default();
        let mut bytes = 0;
        let mut rest = range.clone();
        loop {
            // One more than asked for tells whether there is more.
            rest.limit = (range.limit - page.pairs.len()).saturating_add(1);
            let stored = self.shared.snapshot.range(rest.clone()).await?;
            let lengths = stored.pairs.iter().map(|pair| pair.key.len() + pair.value.len());
            self.shared.meters.read(lengths.sum());
            let (start, end) = match stored.pairs.last() {
                Some(last) if stored.more => rest.up_to(&last.key),
                Some(_) | None => (rest.start.clone(), rest.end.clone()),
            };
            {
                let state = self.shared.state.lock();
                for pair in overlaid(&state.writes, (&start, &end), stored.pairs, range.reverse) {
                    if page.pairs.len() == range.limit || bytes >= PAGE_BYTES_MAX {
                        page.more = true;
                        return Ok((page, range.up_to(&pair.key)));
                    }
                    bytes += pair.key.len() + pair.value.len();
                    page.pairs.push(pair);
                }
            }
            if range.reverse {
                rest.end = start;
            } else {
                rest.start = end;
            }
            if !stored.more || rest.is_empty() {
                return Ok((page, (range.start.clone(), range.end.clone())));
            }
        }
    }

    fn check_age(&self) -> Result<(), KvError> {
        let limit_ms = self.shared.limits.transaction_age_ms_max;
        if self.shared.started.elapsed() > Duration::from_millis(limit_ms) {
            return Err(KvError::TooOld { limit_ms });
        }
        Ok(())
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
    pub(crate) fn take(&self) -> Result<(Reads, WriteSet), KvError> {
        let mut state = self.shared.state.lock();
        state.check_violation()?;
        if !state.writes.is_empty() {
            self.check_age()?;
        }
        Ok((std::mem::take(&mut state.reads), std::mem::take(&mut state.writes)))
    }

    pub(crate) fn snapshot(&self) -> &dyn Snapshot {
        &*self.shared.snapshot
    }
}

impl State {
    fn check_violation(&self) -> Result<(), KvError> {
        match &self.violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn check_bytes(&mut self, limits: &Limits) -> Result<(), KvError> {
        let checked = limits.check_transaction(self.writes.bytes() + self.reads.bytes());
        if let Err(violation) = &checked {
            self.violation.get_or_insert_with(|| violation.clone());
        }
        checked
    }
}

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        write!(f, "Txn({} bytes)", state.writes.bytes() + state.reads.bytes())
    }
}
