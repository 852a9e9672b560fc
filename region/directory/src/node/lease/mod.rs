//! Leases: a region acts as home only while it holds one.
//!
//! The leader notes when it *received* a renewal, confirms with a majority that it still leads, and only then answers; so an answer means
//! that no later leader can have been elected before that moment, and a later leader waits a whole lease and margin before it takes
//! anything away. The answer names a position in the log, and the lease counts only once the region has applied the log up to there:
//! a region that was declared down and given away meanwhile knows so before it acts under the lease. A region that is about to be
//! declared down gets no renewal until that is done.
//!
//! # Several nodes of one region
//! Each renews for itself, and the leader notes for the region when the last of them has asked. So the region is declared down a whole
//! lease and margin after the last question of any of its nodes, and by then each of them, who counts from before its own last question,
//! has stopped. A node that is cut off stops alone: who takes over its share is the region's own affair. After the region was declared
//! down, the first node that asks brings it back, and each of them holds a lease again only when it has itself applied the log past all
//! of that.

mod grants;
mod keeper;
mod renew;

use std::time::Duration;

pub(crate) use grants::Grants;
pub use keeper::LeaseKeeper;
pub(crate) use keeper::Tenure;

use crate::domain::{LeaseTerms, LeaseTermsError, RegionId};

/// The name of a region's node that says no other.
pub(crate) const FIRST_NODE: &str = "1";

/// Bytes of a node's name.
pub(crate) const NODE_BYTES_MAX: usize = 64;

/// A process that asks for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    /// Whose lease.
    pub(crate) region: RegionId,
    /// Which of the region's nodes.
    pub(crate) node: String,
    /// Grows with each start of that node.
    pub(crate) incarnation: u64,
}

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
