use antiphon_kv::{Page, RangeRead, Txn};
use antiphon_types::LogIndex;
use bytes::Bytes;

use crate::SlotError;

/// A read of one snapshot of the slot. Cheap to clone.
#[derive(Clone)]
pub struct SlotRead {
    kv: Txn,
    high_watermark: LogIndex,
}

impl SlotRead {
    pub(crate) const fn new(kv: Txn, high_watermark: LogIndex) -> Self {
        Self { kv, high_watermark }
    }

    /// The high watermark when the snapshot was taken. Meaningful to [`crate::Slots::read_filtered`]; a plain read is answered
    /// only when all that it saw is below it.
    #[must_use]
    pub const fn high_watermark(&self) -> LogIndex {
        self.high_watermark
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`SlotError::Kv`] when the store fails.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SlotError> {
        Ok(self.kv.snapshot_get(key).await?)
    }

    /// Reads a page of a range.
    ///
    /// # Errors
    /// [`SlotError::Kv`] when the store fails.
    pub async fn range(&self, range: RangeRead) -> Result<Page, SlotError> {
        Ok(self.kv.snapshot_range(range).await?)
    }
}
