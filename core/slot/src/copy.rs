use antiphon_kv::{KvError, Page, RangeRead};
use antiphon_types::{LogIndex, Slot};
use bytes::Bytes;

use crate::{SlotError, Slots, batch::decode_header, keys, protocol::LogState, runtime::Phase};

/// Pairs of one page.
const PAGE_LEN: usize = 500;

impl Slots {
    /// Where a copy ends that begins now: every entry after that is to be applied on top. It is the high watermark; while the slot is being
    /// opened it is the end of the log, since its home keeps all of it, and may need the very copy to have enough of them.
    #[must_use]
    pub fn copy_end(&self, slot: Slot, log: &LogState) -> LogIndex {
        if self.is_serving(slot) {
            log.high_watermark
        } else {
            log.last_index
        }
    }

    /// One page of everything that services keep in the slot, in the order of keys; empty `after` begins. What it shows is at or
    /// below the high watermark, or, while the slot is being opened, at or below `end`; `None` as long as that cannot be had. Pages read
    /// one after another are of different moments: whoever copies a slot applies on top every entry above `end`.
    ///
    /// # Errors
    /// [`SlotError`]: not home, timed out, the store.
    pub async fn copy_page(&self, slot: Slot, after: &Bytes, end: LogIndex) -> Result<Option<Page>, SlotError> {
        let (first, services_end) = keys::services(slot);
        let start = if after.is_empty() {
            first
        } else {
            // The smallest key above.
            [after.as_ref(), &[0]].concat().into()
        };
        let range = RangeRead {
            start,
            end: services_end,
            limit: PAGE_LEN,
            reverse: false,
        };
        if !self.is_serving(slot) {
            return self.page_while_opening(slot, range, end).await;
        }
        let read = self.read(slot, move |read| {
            let range = range.clone();
            async move { read.range(range).await }
        });
        read.await.map(Some)
    }

    fn is_serving(&self, slot: Slot) -> bool {
        let runtime = self.runtime(slot);
        runtime.is_ok_and(|runtime| matches!(*runtime.phase.borrow(), Phase::Serving(_)))
    }

    /// Nothing is appended meanwhile, so that the store shows the same at each page once the tail that was found is applied.
    async fn page_while_opening(&self, slot: Slot, range: RangeRead, end: LogIndex) -> Result<Option<Page>, SlotError> {
        let owner = self.runtime(slot)?.owner;
        let (range, header_key) = (&range, &keys::header(slot));
        let read = self.inner.node.kv.transact(|txn| async move {
            let header = txn.snapshot_get(header_key).await?;
            Ok::<_, KvError>((header, txn.snapshot_range(range.clone()).await?))
        });
        let (header, page) = read.await?;
        let Some(header) = header else { return Ok(None) };
        let header = decode_header(slot, &header)?;
        let is_whole = header.last_index == end && header.applied_index == end;
        Ok((header.owner == owner.as_slice() && is_whole).then_some(page))
    }
}
