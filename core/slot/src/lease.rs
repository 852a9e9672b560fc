use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Until when this node's region may act as home, on the monotonic clock of this process. Cheap to clone: clones are the same
/// lease.
#[derive(Debug, Clone)]
pub struct Lease {
    valid_until: watch::Sender<Option<Instant>>,
}

impl Lease {
    /// A lease that never ends: of a deployment of one region, where nobody else could be home.
    #[must_use]
    pub fn endless() -> Self {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        Self {
            valid_until: watch::Sender::new(Instant::now().checked_add(CENTURY)),
        }
    }

    /// A lease that has not been given yet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            valid_until: watch::Sender::new(None),
        }
    }

    /// Says until when the lease holds now.
    pub fn hold_until(&self, valid_until: Instant) {
        self.valid_until.send_replace(Some(valid_until));
    }

    /// Ends the lease at once.
    pub fn end(&self) {
        self.valid_until.send_replace(None);
    }

    /// Whether the region may act as home now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.valid_until.borrow().is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Instant>> {
        self.valid_until.subscribe()
    }
}
