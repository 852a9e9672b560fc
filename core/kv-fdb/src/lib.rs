//! The FoundationDB engine of the key-value port: the only crate that links FoundationDB's client library.
//!
//! # What is where
//! - Stores share a cluster by prefix ([`FdbOptions::prefix`]): no key of one store is a key of another.
//! - The port buffers writes and remembers reads. So everything is read from FoundationDB as a snapshot at one version, and the
//!   commit is a transaction of its own at that version, with the conflict ranges of what was read.
//! - No call waits for a cluster without a bound ([`FdbOptions::step_timeout`]). A commit that was cut off by it has an unknown result.
//! - While the cluster is known not to answer, transactions are refused at once ([`antiphon_kv::KvError::Unavailable`]); a task asks
//!   it all the time, and all goes on by itself when it answers again.
//! - The client library has one network thread, which can be started once in a process. The first [`open`] starts it, [`stop`] ends it:
//!   a program calls that before it ends.

#![deny(unsafe_code)]

mod availability;
mod engine;
mod errors;
mod network;
mod options;
mod prefix;
mod snapshot;
mod watches;

use std::sync::Arc;

use antiphon_kv::{Kv, KvError, Limits};

pub use network::stop;
pub use options::{ClientOptions, FdbOptions, TlsFiles};

/// Opens the store of a prefix. Does not wait for a cluster that does not answer: the store's health tells.
///
/// The prefix is part of each key, so that keys may be shorter by its length than the port's limit says.
///
/// # Errors
/// [`KvError::Io`] when the client cannot be started with these options, or the cluster file cannot be read; both are named.
pub async fn open(options: FdbOptions) -> Result<Kv, KvError> {
    let engine = engine::Fdb::open(&options).await?;
    let limits = Limits::default();
    let key_bytes_max = limits.key_bytes_max.saturating_sub(engine.prefix_len());
    Ok(Kv::over(Arc::new(engine)).with_limits(Limits {
        key_bytes_max,
        ..limits
    }))
}
