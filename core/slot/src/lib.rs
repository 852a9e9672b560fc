//! The slot: one writer, one log.
//!
//! The node that owns a slot runs one task for it. The task drains its queue, runs the commands one after another inside
//! one KV transaction, appends one log entry with the write set and the typed events, commits, and answers all of them:
//! group commit, so that a busy conversation costs one commit for a hundred messages.
//!
//! Rules that never bend:
//! - A node whose fencing token is not in the header cannot commit ([`protocol`]).
//! - A commit of unknown result is settled by its batch id before anything else happens, never by hoping.
//! - Nothing is answered, read or observed above the high watermark (I3).
//! - The queue is bounded; a full one is answered with [`SlotError::Overloaded`] (I9). So are those of all slots together, by what a node
//!   works off in a second or less: [`SlotError::NodeOverloaded`].
//! - What concerns another slot is an event, carried at least once by a durable cursor ([`Carrier`]).
//!
//! | key | value |
//! |---|---|
//! | `(slot, HEADER)` | [`antiphon_proto::log::Header`]: epoch, last index, owner's fencing token, last batch id, trim point, cursor of the courier |
//! | `(slot, LOG, index)` | [`antiphon_proto::log::Entry`]: one committed batch |

#![forbid(unsafe_code)]

mod batch;
mod command;
mod copy;
mod courier;
mod error;
mod keys;
mod lease;
mod node;
mod observer;
mod opening;
mod options;
mod owners;
pub mod protocol;
mod read;
mod replica;
mod replica_copy;
mod runtime;
mod signals;
mod slots;
mod txn;
mod writer;

pub use command::Committed;
pub use error::SlotError;
pub use keys::slot_range;
pub use lease::Lease;
pub use node::Hooks;
pub use observer::{Carrier, CarryError, CommitObserver, CommittedEntry, Shipping};
pub use options::SlotOptions;
pub use read::SlotRead;
pub use replica::{Bounds, ReplicaLog};
pub use slots::{Opening, Slots};
pub use txn::SlotTxn;
