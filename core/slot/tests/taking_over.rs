//! What becomes of what a slot holds when it goes from one owner to another.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::Path, sync::Arc, time::Duration};

use antiphon_kv::{CommitFault, EmbeddedOptions, Faults, Kv, KvError};
use antiphon_proto::log::{Event, MessageSent, event};
use antiphon_slot::{
    Carrier, CarryError, Hooks, ReplicaLog, SlotError, SlotOptions, SlotTxn, Slots,
    protocol::{Durability, InSync, Replica},
};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

const STANDBY: Replica = 2;
const OTHER: Replica = 3;
const A_WHILE: Duration = Duration::from_millis(150);

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn key() -> Bytes {
    pack(&(slot().number(), kind::TAIL, "last")).into()
}

fn with(others: &[Replica]) -> InSync {
    InSync {
        others: others.iter().copied().collect(),
        confirmed: others.len() + 1,
        min_in_sync: 1,
        durability: Durability::Global,
        opening: u64::MAX,
    }
}

/// As the directory says that has heard of this opening and those before.
fn heard(opening: u64) -> InSync {
    InSync {
        opening,
        ..with(&[STANDBY])
    }
}

async fn open(path: &Path) -> Kv {
    let options = EmbeddedOptions {
        path: path.to_owned(),
        ..EmbeddedOptions::default()
    };
    Kv::open_embedded(options).await.unwrap()
}

fn start(kv: &Kv, owner: u8, carriers: Vec<Arc<dyn Carrier>>) -> Slots {
    let hooks = Hooks {
        carriers,
        ..Hooks::default()
    };
    Slots::start(kv.clone(), SlotOptions::default(), [owner; 16], hooks)
}

fn write(slots: &Slots, number: u64) -> JoinHandle<Result<(), SlotError>> {
    let slots = slots.clone();
    tokio::spawn(async move {
        let written = slots.write(slot(), move |txn: SlotTxn| async move {
            txn.set(key(), number.to_be_bytes().to_vec());
            txn.emit(event::Body::MessageSent(MessageSent {
                seq: number,
                ..MessageSent::default()
            }));
            Ok::<_, SlotError>(())
        });
        written.await.map(drop)
    })
}

async fn appended(slots: &Slots, index: u64) {
    let mut log = slots.log_state(slot()).unwrap();
    log.wait_for(|log| log.last_index >= index).await.unwrap();
}

async fn level(slots: &Slots) -> Vec<Replica> {
    sleep(Duration::from_millis(20)).await;
    slots
        .log_state(slot())
        .unwrap()
        .borrow()
        .level
        .iter()
        .copied()
        .collect()
}

#[derive(Default)]
struct Noting(Mutex<Vec<u64>>);

impl Carrier for Noting {
    fn wants(&self, _: &Event) -> bool {
        true
    }

    fn carry(&self, event: Event) -> BoxFuture<'static, Result<(), CarryError>> {
        if let Some(event::Body::MessageSent(sent)) = event.body {
            self.0.lock().push(sent.seq);
        }
        async { Ok(()) }.boxed()
    }
}

/// Whoever looks after in-sync sets would ask the directory again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_was_heard_of_is_shown_as_settled_though_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    for opening in 1..=2 {
        let slots = start(&kv, u8::try_from(opening).unwrap(), vec![]);
        slots.grant(slot(), 1, heard(0));
        let mut log = slots.log_state(slot()).unwrap();
        log.wait_for(|log| log.opening == opening).await.unwrap();
        assert_eq!(log.borrow().is_settled, opening == 1);
        slots.grant(slot(), 1, heard(opening));
        let settled = timeout(Duration::from_secs(10), log.wait_for(|log| log.is_settled)).await;
        settled.expect("nobody is told").unwrap();
        drop(log);
        slots.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_not_committed_when_the_slot_was_opened_are_carried_once_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, 1, vec![]);
    slots.grant(slot(), 1, with(&[STANDBY]));
    let written = write(&slots, 1);
    appended(&slots, 1).await;
    slots.close().await;
    assert!(written.await.unwrap().is_err(), "nobody holds it but the home");

    let carrier = Arc::new(Noting::default());
    let slots = start(&kv, 2, vec![carrier.clone()]);
    slots.grant(slot(), 2, with(&[STANDBY]));
    appended(&slots, 1).await;
    sleep(A_WHILE).await;
    assert!(carrier.0.lock().is_empty(), "carried before it is committed");
    slots.held(slot(), 2, STANDBY, 1);
    assert!(
        slots.carried(slot(), 1, Duration::from_secs(10)).await,
        "nobody has carried it"
    );
    assert_eq!(*carrier.0.lock(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_stored_and_not_confirmed_nobody_says_that_it_was_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, 1, vec![]);
    slots.grant(slot(), 1, with(&[STANDBY]));
    let stored = write(&slots, 1);
    appended(&slots, 1).await;
    slots.withdraw(slot(), 2);
    let answer = stored.await.unwrap();
    assert!(
        matches!(answer, Err(SlotError::Unsettled { epoch: 2, .. })),
        "{answer:?}"
    );
    let answer = write(&slots, 2).await.unwrap();
    assert!(matches!(answer, Err(SlotError::NotHome { epoch: 2, .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_result_that_is_fenced_stays_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let faults = Faults::default();
    let slots = start(&kv.clone().with_faults(faults.clone()), 1, vec![]);
    slots.grant(slot(), 1, with(&[]));
    write(&slots, 1).await.unwrap().unwrap();
    // Committed, and another owner is there before that is known.
    let other = start(&kv, 2, vec![]);
    other.grant(slot(), 2, with(&[]));
    faults.add(CommitFault::After(KvError::CommitUnknown));
    let unknown = write(&slots, 2);
    loop {
        let stored = kv.transact(|txn| async move { txn.get(&key()).await }).await.unwrap();
        if stored.is_some_and(|value| value == 2_u64.to_be_bytes().as_slice()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    write(&other, 3).await.unwrap().unwrap();
    let answer = unknown.await.unwrap();
    // The first owner may have looked before the other came, and then knows that it was done.
    assert!(
        matches!(answer, Ok(()) | Err(SlotError::Unsettled { .. })),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_holds_everything_that_was_acknowledged_is_level() {
    let folder = tempfile::tempdir().unwrap();
    let slots = start(&open(folder.path()).await, 1, vec![]);
    slots.grant(slot(), 1, with(&[STANDBY]));
    let first = write(&slots, 1);
    appended(&slots, 1).await;
    slots.held(slot(), 1, STANDBY, 1);
    first.await.unwrap().unwrap();
    slots.held(slot(), 1, OTHER, 0);
    assert_eq!(level(&slots).await, [STANDBY], "who does not count is not level");

    // From now on nothing is acknowledged without the other.
    slots.grant(slot(), 1, with(&[STANDBY, OTHER]));
    assert_eq!(level(&slots).await, [STANDBY]);
    let second = write(&slots, 2);
    appended(&slots, 2).await;
    slots.held(slot(), 1, STANDBY, 2);
    sleep(A_WHILE).await;
    assert!(!second.is_finished());
    slots.held(slot(), 1, OTHER, 1);
    assert_eq!(level(&slots).await, [STANDBY, OTHER]);
    slots.held(slot(), 1, OTHER, 2);
    second.await.unwrap().unwrap();
    slots.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_has_just_taken_over_counts_all_that_it_found_as_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, 1, vec![]);
    // Above every watermark that the log tells of: only the home before knew what was acknowledged.
    slots.grant(slot(), 1, with(&[STANDBY]));
    for number in 1..=3 {
        drop(write(&slots, number));
        appended(&slots, number).await;
    }
    slots.close().await;
    let slots = start(&kv, 2, vec![]);
    slots.grant(slot(), 2, with(&[STANDBY]));
    appended(&slots, 3).await;
    slots.held(slot(), 2, STANDBY, 2);
    assert!(level(&slots).await.is_empty());
    slots.held(slot(), 2, STANDBY, 3);
    assert_eq!(level(&slots).await, [STANDBY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_while_it_hands_over_begins_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, 1, vec![]);
    slots.grant(slot(), 1, with(&[]));
    write(&slots, 1).await.unwrap().unwrap();
    assert!(slots.hand_over(slot(), 1).await);
    let waiting = write(&slots, 2);
    sleep(A_WHILE).await;
    slots.close().await;
    let answer = waiting.await.unwrap();
    assert!(matches!(answer, Err(SlotError::Closed { .. })), "{answer:?}");
    let stored = kv.transact(|txn| async move { txn.get(&key()).await }).await.unwrap();
    assert_eq!(stored.unwrap(), 1_u64.to_be_bytes().as_slice());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_unfinished_copy_nobody_is_refused_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let log = ReplicaLog::new(kv.clone());
    log.promise(slot(), 2).await.unwrap();
    let known = log.header(slot()).await.unwrap();
    log.begin_copy(slot(), 2, &known).await.unwrap();

    let slots = start(&kv, 1, vec![]);
    // Whose epoch is over hears that, and nothing of the copy.
    slots.grant(slot(), 1, with(&[]));
    let refused = write(&slots, 1).await.unwrap().unwrap_err();
    assert!(matches!(refused, SlotError::NotHome { .. }), "{refused:?}");
    slots.grant(slot(), 3, with(&[]));
    let refused = write(&slots, 2).await.unwrap().unwrap_err();
    assert!(matches!(refused, SlotError::Unfinished { .. }), "{refused:?}");
    assert!(refused.retry_after_ms().is_some());
    slots.close().await;
}
