use std::{fmt, sync::Arc};

use tokio::sync::watch;

/// The right of this node's region to be home of anything, which may end by itself. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    is_valid: Arc<dyn Fn() -> bool + Send + Sync>,
    changes: watch::Receiver<bool>,
}

impl Lease {
    /// A lease that never ends: of a deployment of one region, where nobody else could be home.
    #[must_use]
    pub fn endless() -> Self {
        Self::new(|| true, watch::Sender::new(true).subscribe())
    }

    /// `is_valid` is asked before each answer; `changes` tells, perhaps a little late, that it is worth asking again.
    #[must_use]
    pub fn new(is_valid: impl Fn() -> bool + Send + Sync + 'static, changes: watch::Receiver<bool>) -> Self {
        Self {
            is_valid: Arc::new(is_valid),
            changes,
        }
    }

    /// Whether the region may act as home now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (self.is_valid)()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.changes.clone()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("is_valid", &self.is_valid())
            .finish_non_exhaustive()
    }
}
