//! What the directory holds and how it changes: pure, so that every voter comes to the same state from the same commands.

mod apply;
mod rules;
mod state;

pub use apply::Applied;
pub use state::{Addresses, Command, Durability, Placement, Policy, Region, RegionId, RegionStatus, Rejection, State};
