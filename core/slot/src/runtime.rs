use std::{sync::Arc, time::Duration};

use antiphon_types::{Epoch, LogIndex, Slot};
use tokio::{
    sync::{mpsc, watch},
    time,
};

use crate::{
    SlotError,
    command::Command,
    protocol::{LogState, OwnerToken},
    signals::Signals,
};

/// An open slot as its users see it: the way into the writer's task, and what the task tells.
pub(crate) struct Runtime {
    pub(crate) slot: Slot,
    /// What the header holds as long as nobody else has taken the slot.
    pub(crate) owner: OwnerToken,
    pub(crate) queue: mpsc::Sender<Arc<dyn Command>>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) carried: watch::Receiver<LogIndex>,
    pub(crate) log: watch::Receiver<LogState>,
    pub(crate) signals: Arc<Signals>,
}

/// What the writer's task is doing.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Taking the slot over.
    Opening,
    /// Serving; nothing above this high watermark may be shown.
    Serving(LogIndex),
    /// Everything is committed and nothing more is taken: another region is to be home.
    HandedOver,
    /// The slot was taken over by another owner.
    Fenced(Epoch),
    /// It could not be opened, or it is shut.
    Ended(SlotError),
}

impl Runtime {
    /// Why the writer takes nothing any more.
    pub(crate) fn gone(&self) -> SlotError {
        let slot = self.slot;
        match &*self.phase.borrow() {
            Phase::Fenced(epoch) => SlotError::NotHome { slot, epoch: *epoch },
            Phase::Ended(error) => error.clone(),
            Phase::Opening | Phase::Serving(_) | Phase::HandedOver => SlotError::Closed { slot },
        }
    }

    /// Waits until the slot serves and its high watermark has reached `index`; returns the high watermark.
    pub(crate) async fn reached(&self, index: LogIndex, timeout: Duration) -> Result<LogIndex, SlotError> {
        if let Phase::Serving(high_watermark) = *self.phase.borrow()
            && high_watermark >= index
        {
            return Ok(high_watermark);
        }
        let mut phase = self.phase.clone();
        let arrived = phase.wait_for(|phase| match phase {
            Phase::Opening | Phase::HandedOver => false,
            Phase::Serving(high_watermark) => *high_watermark >= index,
            Phase::Fenced(_) | Phase::Ended(_) => true,
        });
        let slot = self.slot;
        match time::timeout(timeout, arrived).await {
            Err(_) => {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Err(SlotError::Timeout { slot, timeout_ms })
            }
            Ok(Err(_)) => Err(SlotError::Closed { slot }),
            Ok(Ok(phase)) => match &*phase {
                Phase::Serving(high_watermark) => Ok(*high_watermark),
                Phase::Fenced(epoch) => Err(SlotError::NotHome { slot, epoch: *epoch }),
                Phase::Ended(error) => Err(error.clone()),
                Phase::Opening | Phase::HandedOver => Err(SlotError::Closed { slot }),
            },
        }
    }
}
