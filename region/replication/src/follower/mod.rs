//! The follower's end: a stream to each process that serves slots at their home which this region keeps copies of.

mod link;
mod outgoing;
mod salvage;
mod slot;

use std::{collections::BTreeMap, sync::Arc};

use antiphon_directory::{Owner, Route};
use antiphon_slot::ReplicaLog;
use antiphon_types::{Epoch, Slot};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{link::Link, salvage::Salvage};
use crate::ReplicationOptions;

pub use salvage::Propose;

/// The slots that this node follows, by who serves them.
#[derive(Clone)]
pub struct Followers {
    inner: Arc<Inner>,
}

struct Inner {
    region: u64,
    route: Route,
    log: ReplicaLog,
    options: ReplicationOptions,
    salvage: Salvage,
    links: Mutex<BTreeMap<Owner, watch::Sender<Wanted>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// What is followed at one home: slots, each under its leader epoch.
pub(crate) type Wanted = BTreeMap<Slot, Epoch>;

impl Followers {
    /// Of the region with this id, that stores into `log` and reaches homes by `route`. What has to be cut off its logs is handed to
    /// `propose`.
    #[must_use]
    pub fn new(region: u64, route: Route, log: ReplicaLog, propose: Propose, options: ReplicationOptions) -> Self {
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let inner = Inner {
            salvage: Salvage::new(log.clone(), propose, tasks.clone(), closing.clone()),
            region,
            route,
            log,
            options,
            links: Mutex::default(),
            tasks,
            closing,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Follows these slots from now on, and no others: by who serves them, each under its leader epoch.
    pub fn follow(&self, mut wanted: BTreeMap<Owner, BTreeMap<Slot, Epoch>>) {
        let inner = &self.inner;
        let mut links = inner.links.lock();
        for home in wanted.keys() {
            if !links.contains_key(home) {
                let (sender, receiver) = watch::channel(Wanted::new());
                let link = Link {
                    region: inner.region,
                    home: home.clone(),
                    route: inner.route.clone(),
                    log: inner.log.clone(),
                    salvage: inner.salvage.clone(),
                    options: inner.options.clone(),
                    wanted: receiver,
                };
                let closing = inner.closing.clone();
                inner.tasks.spawn(async move {
                    closing.run_until_cancelled(link.run()).await;
                });
                links.insert(home.clone(), sender);
            }
        }
        for (home, link) in links.iter() {
            let slots = wanted.remove(home).unwrap_or_default();
            link.send_if_modified(|known| {
                let is_other = *known != slots;
                *known = slots;
                is_other
            });
        }
    }

    /// Ends every stream.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}
