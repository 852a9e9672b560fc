use std::{fmt, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    DirectoryError,
    node::{DirectoryNode, Shared, ask::Reach},
    raft::placeholder::LeaseHolder,
};

/// A region's lease, kept for as long as this value lives. Cheap to clone.
///
/// Time is the machine's monotonic clock, which goes on while a process is stopped: one that wakes up finds its lease over before it
/// does anything.
#[derive(Clone)]
pub struct LeaseKeeper {
    lease: Arc<Mutex<LeaseHolder>>,
    valid: watch::Receiver<bool>,
    _ends_task: Arc<DropGuard>,
}

impl LeaseKeeper {
    /// Whether the region may act as home now. To be asked each time.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.lease.lock().is_valid(Instant::now())
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
    /// Takes the lease of this node's region and renews it. `incarnation` grows with each start of the region: while a newer process
    /// of the region holds the lease, this one does not get it.
    #[must_use]
    pub fn keep_lease(&self, incarnation: u64) -> LeaseKeeper {
        let shared = self.shared.clone();
        let options = shared.options.lease;
        let lease = Arc::new(Mutex::new(LeaseHolder::new(options.lease(), options.margin())));
        let (changes, valid) = watch::channel(false);
        let ended = shared.closing.child_token();
        let keeping = keep(shared.clone(), incarnation, lease.clone(), changes, ended.clone());
        shared.tasks.spawn(keeping);
        LeaseKeeper {
            lease,
            valid,
            _ends_task: Arc::new(ended.drop_guard()),
        }
    }
}

async fn keep(
    shared: Arc<Shared>,
    incarnation: u64,
    lease: Arc<Mutex<LeaseHolder>>,
    valid: watch::Sender<bool>,
    ended: CancellationToken,
) {
    let renewing = async {
        loop {
            let begun = tokio::time::Instant::now();
            match renew(&shared, incarnation).await {
                Ok(asked) => {
                    lease.lock().renewed(asked);
                    show(&valid, lease.lock().is_valid(Instant::now()));
                }
                Err(error) => tracing::warn!(region = shared.region.0, %error, "the region's lease is not renewed"),
            }
            let wait = shared.options.lease.renewal();
            tokio::time::sleep_until(begun + wait).await;
        }
    };
    let expiring = async {
        loop {
            let until = lease.lock().valid_until();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until.into()).await,
                Some(_) | None => {
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

/// Renews, and waits until this node knows what the leader knew. Returns when the leader was asked.
async fn renew(shared: &Shared, incarnation: u64) -> Result<Instant, DirectoryError> {
    let timeout = shared.options.lease.lease() / 2;
    let within_ms = shared.options.lease.lease_ms / 2;
    let renewal = async {
        let renewed = shared
            .renew(Reach::Anywhere, timeout, shared.region, incarnation)
            .await?;
        shared.applied_at_least(renewed.applied_index).await;
        Ok(renewed.asked)
    };
    tokio::time::timeout(timeout, renewal)
        .await
        .unwrap_or(Err(DirectoryError::NoQuorum { within_ms }))
}

fn show(valid: &watch::Sender<bool>, now: bool) {
    valid.send_if_modified(|before| std::mem::replace(before, now) != now);
}
