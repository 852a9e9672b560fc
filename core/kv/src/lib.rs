//! The ordered, transactional key-value port, with FoundationDB's semantics whatever the engine underneath.
//!
//! # Contract
//! - Transactions are strictly serializable and optimistic: reads come from one snapshot, writes are buffered, the commit
//!   fails with [`KvError::Conflict`] when anything that was read has changed since. [`Kv::transact`] reruns the body.
//! - A transaction reads its own writes.
//! - A commit that was answered is durable: it survives kill -9 and a power cut. Nobody reads what is not durable yet.
//! - [`Txn::snapshot_get`] and [`Txn::snapshot_range`] read from the same snapshot without taking part in conflicts.
//! - Atomic operations do not conflict with each other.
//! - Limits belong to the port, not to the engine ([`Limits`]). Keys are not empty.
//!
//! [`contract`] holds the suite that every engine passes; [`engine`] is what an engine implements.

#![forbid(unsafe_code)]

pub mod contract;
mod embedded;
pub mod engine;
mod error;
mod faults;
mod kv;
mod limits;
mod meters;
mod range;
mod txn;
mod write;

pub use embedded::EmbeddedOptions;
pub use error::KvError;
pub use faults::{CommitFault, Faults};
pub use kv::{Kv, Watch};
pub use limits::Limits;
pub use range::{KvPair, Page, RangeRead};
pub use txn::Txn;
