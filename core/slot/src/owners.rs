//! Whether a slot is still this node's, when several nodes share a store.

use std::{sync::Arc, time::Duration};

use antiphon_types::Slot;
use futures_util::{TryStreamExt as _, stream};
use tokio::time::sleep;

use crate::{SlotError, Slots, batch::decode_header, keys, runtime::Runtime, slots::Place};

/// Headers that are read at once.
const READS_AT_ONCE: usize = 32;
/// How often it is looked whether the last slot is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Slots {
    /// Whether this node has been granted the slot, and knows of no other owner.
    #[must_use]
    pub fn is_granted(&self, slot: Slot) -> bool {
        !matches!(&*self.inner.place(slot).lock(), Place::Elsewhere { .. })
    }

    /// Waits until this node owns no slot.
    pub async fn vacated(&self) {
        while Slot::all().any(|slot| self.is_granted(slot)) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the slot's writer runs.
    #[must_use]
    pub fn is_open(&self, slot: Slot) -> bool {
        self.opened(slot).is_some()
    }

    /// Looks whether the open slots are still this node's, and lets go of those that another owner has taken. A writer hears of that by
    /// itself only when it commits: one without commands would be followed in vain.
    ///
    /// # Errors
    /// [`SlotError`] when the store fails.
    pub async fn check_owners(&self) -> Result<(), SlotError> {
        let open = Slot::all().filter_map(|slot| self.opened(slot));
        // One that is about to be opened is not in the header yet.
        let open = open.filter(|runtime| runtime.log.borrow().epoch > 0);
        let open: Vec<Arc<Runtime>> = open.collect();
        stream::iter(open.into_iter().map(Ok))
            .try_for_each_concurrent(READS_AT_ONCE, |runtime| self.check_owner(runtime))
            .await
    }

    async fn check_owner(&self, runtime: Arc<Runtime>) -> Result<(), SlotError> {
        let key = &keys::header(runtime.slot);
        let stored = self
            .inner
            .node
            .kv
            .transact(|txn| async move { txn.snapshot_get(key).await });
        let Some(value) = stored.await? else {
            return Ok(());
        };
        let header = decode_header(runtime.slot, &value)?;
        if header.owner != runtime.owner.as_slice() {
            runtime.signals.tell(|untold| untold.withdrawn = Some(header.epoch));
        }
        Ok(())
    }

    fn opened(&self, slot: Slot) -> Option<Arc<Runtime>> {
        match &*self.inner.place(slot).lock() {
            Place::Open(open) => Some(open.runtime.clone()),
            Place::Elsewhere { .. } | Place::Granted { .. } => None,
        }
    }
}
