//! Leases: a region acts as home only while it holds one.
//!
//! The leader notes when it *received* a renewal, confirms with a majority that it still leads, and only then answers; so an answer means
//! that no later leader can have been elected before that moment, and a later leader waits a whole lease and margin before it takes
//! anything away. The answer names a position in the log, and the lease counts only once the region has applied the log up to there:
//! a region that was declared down and given away meanwhile knows so before it acts under the lease. A region that is about to be
//! declared down gets no renewal until that is done.

mod grants;
mod keeper;
mod renew;

use std::time::Duration;

pub(crate) use grants::Grants;
pub use keeper::LeaseKeeper;

use crate::domain::{LeaseTerms, LeaseTermsError};

/// The times of the leases; the same at every node of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOptions {
    /// How long a lease lasts.
    pub lease_ms: u64,
    /// How much earlier its holder stops, and how much longer the directory waits: what two clocks may differ by over a lease.
    pub margin_ms: u64,
    /// How often it is renewed.
    pub renewal_ms: u64,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            lease_ms: 4_000,
            margin_ms: 500,
            renewal_ms: 1_000,
        }
    }
}

impl LeaseOptions {
    pub(crate) fn terms(&self) -> Result<LeaseTerms, LeaseTermsError> {
        LeaseTerms::new(self.lease_ms, self.margin_ms, self.renewal_ms)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(crate) fn renewal(&self) -> Duration {
        Duration::from_millis(self.renewal_ms)
    }
}
