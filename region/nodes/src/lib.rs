//! The nodes of one region: which of them are alive, and which slots are whose.
//!
//! Nodes of a region share one store. Each announces itself there in a row of its own and counts up in it; who is seen to count is
//! alive. Slots spread over the live ones by rendezvous hashing ([`owner`]), so that each node comes to the same spread by itself, and
//! a node that comes or goes moves no slot between two others.
//!
//! None of this has to be right for safety: two nodes that see the region differently for a while may both take a slot for theirs, and
//! the owner's token in the slot's header lets one of them commit. It has to become the same at all nodes soon, so that each slot is
//! served.
//!
//! | key | value |
//! |---|---|
//! | the byte strings `node` and the node's id, before all slots | [`antiphon_proto::log::NodeRow`]: address, process, counter, whether it is leaving |

#![forbid(unsafe_code)]

mod announcement;
mod domain;
mod options;
mod registry;
mod rows;
mod share;
mod watcher;

pub(crate) use announcement::Announcement;
pub use domain::{Liveness, NodeId, NodeIdError, Sign, owner};
pub use options::RegistryOptions;
pub use registry::Registry;
pub use share::{NodeRow, Nodes, Share};
