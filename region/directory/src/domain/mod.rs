//! What the directory holds and how it changes: pure, so that every voter comes to the same state from the same commands.

mod apply;
mod lease;
mod planner;
mod rules;
mod state;

pub use apply::Applied;
pub use lease::{Ask, CLOCK_DRIFT_PERCENT, LeaseGrantor, LeaseHolder, LeaseTerms, LeaseTermsError, NotAdmitted};
pub use planner::{plan, plan_rebalance, wanted_in_sync};
pub use state::{
    Addresses, Command, Durability, InSyncChange, NodeAddress, Placement, Policy, Region, RegionId, RegionStatus,
    Rejection, State,
};
