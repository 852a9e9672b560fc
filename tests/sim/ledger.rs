//! What happened in a world: the trace, and what the judge needs of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_directory::Placement;
use antiphon_slot::CommittedEntry;
use antiphon_types::{Epoch, LogIndex, Seq, Slot};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::network::HostId;

/// A message as somebody was shown it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    pub(crate) client_msg_id: String,
    pub(crate) text: String,
}

/// Everything that was seen. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
pub(crate) struct Book {
    now_us: u64,
    names: Vec<String>,
    trace: String,
    /// By conversation: what was acknowledged to senders.
    pub(crate) acknowledged: BTreeMap<usize, BTreeMap<String, Seq>>,
    /// By conversation and seq: what reads and feeds have shown.
    pub(crate) shown: BTreeMap<usize, BTreeMap<Seq, BTreeSet<Shown>>>,
    /// By conversation: what each of its readers read at the end.
    pub(crate) last_read: BTreeMap<usize, Vec<BTreeMap<Seq, Shown>>>,
    /// Who acknowledges the entries of a slot, by epoch.
    homes: BTreeMap<Slot, BTreeMap<Epoch, HostId>>,
    /// What was acknowledged of a slot's log.
    pub(crate) entries: BTreeMap<(Slot, LogIndex), Bytes>,
    placed: BTreeMap<(HostId, Slot), String>,
    /// Clients that have sent after the world was healed.
    pub(crate) healed: usize,
    /// What is wrong.
    pub(crate) violations: Vec<String>,
    /// Whether a machine's clock stood still for so long that its lease means nothing.
    clocks_lie: bool,
}

impl Ledger {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let ledger = Self::default();
        ledger.book.lock().names = names;
        ledger
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.book.lock())
    }

    pub(crate) fn tick(&self, now_us: u64) {
        self.book.lock().now_us = now_us;
    }

    pub(crate) fn note(&self, host: HostId, what: &str) {
        self.book.lock().note(host, what);
    }

    pub(crate) fn violation(&self, what: String) {
        self.book.lock().violation(what);
    }

    pub(crate) fn take_trace(&self) -> String {
        std::mem::take(&mut self.book.lock().trace)
    }

    /// A region has answered the commands of an entry (I4).
    pub(crate) fn acknowledged_at_home(&self, host: HostId, entry: &CommittedEntry) {
        let mut book = self.book.lock();
        let (slot, epoch, index) = (entry.slot, entry.epoch, entry.index);
        book.note(
            host,
            &format!("acknowledges slot {slot} entry {index} of epoch {epoch}"),
        );
        let homes = book.homes.entry(slot).or_default();
        let other = *homes.entry(epoch).or_insert(host);
        let highest = homes.keys().next_back().copied().unwrap_or(epoch);
        if other != host {
            book.violation(format!(
                "I4: hosts {other} and {host} acknowledge slot {slot} in epoch {epoch}"
            ));
        }
        if highest > epoch {
            book.violation(format!(
                "I4: host {host} acknowledges entry {index} of slot {slot} in epoch {epoch} after epoch {highest}"
            ));
        }
        let before = book.entries.insert((slot, index), entry.encoded.clone());
        if before.is_some_and(|before| before != entry.encoded) {
            book.violation(format!(
                "I1: entry {index} of slot {slot} was acknowledged twice, with other content"
            ));
        }
    }

    /// What a region has learned of a slot.
    pub(crate) fn placed(&self, host: HostId, slot: Slot, placement: &Placement) {
        let names = |regions: &[Arc<antiphon_directory::TableRegion>]| {
            let names: Vec<&str> = regions.iter().map(|region| &*region.name).collect();
            names.join(",")
        };
        let now = format!(
            "slot {slot} epoch {} home {} in sync {} of version {}{}",
            placement.epoch,
            placement.home,
            names(&placement.in_sync),
            placement.version,
            placement
                .moving_to
                .as_ref()
                .map_or(String::new(), |to| format!(" moving to {}", to.name)),
        );
        let mut book = self.book.lock();
        if book.placed.get(&(host, slot)) != Some(&now) {
            book.note(host, &format!("learns {now}"));
            book.placed.insert((host, slot), now);
        }
    }

    /// A sender has been answered.
    pub(crate) fn acknowledged(&self, host: HostId, talk: usize, client_msg_id: &str, seq: Seq, duplicate: bool) {
        let mut book = self.book.lock();
        let again = if duplicate { " again" } else { "" };
        book.note(
            host,
            &format!("{client_msg_id} of talk {talk} is acknowledged{again} as {seq}"),
        );
        let before = book
            .acknowledged
            .entry(talk)
            .or_default()
            .insert(client_msg_id.to_owned(), seq);
        if before.is_some_and(|before| before != seq) {
            book.violation(format!(
                "I5: {client_msg_id} was acknowledged as {before:?} and as {seq}"
            ));
        }
    }

    /// The highest seq that was acknowledged until now: no read that begins now may show less.
    pub(crate) fn floor(&self, talk: usize) -> Seq {
        let book = self.book.lock();
        book.acknowledged
            .get(&talk)
            .and_then(|acks| acks.values().max().copied())
            .unwrap_or(0)
    }

    /// A read that began when `floor` was acknowledged has shown a tail.
    pub(crate) fn tail_read(&self, host: HostId, talk: usize, floor: Seq, tail: Seq) {
        let mut book = self.book.lock();
        book.note(host, &format!("reads talk {talk} up to {tail}"));
        if tail < floor && !book.clocks_lie {
            book.violation(format!(
                "a read of talk {talk} shows {tail} messages when {floor} were acknowledged before it began"
            ));
        }
    }

    /// A machine stood still with its clock: what it says under its lease may be old.
    pub(crate) fn clocks_lie(&self) {
        self.book.lock().clocks_lie = true;
    }

    /// A read or a feed has shown a message.
    pub(crate) fn shown(&self, talk: usize, seq: Seq, shown: Shown) {
        let mut book = self.book.lock();
        book.shown
            .entry(talk)
            .or_default()
            .entry(seq)
            .or_default()
            .insert(shown);
    }
}

impl Book {
    pub(crate) fn note(&mut self, host: HostId, what: &str) {
        let name = self.names.get(host).map_or("world", String::as_str);
        let (seconds, micros) = (self.now_us / 1_000_000, self.now_us % 1_000_000);
        let line = format!("{seconds:3}.{:03} {name:8} {what}", micros / 1_000);
        tracing::info!(target: "sim", "{line}");
        self.trace.push_str(&line);
        self.trace.push('\n');
    }

    pub(crate) fn violation(&mut self, what: String) {
        self.note(HostId::MAX, &format!("VIOLATION {what}"));
        self.violations.push(what);
    }
}
