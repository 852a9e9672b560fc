//! A slot's log as a region keeps it that is not the slot's home: stored at once, applied up to the high watermark.

use antiphon_kv::{Kv, KvError, KvPair, RangeRead, Txn};
use antiphon_proto::log::{Entry, Header, Undo, Write};
use antiphon_types::{
    Epoch, LogIndex, Slot,
    sabotage::{self, Rule},
};
use bytes::Bytes;
use futures_util::future::try_join_all;
use prost::Message as _;

use crate::{
    SlotError,
    batch::{BatchError, read_header},
    keys,
    protocol::{forget_epochs, wrote_from},
};

/// Entries of one transaction: with the write sets that they hold they stay below the port's limit.
pub(crate) const TRANSACTION_BYTES_MAX: usize = 400_000;
/// Entries read at once.
pub(crate) const PAGE_LEN: usize = 64;
/// Entries are trimmed in runs, so that trimming costs little per append.
const TRIM_RUN: u64 = 64;

/// The replicas' end of the slots in one store. Cheap to clone.
///
/// Every change reads the header and names the epoch it is made under: once a higher one was promised, nothing of a lower one is
/// stored any more. What drops anything names the log too that it was decided on: two nodes of a region may for a moment both follow
/// a slot into the store that they share, and what one has said to hold stays.
#[derive(Clone)]
pub struct ReplicaLog {
    kv: Kv,
}

/// What a home says of its log beside the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Entries below are trimmed at home.
    pub first_index: LogIndex,
    /// The home's cursor of what is carried to other slots.
    pub carried_index: LogIndex,
    /// The highest index that every in-sync region holds.
    pub high_watermark: LogIndex,
}

impl ReplicaLog {
    /// Over the store of this node.
    #[must_use]
    pub const fn new(kv: Kv) -> Self {
        Self { kv }
    }

    /// What is stored of the slot; an empty log begins at index 1.
    ///
    /// # Errors
    /// [`SlotError`] when the store fails.
    pub async fn header(&self, slot: Slot) -> Result<Header, SlotError> {
        self.transact(slot, |_, header| async move { Ok(header) }).await
    }

    /// Stores that nothing below `epoch` is taken any more, and takes the slot from whoever wrote it here.
    ///
    /// # Errors
    /// [`SlotError::NotHome`] when a higher epoch was promised before; else the store's.
    pub async fn promise(&self, slot: Slot, epoch: Epoch) -> Result<Header, SlotError> {
        let promised = self.transact(slot, |txn, mut header| async move {
            if header.epoch > epoch {
                return Err(promised_higher(slot, &header));
            }
            if header.epoch < epoch || !header.owner.is_empty() {
                (header.epoch, header.owner, header.opening) = (epoch, Bytes::new(), 0);
                txn.set(keys::header(slot), header.encode_to_vec());
            }
            Ok(header)
        });
        promised.await
    }

    /// Stores entries that follow `prev`, and applies what the high watermark has passed.
    ///
    /// # Errors
    /// [`SlotError::NotHome`] under another epoch than the promised one, [`SlotError::Stale`] when `prev` is not the end of the
    /// log; else the store's.
    pub async fn append(
        &self,
        slot: Slot,
        epoch: Epoch,
        prev: LogIndex,
        entries: &[Entry],
        bounds: Bounds,
    ) -> Result<Header, SlotError> {
        let (mut rest, mut prev) = (entries, prev);
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(fitting(rest));
            let header = self.append_chunk(slot, epoch, prev, chunk, bounds).await?;
            if more.is_empty() && header.applied_index == applicable(&header) {
                return Ok(header);
            }
            (rest, prev) = (more, header.last_index);
        }
        self.apply_to(slot, epoch, bounds).await
    }

    async fn append_chunk(
        &self,
        slot: Slot,
        epoch: Epoch,
        prev: LogIndex,
        chunk: &[Entry],
        bounds: Bounds,
    ) -> Result<Header, SlotError> {
        let chunk_bytes: usize = chunk.iter().map(Entry::encoded_len).sum();
        let appended = self.transact(slot, |txn, mut header| async move {
            expect_epoch(slot, epoch, &header)?;
            if header.last_index != prev || header.copying {
                let (expected, found) = (prev, header.last_index);
                return Err(SlotError::Stale { slot, expected, found });
            }
            header.high_watermark = header.high_watermark.max(bounds.high_watermark);
            // One commit for both where a page of what waits for the high watermark is certain to fit.
            if chunk_bytes <= TRANSACTION_BYTES_MAX / 2 {
                apply_page(&txn, slot, &mut header).await?;
            }
            for entry in chunk {
                if entry.index != header.last_index + 1 {
                    let (expected, found) = (header.last_index + 1, entry.index);
                    return Err(SlotError::Stale { slot, expected, found });
                }
                txn.set(keys::log(slot, entry.index), entry.encode_to_vec());
                if header.applied_index + 1 == entry.index && entry.index <= header.high_watermark {
                    write_set(&txn, entry);
                    header.applied_index = entry.index;
                }
                wrote_from(&mut header.epochs, entry.epoch, entry.index);
                header.last_index = entry.index;
                header.last_batch_id = entry.batch_id.clone();
            }
            trim(&txn, slot, &mut header, bounds);
            trim_undo(&txn, slot, &mut header);
            txn.set(keys::header(slot), header.encode_to_vec());
            Ok(header)
        });
        appended.await
    }

    /// Applies write sets up to the high watermark.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`].
    pub async fn apply_to(&self, slot: Slot, epoch: Epoch, bounds: Bounds) -> Result<Header, SlotError> {
        loop {
            let applied = self.transact(slot, |txn, mut header| async move {
                expect_epoch(slot, epoch, &header)?;
                let known = header.clone();
                header.high_watermark = header.high_watermark.max(bounds.high_watermark);
                apply_page(&txn, slot, &mut header).await?;
                trim(&txn, slot, &mut header, bounds);
                if header.applied_index != known.applied_index || header.first_index != known.first_index {
                    txn.set(keys::header(slot), header.encode_to_vec());
                }
                Ok(header)
            });
            let header = applied.await?;
            if header.applied_index >= applicable(&header) {
                return Ok(header);
            }
        }
    }

    /// Cuts the log behind `keep`, and takes back what cut entries had written. They are kept aside until
    /// [`ReplicaLog::forget_cut`], so that their messages can be proposed again.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`]; [`SlotError::Stale`] when the log is not `known` any more; [`SlotError::Corrupt`] when what a cut entry
    /// has overwritten is not known: take a copy then.
    pub async fn cut(&self, slot: Slot, epoch: Epoch, known: &Header, keep: LogIndex) -> Result<Header, SlotError> {
        let mut known = known.clone();
        loop {
            let expected = &known;
            let cut = self.transact(slot, |txn, mut header| async move {
                expect_epoch(slot, epoch, &header)?;
                expect_log(slot, expected, &header)?;
                if header.last_index <= keep {
                    return Ok((header, true));
                }
                // What came with a copy is no part of the log, and cannot be taken back.
                if keep + 1 < header.first_index {
                    return Err(SlotError::Corrupt {
                        what: format!("the log of {slot:?} behind {keep}"),
                        reason: format!("it begins at {}", header.first_index),
                    });
                }
                // From the end, so that the log has no hole whenever this stops. A page may hold less than was asked for.
                let range = RangeRead {
                    reverse: true,
                    ..between(keys::log(slot, keep + 1), keys::log(slot, LogIndex::MAX), PAGE_LEN)
                };
                let mut start = keep + 1;
                for entry in decoded(slot, txn.snapshot_range(range).await?.pairs)? {
                    start = entry.index;
                    if start <= header.applied_index {
                        take_back(&txn, slot, start).await?;
                    }
                    txn.set(keys::cut(slot, start), entry.encode_to_vec());
                    txn.clear(keys::log(slot, start));
                }
                header.last_index = start - 1;
                header.applied_index = header.applied_index.min(header.last_index);
                header.high_watermark = header.high_watermark.min(header.last_index);
                header.carried_index = header.carried_index.min(header.last_index);
                header.epochs.retain(|started| started.first_index < start);
                header.last_batch_id = match entries(&txn, slot, start - 1, start - 1, 1).await?.pop() {
                    Some(entry) => entry.batch_id,
                    None => Bytes::new(),
                };
                txn.set(keys::header(slot), header.encode_to_vec());
                Ok((header, start == keep + 1))
            });
            let (header, is_done) = cut.await?;
            if is_done {
                return Ok(header);
            }
            known = header;
        }
    }

    /// The first entries that were cut and not forgotten yet, in the order of the log; empty when there are none.
    ///
    /// # Errors
    /// [`SlotError`] when the store fails.
    pub async fn cut_entries(&self, slot: Slot) -> Result<Vec<Entry>, SlotError> {
        let page = self.transact(slot, |txn, _| async move {
            let range = between(keys::cut(slot, 0), keys::cut(slot, LogIndex::MAX), PAGE_LEN);
            decoded(slot, txn.snapshot_range(range).await?.pairs)
        });
        page.await
    }

    /// Forgets the cut entry at `index`: its messages were proposed again.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`].
    pub async fn forget_cut(&self, slot: Slot, epoch: Epoch, index: LogIndex) -> Result<(), SlotError> {
        let cleared = self.transact(slot, |txn, header| async move {
            expect_epoch(slot, epoch, &header)?;
            txn.clear(keys::cut(slot, index));
            Ok(())
        });
        cleared.await
    }

    /// Entries of the log from `from` to `to`, encoded as they are stored, up to about `bytes_max`; at least one that is there.
    ///
    /// # Errors
    /// [`SlotError`] when the store fails.
    pub async fn entries(
        &self,
        slot: Slot,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, SlotError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max && from + (found.len() as u64) <= to {
            let start = keys::log(slot, from + found.len() as u64);
            let page = self.transact(slot, |txn, _| {
                let range = between(start.clone(), keys::log(slot, to.saturating_add(1)), PAGE_LEN);
                async move { Ok(txn.snapshot_range(range).await?.pairs) }
            });
            let page = page.await?;
            if page.is_empty() {
                break;
            }
            for pair in page {
                if bytes >= bytes_max {
                    break;
                }
                bytes += pair.value.len();
                found.push(pair.value);
            }
        }
        Ok(found)
    }

    /// Reads the header in a transaction and hands both to `body`.
    pub(crate) async fn transact<T, Fut>(
        &self,
        slot: Slot,
        body: impl Fn(Txn, Header) -> Fut + Send + Sync,
    ) -> Result<T, SlotError>
    where
        T: Send,
        Fut: Future<Output = Result<T, SlotError>> + Send,
    {
        let result = self.kv.transact(|txn| {
            let body = &body;
            async move {
                let header = read_header(&txn, slot).await.map_err(unfenced)?;
                let header = header.unwrap_or_else(|| Header {
                    first_index: 1,
                    ..Header::default()
                });
                body(txn, header).await
            }
        });
        result.await
    }
}

/// Reading the header judges nothing, so it fences nobody.
fn unfenced(error: BatchError) -> SlotError {
    match error {
        BatchError::Kv(error) => SlotError::Kv(error),
        BatchError::Slot(error) => error,
        BatchError::Fenced(_) => SlotError::Kv(KvError::Conflict),
    }
}

pub(crate) fn expect_epoch(slot: Slot, epoch: Epoch, header: &Header) -> Result<(), SlotError> {
    let is_newer = header.epoch > epoch && sabotage::is_broken(Rule::OlderEpochsAreRefused);
    if header.epoch == epoch && header.owner.is_empty() || is_newer {
        return Ok(());
    }
    Err(promised_higher(slot, header))
}

/// Whether the log is the one that the caller knows: by its end, whose batch nobody else has written.
pub(crate) fn expect_log(slot: Slot, known: &Header, header: &Header) -> Result<(), SlotError> {
    let is_known = header.last_index == known.last_index
        && header.last_batch_id == known.last_batch_id
        && (header.copying, header.copy) == (known.copying, known.copy);
    if is_known {
        return Ok(());
    }
    let (expected, found) = (known.last_index, header.last_index);
    Err(SlotError::Stale { slot, expected, found })
}

const fn promised_higher(slot: Slot, header: &Header) -> SlotError {
    SlotError::NotHome {
        slot,
        epoch: header.epoch,
    }
}

/// How many entries from the front fit into one transaction; at least one.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += entry.encoded_len();
        bytes <= TRANSACTION_BYTES_MAX
    });
    fitting.count().max(1)
}

/// What the keys of an entry hold, to be put back should the entry be cut.
pub(crate) async fn before(txn: &Txn, entry: &Entry) -> Result<Undo, KvError> {
    let held = entry.writes.iter().map(|write| async {
        let (key, value) = (write.key.clone(), txn.snapshot_get(&write.key).await?);
        Ok::<_, KvError>(Write { key, value })
    });
    Ok(Undo {
        before: try_join_all(held).await?,
    })
}

pub(crate) fn write_set(txn: &Txn, entry: &Entry) {
    apply(txn, &entry.writes);
}

pub(crate) fn apply(txn: &Txn, writes: &[Write]) {
    for write in writes {
        match &write.value {
            Some(value) => txn.set(write.key.clone(), value.clone()),
            None => txn.clear(write.key.clone()),
        }
    }
}

/// Up to where write sets may be applied.
fn applicable(header: &Header) -> LogIndex {
    header.last_index.min(header.high_watermark)
}

/// Applies the next write sets that the high watermark has passed, as many as one read brings.
async fn apply_page(txn: &Txn, slot: Slot, header: &mut Header) -> Result<(), SlotError> {
    let end = applicable(header);
    if header.applied_index < end {
        for entry in entries(txn, slot, header.applied_index + 1, end, PAGE_LEN).await? {
            write_set(txn, &entry);
            header.applied_index = entry.index;
        }
    }
    Ok(())
}

/// Puts back what the entry at `index` has overwritten.
async fn take_back(txn: &Txn, slot: Slot, index: LogIndex) -> Result<(), SlotError> {
    let key = keys::undo(slot, index);
    let Some(stored) = txn.get(&key).await? else {
        let what = format!("the undo record of entry {index} of {slot:?}");
        let reason = "it is not there".to_owned();
        return Err(SlotError::Corrupt { what, reason });
    };
    let undo = Undo::decode(stored).map_err(|error| SlotError::corrupt("an undo record", &error))?;
    apply(txn, &undo.before);
    txn.clear(key);
    Ok(())
}

/// Follows the home's trimming as far as write sets are applied.
fn trim(txn: &Txn, slot: Slot, header: &mut Header, bounds: Bounds) {
    header.carried_index = header.carried_index.max(bounds.carried_index.min(header.last_index));
    let first_index = bounds.first_index.min(header.applied_index + 1);
    if first_index < header.first_index + TRIM_RUN {
        return;
    }
    txn.clear_range(keys::log(slot, header.first_index), keys::log(slot, first_index));
    header.first_index = first_index;
    forget_epochs(&mut header.epochs, first_index);
}

/// Forgets what committed entries had overwritten when this region was home.
fn trim_undo(txn: &Txn, slot: Slot, header: &mut Header) {
    let end = header.high_watermark.min(header.applied_index) + 1;
    if header.undo_first_index > 0 && header.undo_first_index < end {
        txn.clear_range(keys::undo(slot, header.undo_first_index), keys::undo(slot, end));
        header.undo_first_index = if end > header.applied_index { 0 } else { end };
    }
}

async fn entries(txn: &Txn, slot: Slot, from: LogIndex, to: LogIndex, limit: usize) -> Result<Vec<Entry>, SlotError> {
    let range = between(keys::log(slot, from), keys::log(slot, to.saturating_add(1)), limit);
    decoded(slot, txn.snapshot_range(range).await?.pairs)
}

pub(crate) fn between(start: Bytes, end: Bytes, limit: usize) -> RangeRead {
    RangeRead {
        start,
        end,
        limit,
        reverse: false,
    }
}

pub(crate) fn decoded(slot: Slot, pairs: Vec<KvPair>) -> Result<Vec<Entry>, SlotError> {
    let decode =
        |value| Entry::decode(value).map_err(|error| SlotError::corrupt(format!("the log of {slot:?}"), &error));
    pairs.into_iter().map(|pair| decode(pair.value)).collect()
}
