use bytes::Bytes;

use crate::KvError;

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
pub struct Txn {}

impl Txn {
    /// Reads a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        todo!()
    }
    /// Reads a key without taking part in conflicts.
    pub async fn snapshot_get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        todo!()
    }
    /// Reads a page of a range.
    pub async fn range(&self, range: RangeRead) -> Result<Page, KvError> {
        todo!()
    }
    /// Reads a page of a range without taking part in conflicts.
    pub async fn snapshot_range(&self, range: RangeRead) -> Result<Page, KvError> {
        todo!()
    }
    /// Writes a key.
    pub fn set(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        todo!()
    }
    /// Clears a key.
    pub fn clear(&self, key: impl Into<Bytes>) {
        todo!()
    }
    /// Clears every key from `start` (inclusive) to `end` (exclusive).
    pub fn clear_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        todo!()
    }
    /// Adds to a little-endian u64 (absent = 0), wrapping; never conflicts.
    pub fn add(&self, key: impl Into<Bytes>, delta: u64) {
        todo!()
    }
    /// Raises a little-endian u64 (absent = 0) to at least `value`; never conflicts.
    pub fn max(&self, key: impl Into<Bytes>, value: u64) {
        todo!()
    }
}
