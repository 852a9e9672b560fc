//! Ships slot logs between regions.
//!
//! A region that keeps copies of slots follows their home: one stream for each pair of regions, credit-controlled, for all slots. Where
//! regions have several nodes, it is one for each pair of nodes, for the slots that are both nodes' share.
//! The follower stores entries at once, says so, and applies them up to the high watermark that it is told; the home counts
//! what members of the in-sync set hold. Where a follower's log parts from the home's, by epoch history, it is cut; a follower behind
//! the home's log takes a copy of the slot.

#![forbid(unsafe_code)]

mod asking;
mod follower;
mod home;
mod homing;
mod in_sync;
mod keeping;
mod options;
mod parting;
mod sharing;

pub use follower::{Followers, Propose};
pub use home::ReplicationHome;
pub use homing::Homing;
pub use options::ReplicationOptions;

/// Bytes of one message at the most: many entries, each below the store's limit of a value.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
