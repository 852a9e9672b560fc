//! The protocol of a slot's log as a value: no store, no clock, no task.
//!
//! The shell reads the header inside each transaction, asks [`Protocol::verdict`] and reports how the commit ended.
//! Leader epoch: Kafka KIP-101. Primary-backup with an in-sync set: PacificA (MSR-TR-2008-25).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Range, RangeInclusive},
};

use antiphon_proto::log::{EpochStart, Header};
use antiphon_types::{
    Epoch, LogIndex,
    sabotage::{self, Rule},
};
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
    /// Whether the entry may still be cut once it is stored, so that what it overwrites has to be kept.
    pub undo: bool,
    /// Undo records that go in the same transaction: their entries are committed.
    pub undo_trim: Range<LogIndex>,
}

/// A region other than the home that keeps a copy of the slot.
pub type Replica = u64;

/// Who has to hold an entry before it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSync {
    /// The members besides the home. One that the home asks the directory to add counts at once, one that it asks to remove until
    /// the directory has said so (Kafka's maximal in-sync set): whoever may be made home next is counted in any case.
    pub others: BTreeSet<Replica>,
    /// How many members the directory has confirmed, the home included.
    pub confirmed: usize,
    /// Below this many confirmed members nothing is committed.
    pub min_in_sync: usize,
    /// When an entry is acknowledged.
    pub durability: Durability,
    /// The opening of the slot that the directory has heard last in this epoch; it refuses what earlier ones ask for. See
    /// [`Protocol::is_settled`].
    pub opening: u64,
}

/// When an entry is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When every member of the in-sync set holds it: losing the home loses nothing.
    Global,
    /// When the home holds it.
    Regional,
}

impl InSync {
    /// A home that is alone: what it holds is committed.
    #[must_use]
    pub const fn alone() -> Self {
        Self {
            others: BTreeSet::new(),
            confirmed: 1,
            min_in_sync: 1,
            durability: Durability::Global,
            opening: u64::MAX,
        }
    }

    /// Whether an entry can be committed at all.
    #[must_use]
    pub const fn is_enough(&self) -> bool {
        self.confirmed >= self.min_in_sync
    }
}

/// What of a slot's log is where, for those who ship it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The leader epoch of the home.
    pub epoch: Epoch,
    /// Entries below are trimmed.
    pub first_index: LogIndex,
    /// The last entry that is durable at home.
    pub last_index: LogIndex,
    /// Everything up to here has been carried to other slots.
    pub carried_index: LogIndex,
    /// The highest index that every in-sync region holds.
    pub high_watermark: LogIndex,
    /// Which leader epoch wrote from which index on.
    pub epochs: Vec<EpochStart>,
    /// Those of [`InSync::others`] that hold everything which was ever acknowledged, and without whom nothing more is: only they may be
    /// confirmed as members (Kafka lets a follower into the set at the high watermark, KIP-497).
    pub level: BTreeSet<Replica>,
    /// Which opening of the slot in this epoch it is.
    pub opening: u64,
    /// See [`Protocol::is_settled`].
    pub is_settled: bool,
    /// Nothing more is written here: the slot waits for its next home, who opens it the sooner the better it knows how it stands.
    pub is_handed_over: bool,
}

/// The state of one slot at its owner.
#[derive(Debug, Clone)]
pub struct Protocol {
    grant: Grant,
    /// Counts the openings of the slot in this epoch.
    opening: u64,
    last_index: LogIndex,
    last_batch_id: Bytes,
    first_index: LogIndex,
    carried_index: LogIndex,
    carried_index_stored: LogIndex,
    high_watermark: LogIndex,
    epochs: Vec<EpochStart>,
    /// Write sets up to here are in the store; below the log's end only until the tail that was found is applied.
    applied_index: LogIndex,
    /// From here on applied entries have an undo record.
    undo_first_index: LogIndex,
    /// Where the log ended when the slot was opened: before that much is committed again, nothing is shown.
    opened_at: LogIndex,
    in_sync: InSync,
    /// What replicas have said in this epoch that they hold, observers included.
    held: BTreeMap<Replica, LogIndex>,
    /// From where on replicas still need the log.
    needed: BTreeMap<Replica, LogIndex>,
    in_flight: Option<Proposal>,
    kept: Kept,
}

/// Entries that stay in the log though every cursor has passed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// In any case.
    pub entries: u64,
    /// For a replica that is behind; one further behind takes a copy of the slot.
    pub behind_max: u64,
}

/// Entries are trimmed in runs of this many, so that trimming costs little per commit.
const TRIM_RUN: u64 = if cfg!(test) { 4 } else { 64 };

impl Protocol {
    /// Takes the slot over: returns the state and the header that the taking transaction writes.
    ///
    /// Everything that is stored is kept. What of it is committed shows when the in-sync set has it, see [`Protocol::is_open`].
    ///
    /// # Errors
    /// [`Fenced`] when the store has seen a higher epoch.
    pub fn open(stored: Option<&Header>, grant: Grant, in_sync: InSync, kept: Kept) -> Result<(Self, Header), Fenced> {
        let found = stored.cloned().unwrap_or_else(|| Header {
            first_index: 1,
            ..Header::default()
        });
        if found.epoch > grant.epoch {
            return Err(Fenced { epoch: found.epoch });
        }
        let mut protocol = Self {
            grant,
            opening: if found.epoch < grant.epoch {
                1
            } else {
                found.opening + 1
            },
            last_index: found.last_index,
            last_batch_id: found.last_batch_id.clone(),
            first_index: found.first_index,
            carried_index: found.carried_index,
            carried_index_stored: found.carried_index,
            high_watermark: found.high_watermark.min(found.last_index),
            epochs: found.epochs.clone(),
            applied_index: found.applied_index.max(found.first_index.saturating_sub(1)),
            undo_first_index: undo_first_index(&found),
            opened_at: found.last_index,
            in_sync,
            held: BTreeMap::new(),
            needed: BTreeMap::new(),
            in_flight: None,
            kept,
        };
        protocol.raise_high_watermark();
        let header = protocol.header();
        Ok((protocol, header))
    }

    /// What the slot took over as a replica and has not applied yet: to be applied before the first batch.
    #[must_use]
    pub const fn unapplied(&self) -> Option<RangeInclusive<LogIndex>> {
        if self.applied_index < self.last_index {
            return Some(self.applied_index + 1..=self.last_index);
        }
        None
    }

    /// The header once write sets up to `index` are applied.
    #[must_use]
    pub fn applying(&self, index: LogIndex) -> Header {
        Header {
            applied_index: index,
            ..self.header()
        }
    }

    /// Write sets up to `index` are applied.
    pub fn applied(&mut self, index: LogIndex) {
        self.applied_index = index.min(self.last_index);
    }

    /// Starts a batch.
    ///
    /// # Panics
    /// When the batch before has not ended, or the tail is not applied: the shell does one thing after another.
    pub fn propose(&mut self, batch_id: BatchId) -> Proposal {
        assert!(
            self.in_flight.is_none(),
            "one batch at a time: the one before is not settled"
        );
        assert!(self.unapplied().is_none(), "the tail is applied before the first batch");
        let (trim, undo) = (self.trim(), self.may_be_cut());
        let settled = if undo { self.held_by_all() } else { self.last_index + 1 };
        let undo_trim = self.undo_first_index..(settled + 1).min(self.last_index + 1);
        let mut header = self.header();
        header.last_index = self.last_index + 1;
        header.last_batch_id = Bytes::copy_from_slice(&batch_id);
        header.applied_index = header.last_index;
        header.undo_first_index = self.undo_first_index.max(settled + 1);
        wrote_from(&mut header.epochs, self.grant.epoch, header.last_index);
        if let Some(range) = &trim {
            header.first_index = range.end;
            forget_epochs(&mut header.epochs, range.end);
        }
        let proposal = Proposal {
            index: header.last_index,
            batch_id,
            header,
            trim,
            undo,
            undo_trim,
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
        self.applied_index = proposal.index;
        self.undo_first_index = proposal.header.undo_first_index;
        self.last_batch_id = proposal.header.last_batch_id;
        self.first_index = proposal.header.first_index;
        self.epochs = proposal.header.epochs;
        self.carried_index_stored = proposal.header.carried_index;
        self.raise_high_watermark()
    }

    /// The running batch is known not to be in the store, and will not be. A commit of unknown result does not end like this:
    /// it is tried again until [`Protocol::verdict`] settles it.
    pub fn not_committed(&mut self) {
        self.in_flight = None;
    }

    /// A replica that follows this epoch holds everything up to `index`. Returns the high watermark if that raised it.
    pub fn replicated(&mut self, replica: Replica, index: LogIndex) -> Option<LogIndex> {
        self.follows(replica, index + 1);
        let held = self.held.entry(replica).or_default();
        *held = index.min(self.last_index).max(*held);
        self.raise_high_watermark()
    }

    /// A replica is going to take the log from `index` on, and holds up its trimming meanwhile, within bounds.
    pub fn follows(&mut self, replica: Replica, index: LogIndex) {
        self.needed.insert(replica, index);
    }

    /// A replica follows no more: it holds up the trimming no longer. What it has said counts on.
    pub fn left(&mut self, replica: Replica) {
        self.needed.remove(&replica);
    }

    /// The in-sync set is another one. Returns the high watermark if that raised it.
    pub fn set_in_sync(&mut self, in_sync: InSync) -> Option<LogIndex> {
        self.in_sync = in_sync;
        self.raise_high_watermark()
    }

    /// Whether reads may be answered: all that the log held when it was opened is committed in this epoch, so that nobody sees
    /// less than what an earlier home has shown.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.high_watermark >= self.opened_at
    }

    /// Whether writes may be taken: there are copies enough to commit them.
    #[must_use]
    pub const fn accepts_writes(&self) -> bool {
        self.in_sync.is_enough()
    }

    /// Whether nobody but this opening can change the in-sync set. A process that had the slot before in this epoch may have asked the
    /// directory for another set, and not have heard what became of that. Its question may be granted yet, and whom it names is not
    /// waited for here. So nothing is committed before the directory has heard this opening, and refuses what earlier ones ask for.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.opening == 1 || self.in_sync.opening >= self.opening
    }

    /// The in-sync set as it counts now.
    #[must_use]
    pub const fn in_sync(&self) -> &InSync {
        &self.in_sync
    }

    /// What of the log is where.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        LogState {
            epoch: self.grant.epoch,
            first_index: self.first_index,
            last_index: self.last_index,
            carried_index: self.carried_index,
            high_watermark: self.high_watermark,
            epochs: self.epochs.clone(),
            level: self.level(),
            opening: self.opening,
            is_settled: self.is_settled(),
            is_handed_over: false,
        }
    }

    /// See [`LogState::level`]. What an earlier home has acknowledged is somewhere in the log that was found.
    #[must_use]
    pub fn level(&self) -> BTreeSet<Replica> {
        let acknowledged = self.high_watermark.max(self.opened_at);
        let holds = |replica: &&Replica| self.held.get(replica).is_some_and(|held| *held >= acknowledged);
        self.in_sync.others.iter().filter(holds).copied().collect()
    }

    /// Where the log ended when the slot was opened.
    #[must_use]
    pub const fn opened_at(&self) -> LogIndex {
        self.opened_at
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
            epochs: self.epochs.clone(),
            applied_index: self.applied_index,
            high_watermark: self.high_watermark,
            copying: false,
            copy: 0,
            undo_first_index: self.undo_first_index,
            opening: self.opening,
        }
    }

    /// Whether an entry that is stored now may have to be cut again: as long as another region may be made home that lacks it.
    fn may_be_cut(&self) -> bool {
        let commits_alone = self.in_sync.others.is_empty() && self.in_sync.is_enough() && self.is_settled();
        !commits_alone || self.high_watermark < self.last_index
    }

    /// The highest index that every member of the in-sync set holds.
    fn held_by_all(&self) -> LogIndex {
        let held = |replica| self.held.get(replica).copied().unwrap_or_default();
        self.in_sync
            .others
            .iter()
            .map(held)
            .fold(self.last_index, LogIndex::min)
    }

    /// What may go: below the courier's cursor, the in-sync set, what is kept in any case, and every other replica that is not too
    /// far behind.
    fn trim(&self) -> Option<Range<LogIndex>> {
        let passed = self.carried_index_stored.min(self.high_watermark);
        let behind_from = self.last_index.saturating_sub(self.kept.behind_max);
        let needed = self.needed.values().map(|index| index.saturating_sub(1));
        let behind = needed.fold(passed, LogIndex::min).max(behind_from);
        let end = (passed.min(behind) + 1).min((self.last_index + 1).saturating_sub(self.kept.entries));
        (end >= self.first_index + TRIM_RUN).then_some(self.first_index..end)
    }

    fn raise_high_watermark(&mut self) -> Option<LogIndex> {
        let held_by_all = match self.in_sync.durability {
            Durability::Regional => self.last_index,
            Durability::Global if sabotage::is_broken(Rule::InSyncSetsAreWaitedFor) => self.last_index,
            Durability::Global => self.held_by_all(),
        };
        if held_by_all <= self.high_watermark || !self.in_sync.is_enough() || !self.is_settled() {
            return None;
        }
        self.high_watermark = held_by_all;
        Some(held_by_all)
    }
}

/// From where on a slot that is taken over has undo records, or will have once its tail is applied.
pub(crate) fn undo_first_index(found: &Header) -> LogIndex {
    if (1..=found.applied_index).contains(&found.undo_first_index) {
        return found.undo_first_index;
    }
    found.applied_index.max(found.first_index.saturating_sub(1)) + 1
}

/// Notes in an epoch history that `epoch` wrote the entry at `index`.
pub(crate) fn wrote_from(epochs: &mut Vec<EpochStart>, epoch: Epoch, index: LogIndex) {
    if epochs.last().is_none_or(|last| last.epoch < epoch) {
        epochs.push(EpochStart {
            epoch,
            first_index: index,
        });
    }
}

/// Forgets the epochs that wrote nothing from `first_index` on.
pub(crate) fn forget_epochs(epochs: &mut Vec<EpochStart>, first_index: LogIndex) {
    let forgotten = epochs.iter().skip(1).take_while(|next| next.first_index <= first_index);
    epochs.drain(..forgotten.count());
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
