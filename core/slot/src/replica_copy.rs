//! A copy of a whole slot, where it is taken.

use antiphon_proto::log::{EpochStart, Header, Write};
use antiphon_types::{Epoch, LogIndex, Slot};
use prost::Message as _;
use rand::random;

use crate::{
    ReplicaLog, SlotError, keys,
    protocol::undo_first_index,
    replica::{PAGE_LEN, TRANSACTION_BYTES_MAX, apply, between, decoded, expect_epoch, expect_log},
};

impl ReplicaLog {
    /// Stores a page of the copy that [`ReplicaLog::begin_copy`] has named so.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`]; [`SlotError::Stale`] when another copy was begun since; [`SlotError::ForeignKey`] for a key that is not
    /// the slot's.
    pub async fn put(&self, slot: Slot, epoch: Epoch, copy: u64, pairs: &[Write]) -> Result<(), SlotError> {
        let mut rest = pairs;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|write| {
                bytes += write.encoded_len();
                bytes <= TRANSACTION_BYTES_MAX
            });
            let (chunk, more) = rest.split_at(fitting.count().max(1));
            let put = self.transact(slot, |txn, header| async move {
                expect_epoch(slot, epoch, &header)?;
                if !chunk.iter().all(|write| keys::is_service_key(slot, &write.key)) {
                    return Err(SlotError::ForeignKey { slot });
                }
                expect_copy(slot, copy, &header)?;
                apply(&txn, chunk);
                Ok(())
            });
            put.await?;
            rest = more;
        }
        Ok(())
    }

    /// Begins a copy of the whole slot: what is stored is dropped, and counts as nothing until [`ReplicaLog::copied`]. Entries that are
    /// not known to be with others are kept aside as those of a cut are. The header names the copy.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`]; [`SlotError::Stale`] when the log is not `known` any more.
    pub async fn begin_copy(&self, slot: Slot, epoch: Epoch, known: &Header) -> Result<Header, SlotError> {
        let copy = random();
        let known = &self.put_aside(slot, epoch, known.clone(), copy).await?;
        let begun = self.transact(slot, |txn, header| async move {
            expect_epoch(slot, epoch, &header)?;
            expect_log(slot, known, &header)?;
            let (start, end) = keys::services(slot);
            txn.clear_range(start, end);
            txn.clear_range(keys::log(slot, 0), keys::log(slot, LogIndex::MAX));
            txn.clear_range(keys::undo(slot, 0), keys::undo(slot, LogIndex::MAX));
            let header = Header {
                epoch,
                first_index: 1,
                copying: true,
                copy,
                ..Header::default()
            };
            txn.set(keys::header(slot), header.encode_to_vec());
            Ok(header)
        });
        begun.await
    }

    /// Moves the end of the log that is not known to be with others among the cut entries. From the first on the slot counts as
    /// nothing: its log has a hole. Returns the header then.
    async fn put_aside(&self, slot: Slot, epoch: Epoch, mut known: Header, copy: u64) -> Result<Header, SlotError> {
        loop {
            let expected = &known;
            let moved = self.transact(slot, |txn, mut header| async move {
                expect_epoch(slot, epoch, &header)?;
                expect_log(slot, expected, &header)?;
                let from = undo_first_index(&header);
                let range = between(keys::log(slot, from), keys::log(slot, LogIndex::MAX), PAGE_LEN);
                let page = decoded(slot, txn.snapshot_range(range).await?.pairs)?;
                if page.is_empty() {
                    return Ok((header, true));
                }
                for entry in &page {
                    txn.set(keys::cut(slot, entry.index), entry.encode_to_vec());
                    txn.clear(keys::log(slot, entry.index));
                }
                (header.copying, header.copy) = (true, copy);
                txn.set(keys::header(slot), header.encode_to_vec());
                Ok((header, false))
            });
            let (header, is_done) = moved.await?;
            if is_done {
                return Ok(header);
            }
            known = header;
        }
    }

    /// Ends a copy that began when the home's log ended at `last_index`: entries after it are to be applied on top.
    ///
    /// # Errors
    /// As [`ReplicaLog::append`]; [`SlotError::Stale`] when another copy was begun since.
    pub async fn copied(
        &self,
        slot: Slot,
        epoch: Epoch,
        copy: u64,
        (last_index, carried_index): (LogIndex, LogIndex),
        epochs: Vec<EpochStart>,
    ) -> Result<Header, SlotError> {
        let copied = self.transact(slot, |txn, header| {
            let epochs = epochs.clone();
            async move {
                expect_epoch(slot, epoch, &header)?;
                expect_copy(slot, copy, &header)?;
                let header = Header {
                    epoch,
                    last_index,
                    first_index: last_index + 1,
                    carried_index,
                    epochs,
                    applied_index: last_index,
                    high_watermark: last_index,
                    ..Header::default()
                };
                txn.set(keys::header(slot), header.encode_to_vec());
                Ok(header)
            }
        });
        copied.await
    }
}

const fn expect_copy(slot: Slot, copy: u64, header: &Header) -> Result<(), SlotError> {
    if header.copying && header.copy == copy {
        return Ok(());
    }
    let (expected, found) = (0, header.last_index);
    Err(SlotError::Stale { slot, expected, found })
}
