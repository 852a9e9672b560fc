use std::collections::BTreeMap;

use antiphon_types::{Epoch, LogIndex};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::protocol::{InSync, Replica};

/// What others tell the writer of a slot. Of each kind the latest counts, so that nothing queues.
#[derive(Default)]
pub(crate) struct Signals {
    untold: Mutex<Untold>,
    changed: Notify,
}

/// What the writer has not heeded yet.
#[derive(Default)]
pub(crate) struct Untold {
    pub(crate) replicas: BTreeMap<Replica, Progress>,
    pub(crate) in_sync: Option<InSync>,
    pub(crate) hand_over: Option<HandOver>,
    /// The slot has another home, under this epoch.
    pub(crate) withdrawn: Option<Epoch>,
}

/// What a replica has come to.
pub(crate) enum Progress {
    /// It holds everything up to here.
    Holds(LogIndex),
    /// It takes the log from here on.
    Follows(LogIndex),
    /// It follows no more.
    Left,
}

/// Whether the slot is about to get another home.
pub(crate) enum HandOver {
    /// Finish what is begun, take nothing new, and say so.
    Begin(oneshot::Sender<()>),
    /// It stays here after all.
    Resume,
}

impl Signals {
    pub(crate) fn tell(&self, tell: impl FnOnce(&mut Untold)) {
        tell(&mut self.untold.lock());
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) -> Untold {
        std::mem::take(&mut *self.untold.lock())
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
