//! Taking a slot over: the header says so before anything else, then what was stored as a replica is applied.

use std::time::Duration;

use antiphon_kv::{KvError, RangeRead};
use antiphon_proto::log::Entry;
use antiphon_types::Slot;
use prost::Message as _;
use tokio::time::sleep;
use tracing::warn;

use crate::{
    SlotError,
    batch::{BatchError, read_header},
    keys,
    node::Node,
    protocol::{Grant, InSync, Kept, Protocol, Verdict},
    replica::{before, write_set},
};

/// Attempts to open a slot before its waiting commands are refused.
const ATTEMPTS: u32 = 5;
/// The first and the longest pause between them.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Entries applied in one transaction.
const PAGE_LEN: usize = 32;

/// Takes the slot over. From here on whoever had it before cannot commit.
pub(crate) async fn open(node: &Node, slot: Slot, grant: Grant, in_sync: &InSync) -> Result<Protocol, BatchError> {
    let kept = Kept {
        entries: node.options.log_entries_kept,
        behind_max: node.options.log_entries_behind_max,
    };
    let mut pause = PAUSE.0;
    let mut attempts = 1;
    let mut protocol = loop {
        let opened = node.kv.transact(|txn| async move {
            let stored = read_header(&txn, slot).await?;
            let (protocol, header) =
                Protocol::open(stored.as_ref(), grant, in_sync.clone(), kept).map_err(BatchError::Fenced)?;
            if stored.as_ref().is_some_and(|header| header.copying) {
                return Err(BatchError::Slot(SlotError::Unfinished { slot }));
            }
            txn.set(keys::header(slot), header.encode_to_vec());
            Ok(protocol)
        });
        match opened.await {
            // An opening of unknown result may simply be done again: it moves nothing. A store that does not answer was tried for long
            // enough: those who wait are refused, and the next one opens the slot again.
            Err(BatchError::Kv(error)) if attempts < ATTEMPTS && !error.is_unavailable() => {
                warn!(slot = slot.number(), %error, attempts, "opening the slot failed; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                attempts += 1;
            }
            result => break result?,
        }
    };
    while protocol.unapplied().is_some() {
        apply(node, slot, &mut protocol).await?;
    }
    Ok(protocol)
}

/// Applies one page of what the slot holds as a replica and had not applied.
async fn apply(node: &Node, slot: Slot, protocol: &mut Protocol) -> Result<(), BatchError> {
    let Some(unapplied) = protocol.unapplied() else {
        return Ok(());
    };
    let range = RangeRead {
        start: keys::log(slot, *unapplied.start()),
        end: keys::log(slot, unapplied.end().saturating_add(1)),
        limit: PAGE_LEN,
        reverse: false,
    };
    let judge: &Protocol = protocol;
    let applied = node.kv.transact(|txn| {
        let range = range.clone();
        async move {
            match judge.verdict(read_header(&txn, slot).await?.as_ref()) {
                Verdict::Proceed | Verdict::AlreadyCommitted => {}
                Verdict::Fenced(fenced) => return Err(BatchError::Fenced(fenced)),
            }
            let page = txn.snapshot_range(range).await?;
            let mut last = None;
            for pair in page.pairs {
                let entry = Entry::decode(pair.value)
                    .map_err(|error| SlotError::corrupt(format!("the log of {slot:?}"), &error))?;
                let undo = before(&txn, &entry).await.map_err(SlotError::from)?;
                txn.set(keys::undo(slot, entry.index), undo.encode_to_vec());
                write_set(&txn, &entry);
                last = Some(entry.index);
            }
            let Some(last) = last else {
                let what = format!("the log of {slot:?}");
                let reason = "entries that its header tells of are not there".to_owned();
                return Err(BatchError::Slot(SlotError::Corrupt { what, reason }));
            };
            txn.set(keys::header(slot), judge.applying(last).encode_to_vec());
            Ok(last)
        }
    });
    match applied.await {
        Ok(index) => protocol.applied(index),
        // To apply again changes nothing, and the header says how far it went.
        Err(BatchError::Kv(KvError::CommitUnknown)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
