//! The protocol of a slot's log as a value: no store, no clock, no task.
//!
//! The shell reads the header inside each transaction, asks [`Protocol::verdict`] and reports how the commit ended.
//! Leader epoch: Kafka KIP-101. Primary-backup with an in-sync set: PacificA (MSR-TR-2008-25).

use std::{collections::BTreeMap, ops::Range};

use antiphon_proto::log::Header;
use antiphon_types::{Epoch, LogIndex};
use bytes::Bytes;

/// Names one batch; settles whether a commit of unknown result happened.
pub type BatchId = [u8; 16];

/// Names one opening of a slot by one process.
pub type OwnerToken = [u8; 16];

/// The right to write a slot, as the directory gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The leader epoch.
    pub epoch: Epoch,
    /// The fencing token of this process.
    pub owner: OwnerToken,
}

/// Another owner has taken the slot; nothing may be written under this grant any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// The epoch found in the store.
    pub epoch: Epoch,
}

/// What a transaction may do, by the header that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write the proposal.
    Proceed,
    /// The proposal is in the log already: an earlier attempt of unknown result has succeeded.
    AlreadyCommitted,
    /// Write nothing, ever again.
    Fenced(Fenced),
}

/// A batch that is being committed: what its transaction writes as the new header.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The entry's place in the log.
    pub index: LogIndex,
    /// The entry's batch id.
    pub batch_id: BatchId,
    /// The header after it.
    pub header: Header,
    /// Log entries that go in the same transaction.
    pub trim: Option<Range<LogIndex>>,
}

/// A member of the in-sync set other than the home.
pub type Replica = u64;

/// The state of one slot at its owner.
#[derive(Debug, Clone)]
pub struct Protocol {
    grant: Grant,
    last_index: LogIndex,
    last_batch_id: Bytes,
    first_index: LogIndex,
    carried_index: LogIndex,
    carried_index_stored: LogIndex,
    high_watermark: LogIndex,
    replicas: BTreeMap<Replica, LogIndex>,
    in_flight: Option<Proposal>,
    entries_kept: u64,
}

/// Entries are trimmed in runs of this many, so that trimming costs little per commit.
const TRIM_RUN: u64 = if cfg!(test) { 4 } else { 64 };

impl Protocol {
    /// Takes the slot over: returns the state and the header that the taking transaction writes.
    ///
    /// `replicas` are the other members of the in-sync set; without any, everything stored is committed.
    ///
    /// # Errors
    /// [`Fenced`] when the store has seen a higher epoch.
    pub fn open(
        stored: Option<&Header>,
        grant: Grant,
        replicas: impl IntoIterator<Item = Replica>,
        entries_kept: u64,
    ) -> Result<(Self, Header), Fenced> {
        let found = stored.cloned().unwrap_or_else(|| Header {
            first_index: 1,
            ..Header::default()
        });
        if found.epoch > grant.epoch {
            return Err(Fenced { epoch: found.epoch });
        }
        let mut protocol = Self {
            grant,
            last_index: found.last_index,
            last_batch_id: found.last_batch_id,
            first_index: found.first_index,
            carried_index: found.carried_index,
            carried_index_stored: found.carried_index,
            high_watermark: 0,
            replicas: replicas.into_iter().map(|replica| (replica, 0)).collect(),
            in_flight: None,
            entries_kept,
        };
        protocol.raise_high_watermark();
        let header = protocol.header();
        Ok((protocol, header))
    }

    /// Starts a batch.
    ///
    /// # Panics
    /// When the batch before has not ended: the shell runs one at a time.
    pub fn propose(&mut self, batch_id: BatchId) -> Proposal {
        assert!(
            self.in_flight.is_none(),
            "one batch at a time: the one before is not settled"
        );
        let trim = self.trim();
        let mut header = self.header();
        header.last_index = self.last_index + 1;
        header.last_batch_id = Bytes::copy_from_slice(&batch_id);
        if let Some(range) = &trim {
            header.first_index = range.end;
        }
        let proposal = Proposal {
            index: header.last_index,
            batch_id,
            header,
            trim,
        };
        self.in_flight = Some(proposal.clone());
        proposal
    }

    /// Judges the header that a transaction of the running batch (or of a flush) has read.
    #[must_use]
    pub fn verdict(&self, stored: Option<&Header>) -> Verdict {
        let Some(stored) = stored else {
            return Verdict::Fenced(Fenced { epoch: 0 });
        };
        let fenced = Verdict::Fenced(Fenced { epoch: stored.epoch });
        if stored.epoch != self.grant.epoch || stored.owner != self.grant.owner.as_slice() {
            return fenced;
        }
        if stored.last_index == self.last_index {
            return Verdict::Proceed;
        }
        match &self.in_flight {
            Some(proposal)
                if stored.last_index == proposal.index && stored.last_batch_id == proposal.batch_id.as_slice() =>
            {
                Verdict::AlreadyCommitted
            }
            Some(_) | None => fenced,
        }
    }

    /// The running batch is durable here. Returns the high watermark if that raised it.
    pub fn committed(&mut self) -> Option<LogIndex> {
        let proposal = self.in_flight.take()?;
        self.last_index = proposal.index;
        self.last_batch_id = proposal.header.last_batch_id;
        self.first_index = proposal.header.first_index;
        self.carried_index_stored = proposal.header.carried_index;
        self.raise_high_watermark()
    }

    /// The running batch is known not to be in the store, and will not be. A commit of unknown result does not end like this:
    /// it is tried again until [`Protocol::verdict`] settles it.
    pub fn not_committed(&mut self) {
        self.in_flight = None;
    }

    /// A replica of the in-sync set holds everything up to `index`. Returns the high watermark if that raised it.
    pub fn replicated(&mut self, replica: Replica, index: LogIndex) -> Option<LogIndex> {
        let held = self.replicas.get_mut(&replica)?;
        *held = index.max(*held);
        self.raise_high_watermark()
    }

    /// Everything up to `index` has been carried to the other slots; only grows.
    pub fn carried(&mut self, index: LogIndex) {
        self.carried_index = self.carried_index.max(index.min(self.high_watermark));
    }

    /// The header to write when the slot goes idle with a cursor that moved, or none.
    #[must_use]
    pub fn flush(&self) -> Option<Header> {
        (self.carried_index > self.carried_index_stored && self.in_flight.is_none()).then(|| self.header())
    }

    /// The header of [`Protocol::flush`] is stored.
    pub fn flushed(&mut self, header: &Header) {
        self.carried_index_stored = self.carried_index_stored.max(header.carried_index);
    }

    /// Index of the last entry that is durable here.
    #[must_use]
    pub const fn last_index(&self) -> LogIndex {
        self.last_index
    }

    /// The highest index that every in-sync region holds.
    #[must_use]
    pub const fn high_watermark(&self) -> LogIndex {
        self.high_watermark
    }

    /// Everything up to here has been carried.
    #[must_use]
    pub const fn carried_index(&self) -> LogIndex {
        self.carried_index
    }

    fn header(&self) -> Header {
        Header {
            epoch: self.grant.epoch,
            last_index: self.last_index,
            owner: Bytes::copy_from_slice(&self.grant.owner),
            last_batch_id: self.last_batch_id.clone(),
            first_index: self.first_index,
            carried_index: self.carried_index,
            epochs: Vec::new(),
            applied_index: self.last_index,
            high_watermark: self.high_watermark,
            copying: false,
        }
    }

    /// What may go: below the courier's cursor, every replica and what is kept in any case.
    fn trim(&self) -> Option<Range<LogIndex>> {
        let passed = self
            .replicas
            .values()
            .copied()
            .fold(self.carried_index_stored, LogIndex::min);
        let end = (passed + 1).min((self.last_index + 1).saturating_sub(self.entries_kept));
        (end >= self.first_index + TRIM_RUN).then_some(self.first_index..end)
    }

    fn raise_high_watermark(&mut self) -> Option<LogIndex> {
        let held_by_all = self.replicas.values().copied().fold(self.last_index, LogIndex::min);
        if held_by_all <= self.high_watermark {
            return None;
        }
        self.high_watermark = held_by_all;
        Some(held_by_all)
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
