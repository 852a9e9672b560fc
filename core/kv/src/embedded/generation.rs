use std::sync::Arc;

use bytes::Bytes;
use fjall::{Keyspace, Readable as _};

use super::folder::Opened;
use crate::{KvError, KvPair, Page, RangeRead, range::PAGE_BYTES_MAX};

/// The store as of one version, durable. Shared by all transactions that began on it.
pub(super) struct Generation {
    pub(super) version: u64,
    snapshot: fjall::Snapshot,
    keyspace: Arc<Keyspace>,
}

impl Generation {
    /// The store as it is now. No batch may be in the middle of being applied.
    pub(super) fn take(opened: &Opened, version: u64) -> Self {
        Self {
            version,
            snapshot: opened.database.snapshot(),
            keyspace: opened.keyspace.clone(),
        }
    }

    /// Whether no other generation is held by anyone.
    pub(super) fn is_last(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.keyspace) == 1
    }

    /// Values are copied: a part of a block, kept, would keep the whole block.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.snapshot.get(&*self.keyspace, key).map_err(engine_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn range(&self, range: &RangeRead) -> Result<Page, KvError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        let mut found = self.snapshot.range::<&[u8], _>(&*self.keyspace, start..end);
        let mut bytes = 0;
        while page.pairs.len() < range.limit && bytes < PAGE_BYTES_MAX {
            let next = if range.reverse { found.next_back() } else { found.next() };
            let Some(next) = next else { return Ok(page) };
            let (key, value) = next.into_inner().map_err(engine_error)?;
            bytes += key.len() + value.len();
            page.pairs.push(KvPair {
                key: Bytes::copy_from_slice(&key),
                value: Bytes::copy_from_slice(&value),
            });
        }
        page.more = true;
        Ok(page)
    }

    /// The keys from `start` to `end`.
    pub(super) fn keys(&self, start: &[u8], end: &[u8]) -> impl Iterator<Item = Result<Bytes, KvError>> {
        let found = self.snapshot.range::<&[u8], _>(&*self.keyspace, start..end);
        found.map(|found| match found.key() {
            Ok(key) => Ok(Bytes::copy_from_slice(&key)),
            Err(error) => Err(engine_error(error)),
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
pub(super) fn engine_error(error: fjall::Error) -> KvError {
    KvError::Io(error.to_string())
}
