//! Vote, log and state of one voter in an embedded store of their own.
//!
//! # Keys
//! | key | value |
//! |---|---|
//! | `i` | who this store belongs to: [`Identity`] |
//! | `k` peer (8 bytes, big endian) | identity of that peer's store, taken at the first answer |
//! | `n` | how often a node was started on this store |
//! | `v` | the vote |
//! | `p` | log id up to which the log is purged |
//! | `l` index (8 bytes, big endian) part (2 bytes, big endian) | one part of an entry: `1` and more follows, `0` and the last |
//! | `s` | what was applied last, the membership, and the state without its placements |
//! | `t` chunk (1 byte) | 64 placements, in slot order |
//!
//! All values are MessagePack. The port's commits are on disk when they return, which is what openraft asks of a vote, of entries
//! before their callback, and of a state machine that has no need of stored snapshots.

mod identity;
mod log;
mod machine;
mod starts;
mod state;

use std::{io, path::Path};

use antiphon_kv::{EmbeddedOptions, Kv, KvError, Limits};
use bytes::Bytes;

pub(crate) use identity::{Identity, known_peers, remember_peer};
pub(crate) use log::LogStore;
pub(crate) use machine::{Answer, Machine, table_of};
pub(crate) use starts::count_start;
pub(crate) use state::{Changes, Image, changed};

/// Bytes of the block cache: everything that is read again is in memory anyway.
const CACHE_BYTES: u64 = 8 << 20;

/// Bytes of entries that one transaction writes.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Bytes that a transaction may write. A command may change every placement, and the state is written whole or not at all: an entry
/// that cannot be written would stop every voter, and at each start again. No other engine than the embedded one is ever underneath,
/// and that one sets no limit.
const TRANSACTION_BYTES_MAX: usize = 16 << 20;

/// Opens the store of a voter.
pub(crate) async fn open(folder: &Path) -> Result<Kv, KvError> {
    let kv = Kv::open_embedded(EmbeddedOptions {
        path: folder.to_path_buf(),
        cache_bytes: CACHE_BYTES,
        ..EmbeddedOptions::default()
    });
    kv.await.map(with_limits)
}

/// The store with room for a change of every placement.
pub(crate) fn with_limits(kv: Kv) -> Kv {
    kv.with_limits(Limits {
        transaction_bytes_max: TRANSACTION_BYTES_MAX,
        ..Limits::default()
    })
}

fn failed(error: KvError) -> io::Error {
    io::Error::other(error)
}

async fn read(kv: &Kv, key: &'static [u8]) -> Result<Option<Bytes>, KvError> {
    kv.transact(|txn| async move { txn.snapshot_get(key).await }).await
}

async fn write(kv: &Kv, key: &'static [u8], value: Bytes) -> Result<(), KvError> {
    let value = &value;
    kv.transact(|txn| async move {
        txn.set(key, value.clone());
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use openraft::{
        StorageError,
        testing::log::{StoreBuilder, Suite},
    };
    use tempfile::TempDir;

    use super::*;
    use crate::raft::Types;

    struct Folders;

    impl StoreBuilder<Types, LogStore, Machine, TempDir> for Folders {
        async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
            let folder = tempfile::tempdir().unwrap();
            let kv = open(folder.path()).await.unwrap();
            let (machine, ..) = Machine::open(kv.clone()).await.unwrap();
            Ok((folder, LogStore::new(kv), machine))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openrafts_own_suite_passes() {
        Suite::test_all(Folders).await.unwrap();
    }
}
