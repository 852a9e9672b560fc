use antiphon_kv::{Page, RangeRead};
use antiphon_types::Slot;
use bytes::Bytes;

use crate::{SlotError, Slots, keys, runtime::Phase};

/// Pairs of one page.
const PAGE_LEN: usize = 500;

impl Slots {
    /// Whether a page of the slot could be read now: its home has taken it over, and shows what it holds.
    #[must_use]
    pub fn can_copy(&self, slot: Slot) -> bool {
        let runtime = self.runtime(slot);
        runtime.is_ok_and(|runtime| matches!(*runtime.phase.borrow(), Phase::Serving(_)))
    }

    /// One page of everything that services keep in the slot, in the order of keys; empty `after` begins. What it shows is at or
    /// below the high watermark. Pages read one after another are of different moments: whoever copies a slot applies on top
    /// every entry above the high watermark of when the copy began.
    ///
    /// # Errors
    /// [`SlotError`]: not home, timed out, the store.
    pub async fn copy_page(&self, slot: Slot, after: &Bytes) -> Result<Page, SlotError> {
        let (first, end) = keys::services(slot);
        let start = if after.is_empty() {
            first
        } else {
            // The smallest key above.
            [after.as_ref(), &[0]].concat().into()
        };
        let range = RangeRead {
            start,
            end,
            limit: PAGE_LEN,
            reverse: false,
        };
        let read = self.read(slot, move |read| {
            let range = range.clone();
            async move { read.range(range).await }
        });
        read.await
    }
}
