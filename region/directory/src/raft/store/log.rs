use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
};

use antiphon_kv::{Kv, KvError, RangeRead};
use bytes::{Bytes, BytesMut};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use super::{BATCH_BYTES_MAX, failed, read, write};
use crate::raft::{
    Entry, LogId, Types, Vote,
    codec::{decode, encode},
};

const VOTE: &[u8] = b"v";
const PURGED: &[u8] = b"p";
const ENTRY: u8 = b'l';

/// Bytes of a part of an entry, under the port's limit of a value.
const PART_BYTES_MAX: usize = 64 << 10;

/// Bytes of entries that are read for one append to a follower.
const READ_BYTES_MAX: usize = 256 << 10;

/// Pairs of a page.
const PAGE_PAIRS_MAX: usize = 1_000;

const MORE: u8 = 1;
const LAST: u8 = 0;

/// The vote and the log. openraft calls it for one write after another.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    kv: Kv,
}

impl LogStore {
    pub(crate) fn new(kv: Kv) -> Self {
        Self { kv }
    }

    /// Entries from `start` (inclusive) to `end` (exclusive), and no further once they have reached `bytes_max` bytes.
    async fn entries(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut read_bytes = 0;
        let mut parts = BytesMut::new();
        let mut from = entry_key(start, 0);
        loop {
            let page = self
                .page(from.clone(), entry_key(end, 0), PAGE_PAIRS_MAX, false)
                .await?;
            for pair in &page.pairs {
                read_bytes += pair.value.len();
                let (flag, part) = pair.value.split_first().ok_or_else(|| damaged(&pair.key))?;
                parts.extend_from_slice(part);
                if *flag == MORE {
                    continue;
                }
                entries.push(decode("an entry", &parts.split())?);
                if read_bytes >= bytes_max {
                    return Ok(entries);
                }
            }
            match page.pairs.last() {
                Some(pair) if page.more => from = after(&pair.key),
                Some(_) | None => break,
            }
        }
        if !parts.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the log's last entry lacks a part",
            ));
        }
        Ok(entries)
    }

    async fn page(&self, start: Bytes, end: Bytes, limit: usize, reverse: bool) -> io::Result<antiphon_kv::Page> {
        let range = RangeRead {
            start,
            end,
            limit,
            reverse,
        };
        let range = &range;
        self.kv
            .transact(|txn| async move { txn.snapshot_range(range.clone()).await })
            .await
            .map_err(failed)
    }

    async fn last_index(&self) -> io::Result<Option<u64>> {
        let page = self.page(vec![ENTRY].into(), vec![ENTRY + 1].into(), 1, true).await?;
        page.pairs.first().map(|pair| index_of(&pair.key)).transpose()
    }

    async fn purged(&self) -> io::Result<Option<LogId>> {
        let bytes = read(&self.kv, PURGED).await.map_err(failed)?;
        Ok(bytes.map(|bytes| decode("the purge's log id", &bytes)).transpose()?)
    }

    async fn write_parts(&self, parts: &[(Bytes, Bytes)]) -> io::Result<()> {
        self.kv
            .transact(|txn| async move {
                for (key, value) in parts {
                    txn.set(key.clone(), value.clone());
                }
                Ok::<_, KvError>(())
            })
            .await
            .map_err(failed)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, READ_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let bytes = read(&self.kv, VOTE).await.map_err(failed)?;
        Ok(bytes.map(|bytes| decode("the vote", &bytes)).transpose()?)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_purged_log_id = self.purged().await?;
        let last = match self.last_index().await? {
            Some(index) => self.entries(index, index + 1, usize::MAX).await?.pop(),
            None => None,
        };
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        write(&self.kv, VOTE, encode("the vote", vote)?).await.map_err(failed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // In several transactions if need be, in order: a crash between them leaves a shorter log and no hole.
        let mut parts = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let encoded = encode("an entry", &entry)?;
            if bytes + encoded.len() > BATCH_BYTES_MAX && !parts.is_empty() {
                self.write_parts(&parts).await?;
                parts.clear();
                bytes = 0;
            }
            bytes += encoded.len();
            split(entry.log_id.index(), &encoded, &mut parts)?;
        }
        self.write_parts(&parts).await?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let start = entry_key(last_log_id.map_or(0, |log_id| log_id.index() + 1), 0);
        let start = &start;
        self.kv
            .transact(|txn| async move {
                txn.clear_range(start.clone(), vec![ENTRY + 1]);
                Ok(())
            })
            .await
            .map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let purged = encode("the purge's log id", &log_id)?;
        let (purged, end) = (&purged, &entry_key(log_id.index() + 1, 0));
        self.kv
            .transact(|txn| async move {
                txn.set(PURGED, purged.clone());
                txn.clear_range(entry_key(0, 0), end.clone());
                Ok(())
            })
            .await
            .map_err(failed)
    }
}

/// One entry as the pairs that are stored.
fn split(index: u64, encoded: &Bytes, parts: &mut Vec<(Bytes, Bytes)>) -> io::Result<()> {
    let count = encoded.len().div_ceil(PART_BYTES_MAX);
    for (number, part) in encoded.chunks(PART_BYTES_MAX).enumerate() {
        let key_part = u16::try_from(number).map_err(|_| io::Error::other("an entry has too many parts"))?;
        let mut value = BytesMut::with_capacity(1 + part.len());
        value.extend_from_slice(&[if number + 1 == count { LAST } else { MORE }]);
        value.extend_from_slice(part);
        parts.push((entry_key(index, key_part), value.freeze()));
    }
    Ok(())
}

fn entry_key(index: u64, part: u16) -> Bytes {
    let mut key = BytesMut::with_capacity(11);
    key.extend_from_slice(&[ENTRY]);
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key.freeze()
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    let index = key.get(1..9).and_then(|index| index.try_into().ok());
    index.map(u64::from_be_bytes).ok_or_else(|| damaged(key))
}

fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::from(key);
    next.extend_from_slice(&[0]);
    next.freeze()
}

fn damaged(key: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log is damaged at key {key:?}"))
}

#[cfg(test)]
mod tests {
    use antiphon_kv::CommitFault;
    use openraft::{
        EntryPayload, LogId as AnyLogId,
        storage::RaftLogStorageExt as _,
        type_config::TypeConfigExt as _,
        vote::{RaftLeaderId as _, leader_id_adv::CommittedLeaderId},
    };

    use super::*;
    use crate::{
        domain::Command,
        raft::{Proposal, store::open},
    };

    fn entry(index: u64, moves: u16) -> Entry {
        let moves = (0..moves)
            .map(|number| (antiphon_types::Slot::new(number % 4_096).unwrap(), 1, None))
            .collect();
        Entry {
            log_id: AnyLogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Normal(Proposal(Command::Plan { moves })),
        }
    }

    #[tokio::test]
    async fn an_entry_larger_than_a_value_survives_a_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let kv = open(folder.path()).await.unwrap();
        let mut log = LogStore::new(kv.clone());
        // Parts of one entry, and entries that do not fit into one transaction.
        let many: Vec<_> = (0..20)
            .map(|index| entry(index, if index % 2 == 0 { 40_000 } else { 1 }))
            .collect();
        let one = encode("an entry", &many[0]).unwrap();
        assert!(
            one.len() > PART_BYTES_MAX && one.len() * 10 > BATCH_BYTES_MAX,
            "{}",
            one.len()
        );
        log.blocking_append(many.clone()).await.unwrap();
        kv.close().await.unwrap();

        let kv = open(folder.path()).await.unwrap();
        let mut log = LogStore::new(kv);
        assert_eq!(log.try_get_log_entries(0..20).await.unwrap(), many);
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(many[19].log_id));
        let limited = log.limited_get_log_entries(0, 20).await.unwrap();
        assert!(!limited.is_empty() && limited.len() < 20, "{}", limited.len());
        assert_eq!(limited, many[..limited.len()]);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_not_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let faults = antiphon_kv::Faults::default();
        let kv = open(folder.path()).await.unwrap().with_faults(faults.clone());
        let mut log = LogStore::new(kv);
        let full = || CommitFault::Before(KvError::Io("the disk is full".to_owned()));

        faults.add(full());
        let (flushed, acknowledged) = Types::oneshot();
        let appended = log.append([entry(0, 1)], IOFlushed::signal(flushed)).await;
        assert!(appended.is_err());
        assert!(!matches!(acknowledged.await, Ok(Ok(()))));
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, None);

        faults.add(full());
        assert!(log.save_vote(&Vote::new(3, 1)).await.is_err());
        assert_eq!(log.read_vote().await.unwrap(), None);
    }
}
