use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use antiphon_kv::{KvPair, Page, RangeRead, Txn};
use antiphon_proto::log::{Event, Write, event};
use antiphon_types::{LogIndex, Slot};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;

use crate::{SlotError, keys};

/// The transaction of one command. Cheap to clone: clones are the same transaction.
///
/// Sees what earlier commands of the batch wrote. Reads take no part in conflicts: the slot has one writer, and its fence is
/// the header, which every commit reads.
#[derive(Clone)]
pub struct SlotTxn {
    shared: Arc<Shared>,
}

struct Shared {
    slot: Slot,
    index: LogIndex,
    kv: Txn,
    state: Mutex<State>,
}

/// What the batch and its running command have written.
#[derive(Default)]
struct State {
    writes: BTreeMap<Bytes, Option<Bytes>>,
    events: Vec<Event>,
    bytes: usize,
    command: Command,
    /// What the store holds of keys that were read: commands of one batch read the same ones again and again.
    read: AHashMap<Bytes, Option<Bytes>>,
}

#[derive(Default)]
struct Command {
    writes: BTreeMap<Bytes, Option<Bytes>>,
    events: Vec<Event>,
    bytes: usize,
    traceparent: String,
    foreign_key: bool,
}

/// How a command ended inside its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Its writes are part of the batch.
    Yes,
    /// The batch has no room for it: it belongs to the next one.
    NextBatch,
    /// It fits into no batch.
    TooLarge {
        /// Bytes of its writes and events.
        size: usize,
    },
    /// It wrote where it may not.
    ForeignKey,
}

impl SlotTxn {
    pub(crate) fn new(slot: Slot, index: LogIndex, kv: Txn) -> Self {
        Self {
            shared: Arc::new(Shared {
                slot,
                index,
                kv,
                state: Mutex::default(),
            }),
        }
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.shared.slot
    }

    /// The log index that this command's entry will have.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.shared.index
    }

    /// Reads a key of the slot.
    ///
    /// # Errors
    /// [`SlotError::Kv`] when the store fails.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SlotError> {
        {
            let state = self.shared.state.lock();
            if let Some(value) = state.command.writes.get(key).or_else(|| state.writes.get(key)) {
                return Ok(value.clone());
            }
            if let Some(value) = state.read.get(key) {
                return Ok(value.clone());
            }
        }
        let value = self.shared.kv.snapshot_get(key).await?;
        let key = Bytes::copy_from_slice(key);
        self.shared.state.lock().read.insert(key, value.clone());
        Ok(value)
    }

    /// Reads a page of a range of the slot.
    ///
    /// # Errors
    /// [`SlotError::Kv`] when the store fails.
    pub async fn range(&self, range: RangeRead) -> Result<Page, SlotError> {
        let written = self.written_in(&range);
        if written.is_empty() {
            return Ok(self.shared.kv.snapshot_range(range).await?);
        }
        // What the batch has cleared may hide that many stored pairs.
        let stored = RangeRead {
            limit: range.limit.saturating_add(written.len()),
            ..range.clone()
        };
        let page = self.shared.kv.snapshot_range(stored).await?;
        Ok(merge(page, written, &range))
    }

    /// Writes a key of the slot.
    pub fn set(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.write(key.into(), Some(value.into()));
    }

    /// Clears a key of the slot.
    pub fn clear(&self, key: impl Into<Bytes>) {
        self.write(key.into(), None);
    }

    /// Appends an event to the entry; it carries the trace context of the request.
    pub fn emit(&self, body: event::Body) {
        let mut state = self.shared.state.lock();
        let event = Event {
            body: Some(body),
            traceparent: state.command.traceparent.clone(),
        };
        state.command.bytes += event.encoded_len() + 4;
        state.command.events.push(event);
    }

    fn write(&self, key: Bytes, value: Option<Bytes>) {
        let mut state = self.shared.state.lock();
        let command = &mut state.command;
        if !keys::is_service_key(self.shared.slot, &key) {
            command.foreign_key = true;
            return;
        }
        command.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + 12;
        command.writes.insert(key, value);
    }

    fn written_in(&self, range: &RangeRead) -> BTreeMap<Bytes, Option<Bytes>> {
        if range.start >= range.end {
            return BTreeMap::new();
        }
        let state = self.shared.state.lock();
        let within = || range.start.clone()..range.end.clone();
        let of_batch = state.writes.range(within());
        let of_command = state.command.writes.range(within());
        of_batch
            .chain(of_command)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Starts a command: forgets what one that was left out has written.
    pub(crate) fn begin(&self, traceparent: String) {
        self.shared.state.lock().command = Command {
            traceparent,
            ..Command::default()
        };
    }

    /// Makes the command's writes part of the batch, if they fit.
    pub(crate) fn keep(&self, entry_bytes_max: usize) -> Kept {
        let mut state = self.shared.state.lock();
        let command = std::mem::take(&mut state.command);
        if command.foreign_key {
            return Kept::ForeignKey;
        }
        if state.bytes + command.bytes > entry_bytes_max {
            return if command.bytes > entry_bytes_max {
                Kept::TooLarge { size: command.bytes }
            } else {
                Kept::NextBatch
            };
        }
        state.bytes += command.bytes;
        state.writes.extend(command.writes);
        state.events.extend(command.events);
        Kept::Yes
    }

    /// What the batch has written, in ascending order of keys, and its events.
    pub(crate) fn finish(&self) -> (Vec<Write>, Vec<Event>) {
        let mut state = self.shared.state.lock();
        let writes = std::mem::take(&mut state.writes)
            .into_iter()
            .map(|(key, value)| Write { key, value })
            .collect();
        (writes, std::mem::take(&mut state.events))
    }
}

/// Lays the batch's writes over a page of the store.
fn merge(page: Page, written: BTreeMap<Bytes, Option<Bytes>>, range: &RangeRead) -> Page {
    // Beyond the last stored pair of a page that was cut short, the store may hold more: nothing is known there.
    let known_to = page
        .more
        .then(|| page.pairs.last().map(|pair| pair.key.clone()))
        .flatten();
    let is_known = |key: &Bytes| match &known_to {
        Some(last) if range.reverse => key >= last,
        Some(last) => key <= last,
        None => true,
    };
    let mut merged: BTreeMap<Bytes, Option<Bytes>> = page
        .pairs
        .into_iter()
        .map(|pair| (pair.key, Some(pair.value)))
        .collect();
    merged.extend(written.into_iter().filter(|(key, _)| is_known(key)));
    let mut pairs: Vec<KvPair> = merged
        .into_iter()
        .filter_map(|(key, value)| Some(KvPair { key, value: value? }))
        .collect();
    if range.reverse {
        pairs.reverse();
    }
    let more = page.more || pairs.len() > range.limit;
    pairs.truncate(range.limit);
    Page { pairs, more }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number])
    }

    proptest! {
        #[test]
        fn a_merged_page_is_a_page_of_the_merged_store(
            stored in prop::collection::btree_set(0..40_u8, 0..30),
            written in prop::collection::btree_map(0..40_u8, any::<bool>(), 0..10),
            limit in 1..20_usize,
            reverse: bool,
        ) {
            let range = RangeRead { start: key(0), end: key(40), limit, reverse };
            let wanted = limit + written.len();
            let mut of_store: Vec<u8> = stored.iter().copied().collect();
            if reverse {
                of_store.reverse();
            }
            let page = Page {
                pairs: of_store.iter().take(wanted).map(|n| KvPair { key: key(*n), value: key(0) }).collect(),
                more: of_store.len() > wanted,
            };
            let writes = written.iter().map(|(n, set)| (key(*n), set.then(|| key(0)))).collect();
            let merged = merge(page, writes, &range);

            let mut expected = stored;
            for (number, set) in &written {
                if *set { expected.insert(*number); } else { expected.remove(number); }
            }
            let mut expected: Vec<Bytes> = expected.into_iter().map(key).collect();
            if reverse {
                expected.reverse();
            }
            let got: Vec<Bytes> = merged.pairs.into_iter().map(|pair| pair.key).collect();
            prop_assert_eq!(&got[..], &expected[..got.len()]);
            prop_assert!(got.len() == expected.len().min(limit) || merged.more);
            prop_assert!(merged.more || got.len() == expected.len());
        }
    }
}
