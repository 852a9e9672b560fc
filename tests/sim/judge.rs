//! Judges a world by the invariants of the design.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_types::{Seq, Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::{pack, unpack};

use crate::{
    client::text_of,
    engine::Disk,
    ledger::{Book, Ledger, Shown},
};

/// How the regions' stores differ in what every one of them must have once all is well (I2): entries and what services have written.
pub(crate) fn differing(slots: &[Slot], stores: &[Arc<Disk>]) -> Option<String> {
    for slot in slots {
        let first = stores.first().map(|store| written(store, *slot))?;
        let first_log = stores.first().map(|store| log(store, *slot))?;
        for (at, store) in stores.iter().enumerate().skip(1) {
            if written(store, *slot) != first {
                let ends = |store: &Arc<Disk>| log(store, *slot).keys().next_back().copied().unwrap_or(0);
                let ends: Vec<u64> = stores.iter().map(ends).collect();
                return Some(format!(
                    "I2: regions 1 and {} hold slot {slot} differently; the logs end at {ends:?}",
                    at + 1
                ));
            }
            let log = log(store, *slot);
            let last = |log: &BTreeMap<u64, Bytes>| log.keys().next_back().copied();
            if last(&log) != last(&first_log) {
                return Some(format!(
                    "I2: regions 1 and {} hold logs of slot {slot} of two lengths",
                    at + 1
                ));
            }
            let differs = log.iter().find(|(index, entry)| {
                let other = first_log.get(*index);
                other.is_some_and(|other| other != *entry)
            });
            if let Some((index, _)) = differs {
                return Some(format!(
                    "I2: regions 1 and {} hold other entries {index} of slot {slot}",
                    at + 1
                ));
            }
        }
    }
    None
}

/// Judges what is left at the end.
pub(crate) fn judge(ledger: &Ledger, slots: &[Slot], stores: &[Arc<Disk>]) {
    ledger.with(|book| {
        let mut wrong = Vec::new();
        let talks: BTreeSet<usize> = book.acknowledged.keys().chain(book.last_read.keys()).copied().collect();
        for talk in talks {
            judge_talk(book, talk, &mut wrong);
        }
        for (number, store) in (1..).zip(stores) {
            for slot in slots {
                let log = log(store, *slot);
                for ((_, index), entry) in book.entries.range((*slot, 0)..=(*slot, u64::MAX)) {
                    if log.get(index).is_some_and(|stored| stored != entry) {
                        wrong.push(format!(
                            "I1: region {number} holds another entry {index} of slot {slot} than was acknowledged"
                        ));
                    }
                }
            }
        }
        wrong.into_iter().for_each(|what| book.violation(what));
    });
}

fn judge_talk(book: &Book, talk: usize, wrong: &mut Vec<String>) {
    let reads = book.last_read.get(&talk).map_or(&[][..], Vec::as_slice);
    let Some(history) = reads.first() else {
        return wrong.push(format!("talk {talk} was not read at the end"));
    };
    if reads.iter().any(|read| read != history) {
        wrong.push(format!("I2: two readers of talk {talk} see different histories"));
    }
    let len = history.len() as Seq;
    if !history.keys().copied().eq(1..=len) {
        wrong.push(format!("I2: the seqs of talk {talk} are not 1 to {len}"));
    }
    let mut seqs: BTreeMap<&str, Seq> = BTreeMap::new();
    for (seq, shown) in history {
        if let Some(before) = seqs.insert(&shown.client_msg_id, *seq) {
            wrong.push(format!(
                "I1: {} is in talk {talk} as {before} and as {seq}",
                shown.client_msg_id
            ));
        }
        if shown.text != text_of(&shown.client_msg_id) {
            wrong.push(format!(
                "I1: message {seq} of talk {talk} has another text than was sent"
            ));
        }
    }
    for (client_msg_id, seq) in book.acknowledged.get(&talk).into_iter().flatten() {
        match seqs.get(client_msg_id.as_str()) {
            Some(found) if found == seq => {}
            Some(found) => wrong.push(format!("I1: {client_msg_id} was acknowledged as {seq} and is {found}")),
            None => wrong.push(format!("I1: {client_msg_id} was acknowledged as {seq} and is lost")),
        }
    }
    let differs = |seq: &Seq, shown: &Shown| history.get(seq) != Some(shown);
    for (seq, seen) in book.shown.get(&talk).into_iter().flatten() {
        if let Some(vanished) = seen.iter().find(|shown| differs(seq, shown)) {
            wrong.push(format!(
                "I3: {} was shown as {seq} of talk {talk} and is not",
                vanished.client_msg_id
            ));
        }
    }
}

/// What the services have written in a slot.
fn written(store: &Disk, slot: Slot) -> Vec<(Bytes, Bytes)> {
    let start = pack(&(slot.number(), kind::UNDO + 1));
    store.pairs(&start, &pack(&(slot.number(), u64::MAX)))
}

/// A slot's log as it is stored.
fn log(store: &Disk, slot: Slot) -> BTreeMap<u64, Bytes> {
    let start = pack(&(slot.number(), kind::LOG));
    let pairs = store.pairs(&start, &pack(&(slot.number(), kind::LOG + 1)));
    let index = |key: &[u8]| unpack::<(u16, u16, u64)>(key).map(|(_, _, index)| index).ok();
    pairs
        .into_iter()
        .filter_map(|(key, entry)| Some((index(&key)?, entry)))
        .collect()
}
