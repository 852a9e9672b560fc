//! One batch: the commands that go into one transaction, and what became of them.

use std::sync::Arc;

use antiphon_kv::{KvError, Txn};
use antiphon_proto::log::{Entry, Header};
use antiphon_types::{LogIndex, Slot};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use prost::Message as _;

use crate::{
    CommittedEntry, SlotError, SlotTxn,
    command::Command,
    keys,
    protocol::{Fenced, Proposal, Protocol, Verdict},
    replica::{before, write_set},
    txn::Kept,
};

/// How the transaction of a batch ended.
pub(crate) enum Outcome {
    /// The entry is in the log.
    Committed(Attempt),
    /// An earlier attempt of unknown result is in the log.
    AlreadyCommitted,
}

/// Why it did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("the slot was taken over")]
    Fenced(Fenced),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Slot(#[from] SlotError),
}

/// What one run of the commands has made.
#[derive(Default)]
pub(crate) struct Attempt {
    /// The entry; none when no command wrote anything.
    pub(crate) entry: Option<CommittedEntry>,
    /// How many of the commands are part of it; the rest belongs to the next batch.
    pub(crate) taken: usize,
}

/// Reads the header inside a transaction, with conflict: this read is the fence.
pub(crate) async fn read_header(txn: &Txn, slot: Slot) -> Result<Option<Header>, BatchError> {
    let Some(value) = txn.get(&keys::header(slot)).await? else {
        return Ok(None);
    };
    Ok(Some(decode_header(slot, &value)?))
}

pub(crate) fn decode_header(slot: Slot, value: &[u8]) -> Result<Header, SlotError> {
    Header::decode(value).map_err(|error| SlotError::corrupt(format!("the header of {slot:?}"), &error))
}

/// Has the store read what the commands will read, all of it at once: each runs on the snapshot alone, and what it does is forgotten.
/// When they run in their turn, the most of that is at hand.
async fn rehearse(slot: Slot, index: LogIndex, txn: &Txn, commands: &[Arc<dyn Command>]) {
    let rehearsals = commands
        .iter()
        .map(|command| command.rehearse(SlotTxn::new(slot, index, txn.clone())));
    join_all(rehearsals).await;
}

/// Runs one attempt of a batch inside `txn`.
pub(crate) async fn attempt(
    slot: Slot,
    txn: Txn,
    protocol: &Protocol,
    proposal: &Proposal,
    commands: &[Arc<dyn Command>],
    entry_bytes_max: usize,
) -> Result<Outcome, BatchError> {
    let header = if txn.is_remote() {
        join(read_header(&txn, slot), rehearse(slot, proposal.index, &txn, commands))
            .await
            .0
    } else {
        read_header(&txn, slot).await
    };
    match protocol.verdict(header?.as_ref()) {
        Verdict::Proceed => {}
        Verdict::AlreadyCommitted => return Ok(Outcome::AlreadyCommitted),
        Verdict::Fenced(fenced) => return Err(BatchError::Fenced(fenced)),
    }
    let batch = SlotTxn::new(slot, proposal.index, txn.clone());
    let mut taken = 0;
    for command in commands {
        batch.begin(command.traceparent().to_owned());
        if command.run(batch.clone()).await {
            match batch.keep(entry_bytes_max) {
                Kept::Yes => {}
                Kept::NextBatch => break,
                Kept::TooLarge { size } => command.fail(SlotError::TooLarge {
                    size,
                    limit: entry_bytes_max,
                }),
                Kept::ForeignKey => command.fail(SlotError::ForeignKey { slot }),
            }
        }
        taken += 1;
    }
    let (writes, events) = batch.finish();
    if writes.is_empty() && events.is_empty() {
        return Ok(Outcome::Committed(Attempt { entry: None, taken }));
    }
    let entry = Entry {
        epoch: proposal.header.epoch,
        index: proposal.index,
        batch_id: proposal.header.last_batch_id.clone(),
        writes,
        events,
    };
    if proposal.undo {
        let undo = before(&txn, &entry).await?;
        txn.set(keys::undo(slot, entry.index), undo.encode_to_vec());
    }
    for index in proposal.undo_trim.clone() {
        txn.clear(keys::undo(slot, index));
    }
    write_set(&txn, &entry);
    let encoded = Bytes::from(entry.encode_to_vec());
    txn.set(keys::log(slot, proposal.index), encoded.clone());
    txn.set(keys::header(slot), proposal.header.encode_to_vec());
    if let Some(trim) = &proposal.trim {
        txn.clear_range(keys::log(slot, trim.start), keys::log(slot, trim.end));
    }
    let entry = CommittedEntry {
        slot,
        epoch: entry.epoch,
        index: entry.index,
        writes: entry.writes.into(),
        events: entry.events.into(),
        encoded,
    };
    Ok(Outcome::Committed(Attempt {
        entry: Some(entry),
        taken,
    }))
}
