use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
    time::Duration,
};

use antiphon_proto::log::Entry;
use antiphon_slot::{ReplicaLog, SlotError};
use antiphon_types::{Epoch, Slot};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

/// Proposes again, at the slot's home of now, what a cut entry held; an error is tried again later.
pub type Propose = Arc<dyn Fn(Entry) -> BoxFuture<'static, Result<usize, Status>> + Send + Sync>;

/// The longest pause before an entry is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Sees to entries that were cut off logs here, one task a slot, until each was proposed again.
#[derive(Clone)]
pub(crate) struct Salvage {
    log: ReplicaLog,
    propose: Propose,
    /// The slots that are seen to, each with the epoch under which it was asked for since that began, if it was.
    busy: Arc<Mutex<HashMap<Slot, Option<Epoch>>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Salvage {
    pub(crate) fn new(log: ReplicaLog, propose: Propose, tasks: TaskTracker, closing: CancellationToken) -> Self {
        Self {
            log,
            propose,
            busy: Arc::default(),
            tasks,
            closing,
        }
    }

    /// Sees to what the slot has. While that is under way already, it is seen to once more, under this epoch.
    pub(crate) fn begin(&self, slot: Slot, epoch: Epoch) {
        match self.busy.lock().entry(slot) {
            hash_map::Entry::Occupied(mut asked) => {
                asked.insert(Some(epoch));
                return;
            }
            hash_map::Entry::Vacant(busy) => busy.insert(None),
        };
        let salvage = self.clone();
        self.tasks.spawn(async move {
            let mut epoch = epoch;
            loop {
                let working = salvage.closing.run_until_cancelled(salvage.work(slot, epoch));
                let Some(result) = working.await else { return };
                if let Err(error) = result {
                    // Another epoch, most of the time: the next fetch begins again.
                    tracing::debug!(slot = slot.number(), %error, "what was cut is kept for now");
                }
                match salvage.asked_since(slot) {
                    Some(asked) => epoch = asked,
                    None => return,
                }
            }
        });
    }

    /// The epoch that was asked for meanwhile; without one the slot is left.
    fn asked_since(&self, slot: Slot) -> Option<Epoch> {
        let mut busy = self.busy.lock();
        let asked = busy.get_mut(&slot).and_then(Option::take);
        if asked.is_none() {
            busy.remove(&slot);
        }
        asked
    }

    async fn work(&self, slot: Slot, epoch: Epoch) -> Result<(), SlotError> {
        loop {
            let page = self.log.cut_entries(slot).await?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                self.propose_again(slot, epoch, entry).await?;
            }
        }
    }

    async fn propose_again(&self, slot: Slot, epoch: Epoch, entry: Entry) -> Result<(), SlotError> {
        let index = entry.index;
        let mut pause = Duration::from_millis(100);
        while let Err(status) = (self.propose)(entry.clone()).await {
            tracing::debug!(slot = slot.number(), index, %status, "a cut entry has to be proposed again later");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        tracing::info!(slot = slot.number(), index, "what a cut entry held was proposed again");
        self.log.forget_cut(slot, epoch, index).await
    }
}
