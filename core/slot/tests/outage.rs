//! Slots over a store that does not answer for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use antiphon_kv::{CommitFault, EmbeddedOptions, Faults, Kv, KvError};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{ErrorCode, Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use tokio::time::{sleep, timeout};

/// As often as a transaction is tried.
const ATTEMPTS_MAX: u32 = 64;
/// Far below the time that a write may wait for its answer.
const SOON: Duration = Duration::from_secs(8);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn key() -> Bytes {
    pack(&(slot().number(), kind::TAIL, "counter")).into()
}

async fn start(folder: &std::path::Path) -> (Slots, Faults) {
    let options = EmbeddedOptions {
        path: folder.to_owned(),
        ..EmbeddedOptions::default()
    };
    let faults = Faults::default();
    let kv = Kv::open_embedded(options).await.unwrap().with_faults(faults.clone());
    let options = SlotOptions {
        write_timeout: WRITE_TIMEOUT,
        ..SlotOptions::default()
    };
    let slots = Slots::start(kv, options, [1; 16], Hooks::default());
    slots.grant(slot(), 1, InSync::alone());
    (slots, faults)
}

/// Adds one to a counter and returns it.
async fn count(slots: &Slots) -> Result<u64, SlotError> {
    let committed = slots.write(slot(), |txn: SlotTxn| async move {
        let before = txn.get(&key()).await?;
        let number = before.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap())) + 1;
        txn.set(key(), number.to_be_bytes().to_vec());
        Ok::<_, SlotError>(number)
    });
    committed.await.map(|committed| committed.value)
}

/// The store does not answer for as long as one transaction is tried.
fn fails_once_for_good(faults: &Faults) {
    for _ in 0..ATTEMPTS_MAX {
        faults.add(CommitFault::Before(KvError::Unavailable("an outage".to_owned())));
    }
}

fn assert_refused(refused: Result<u64, SlotError>) {
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused}");
    assert!(refused.retry_after_ms().is_some(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_cannot_be_opened_refuses_and_opens_at_the_next_use() {
    let folder = tempfile::tempdir().unwrap();
    let (slots, faults) = start(folder.path()).await;
    fails_once_for_good(&faults);
    assert_refused(timeout(SOON, count(&slots)).await.expect("no answer"));
    // On a busy machine it was tried less often.
    faults.clear();
    assert_eq!(count(&slots).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_committed_is_refused_with_all_that_waits_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (slots, faults) = start(folder.path()).await;
    assert_eq!(count(&slots).await.unwrap(), 1);
    fails_once_for_good(&faults);
    let later = async {
        sleep(Duration::from_millis(50)).await;
        count(&slots).await
    };
    let (first, later) = timeout(SOON, async { tokio::join!(count(&slots), later) })
        .await
        .expect("no answer");
    assert_refused(first);
    assert_refused(later);
    faults.clear();
    assert_eq!(count(&slots).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_commit_is_unknown_and_the_store_away_those_behind_it_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (slots, faults) = start(folder.path()).await;
    assert_eq!(count(&slots).await.unwrap(), 1);
    faults.add(CommitFault::Before(KvError::CommitUnknown));
    fails_once_for_good(&faults);
    let later = async {
        sleep(Duration::from_millis(50)).await;
        count(&slots).await
    };
    let (unknown, later) = timeout(SOON, async { tokio::join!(count(&slots), later) })
        .await
        .expect("no answer");
    assert_eq!(unknown.unwrap(), 2, "it is settled, and not refused");
    assert_refused(later);
    assert_eq!(count(&slots).await.unwrap(), 3);
}
