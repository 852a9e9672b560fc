use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{Asker, LeaseOptions};
use crate::{
    DirectoryError,
    domain::{LeaseHolder, LeaseTerms, RegionId},
    node::{DirectoryNode, ask::Reach},
};

/// A node's lease for its region, kept for as long as this value lives. Cheap to clone.
///
/// Time is the machine's monotonic clock, which goes on while a process is stopped: one that wakes up finds its lease over before it
/// does anything.
#[derive(Clone)]
pub struct LeaseKeeper {
    lease: Arc<Lease>,
    valid: watch::Receiver<bool>,
    _ends_task: Arc<DropGuard>,
}

/// How a lease is kept, whoever is asked for it.
pub(crate) struct Tenure {
    pub(crate) region: RegionId,
    pub(crate) terms: LeaseTerms,
    pub(crate) options: LeaseOptions,
    /// The zero of the lease's clock.
    pub(crate) started: Instant,
    /// Ends once there may be a lease: before the deployment is founded there is none.
    pub(crate) founded: BoxFuture<'static, ()>,
    /// Asks the leader for it once, for so long at most, and waits until this node has applied what the leader had.
    pub(crate) renew: Box<dyn Fn(Duration) -> BoxFuture<'static, Result<(), DirectoryError>> + Send + Sync>,
}

impl LeaseKeeper {
    /// Whether the node may act for its region as home now. To be asked each time.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }

    /// Tells of changes, a little late: for waiting, not for deciding.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.valid.clone()
    }

    /// Takes a lease and renews it, by one of `tasks`, until the keeper is dropped or `closing` ends.
    pub(crate) fn keep(tenure: Tenure, tasks: &TaskTracker, closing: &CancellationToken) -> Self {
        let lease = Arc::new(Lease {
            holder: Mutex::new(LeaseHolder::new(tenure.terms)),
            started: tenure.started,
        });
        let (changes, valid) = watch::channel(false);
        let ended = closing.child_token();
        tasks.spawn(keep(lease.clone(), tenure, changes, ended.clone()));
        Self {
            lease,
            valid,
            _ends_task: Arc::new(ended.drop_guard()),
        }
    }
}

impl fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseKeeper")
            .field("valid", &self.is_valid())
            .finish_non_exhaustive()
    }
}

impl DirectoryNode {
    /// Takes the lease of this node's region and renews it. `node` names this node among those of its region, and `incarnation` grows
    /// with each start of it, as [`DirectoryNode::starts`] does: while a newer process of the node holds the lease, this one does not
    /// get it.
    #[must_use]
    pub fn keep_lease(&self, node: &str, incarnation: u64) -> LeaseKeeper {
        let shared = &self.shared;
        let asker = Asker {
            region: shared.region,
            node: node.to_owned(),
            incarnation,
        };
        let (founding, renewing) = (shared.clone(), shared.clone());
        let tenure = Tenure {
            region: shared.region,
            terms: shared.terms,
            options: shared.options.lease,
            started: shared.started,
            founded: Box::pin(async move {
                let mut images = founding.images.clone();
                let _ = images.wait_for(|image| !image.state.deployment.is_empty()).await;
            }),
            renew: Box::new(move |timeout| {
                let (shared, asker) = (renewing.clone(), asker.clone());
                Box::pin(async move {
                    let applied_index = shared.renew(Reach::Anywhere, timeout, &asker).await?;
                    let is_applied = shared.applied_at_least(applied_index).await;
                    let closed = || DirectoryError::Stopped("it is closed".to_owned());
                    is_applied.then_some(()).ok_or_else(closed)
                })
            }),
        };
        LeaseKeeper::keep(tenure, &shared.tasks, &shared.closing)
    }
}

struct Lease {
    started: Instant,
    holder: Mutex<LeaseHolder>,
}

impl Lease {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_valid(&self) -> bool {
        self.holder.lock().is_valid(self.now_ms())
    }

    /// For how long it is still valid.
    fn left(&self) -> Option<Duration> {
        let until_ms = self.holder.lock().valid_until_ms()?;
        let left_ms = until_ms.checked_sub(self.now_ms()).filter(|left_ms| *left_ms > 0)?;
        Some(Duration::from_millis(left_ms))
    }
}

async fn keep(lease: Arc<Lease>, tenure: Tenure, valid: watch::Sender<bool>, ended: CancellationToken) {
    let Tenure {
        region,
        options,
        founded,
        renew,
        ..
    } = tenure;
    let renewing = async {
        founded.await;
        loop {
            let next = Instant::now() + options.renewal();
            let ask = lease.holder.lock().ask(lease.now_ms());
            let timeout = options.lease() / 2;
            let renewed = tokio::time::timeout(timeout, renew(timeout)).await;
            let within_ms = options.lease_ms / 2;
            match renewed.unwrap_or(Err(DirectoryError::NoQuorum { within_ms })) {
                Ok(()) => {
                    lease.holder.lock().granted(ask);
                    show(&valid, lease.is_valid());
                }
                Err(error) => tracing::warn!(region = region.0, %error, "the region's lease is not renewed"),
            }
            tokio::time::sleep_until(next).await;
        }
    };
    let expiring = async {
        loop {
            match lease.left() {
                Some(left) => tokio::time::sleep(left).await,
                None => {
                    show(&valid, false);
                    // It can only become valid by a renewal, which shows that.
                    let _ = valid.subscribe().wait_for(|valid| *valid).await;
                }
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = renewing => {}
        () = expiring => {}
    }
    show(&valid, false);
}

fn show(valid: &watch::Sender<bool>, now: bool) {
    valid.send_if_modified(|before| std::mem::replace(before, now) != now);
}
