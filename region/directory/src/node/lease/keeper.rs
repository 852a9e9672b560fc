use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    DirectoryError,
    domain::LeaseHolder,
    node::{DirectoryNode, Shared, ask::Reach},
};

/// A region's lease, kept for as long as this value lives. Cheap to clone.
///
/// Time is the machine's monotonic clock, which goes on while a process is stopped: one that wakes up finds its lease over before it
/// does anything.
#[derive(Clone)]
pub struct LeaseKeeper {
    lease: Arc<Lease>,
    valid: watch::Receiver<bool>,
    _ends_task: Arc<DropGuard>,
}

impl LeaseKeeper {
    /// Whether the region may act as home now. To be asked each time.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }

    /// Tells of changes, a little late: for waiting, not for deciding.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.valid.clone()
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
    /// Takes the lease of this node's region and renews it. `incarnation` grows with each start of the region,
    /// as [`DirectoryNode::starts`] does: while a newer process
    /// of the region holds the lease, this one does not get it.
    #[must_use]
    pub fn keep_lease(&self, incarnation: u64) -> LeaseKeeper {
        let shared = self.shared.clone();
        let lease = Arc::new(Lease {
            holder: Mutex::new(LeaseHolder::new(shared.terms)),
            shared: shared.clone(),
        });
        let (changes, valid) = watch::channel(false);
        let ended = shared.closing.child_token();
        let keeping = keep(lease.clone(), incarnation, changes, ended.clone());
        shared.tasks.spawn(keeping);
        LeaseKeeper {
            lease,
            valid,
            _ends_task: Arc::new(ended.drop_guard()),
        }
    }
}

struct Lease {
    shared: Arc<Shared>,
    holder: Mutex<LeaseHolder>,
}

impl Lease {
    fn is_valid(&self) -> bool {
        self.holder.lock().is_valid(self.shared.now_ms())
    }

    /// For how long it is still valid.
    fn left(&self) -> Option<Duration> {
        let until_ms = self.holder.lock().valid_until_ms()?;
        let left_ms = until_ms
            .checked_sub(self.shared.now_ms())
            .filter(|left_ms| *left_ms > 0)?;
        Some(Duration::from_millis(left_ms))
    }
}

async fn keep(lease: Arc<Lease>, incarnation: u64, valid: watch::Sender<bool>, ended: CancellationToken) {
    let shared = &lease.shared;
    let renewing = async {
        // Before the deployment is founded nobody has a lease.
        let mut images = shared.images.clone();
        let _ = images.wait_for(|image| !image.state.deployment.is_empty()).await;
        loop {
            let next = Instant::now() + shared.options.lease.renewal();
            let ask = lease.holder.lock().ask(shared.now_ms());
            match renew(shared, incarnation).await {
                Ok(()) => {
                    lease.holder.lock().granted(ask);
                    show(&valid, lease.is_valid());
                }
                Err(error) => tracing::warn!(region = shared.region.0, %error, "the region's lease is not renewed"),
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

/// Asks once, and waits until this node knows what the leader knew.
async fn renew(shared: &Shared, incarnation: u64) -> Result<(), DirectoryError> {
    let timeout = shared.options.lease.lease() / 2;
    let within_ms = shared.options.lease.lease_ms / 2;
    let renewal = async {
        let applied_index = shared
            .renew(Reach::Anywhere, timeout, shared.region, incarnation)
            .await?;
        shared.applied_at_least(applied_index).await;
        Ok(())
    };
    let renewed = tokio::time::timeout(timeout, renewal).await;
    renewed.unwrap_or(Err(DirectoryError::NoQuorum { within_ms }))
}

fn show(valid: &watch::Sender<bool>, now: bool) {
    valid.send_if_modified(|before| std::mem::replace(before, now) != now);
}
