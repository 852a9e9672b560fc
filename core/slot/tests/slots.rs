//! Slots over the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_proto::log::{Event, MessageSent, event};
use antiphon_slot::{
    Carrier, CarryError, CommitObserver, CommittedEntry, Hooks, SlotError, SlotOptions, SlotTxn, Slots,
    protocol::InSync,
};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use parking_lot::Mutex;

const OWNER: [u8; 16] = [1; 16];

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn key(name: &str) -> Bytes {
    pack(&(slot().number(), kind::TAIL, name)).into()
}

async fn open(path: &Path) -> Kv {
    let options = EmbeddedOptions {
        path: path.to_owned(),
        ..EmbeddedOptions::default()
    };
    Kv::open_embedded(options).await.unwrap()
}

fn start(kv: &Kv, owner: [u8; 16], options: SlotOptions) -> Slots {
    start_with(kv, owner, options, vec![], vec![])
}

fn start_with(
    kv: &Kv,
    owner: [u8; 16],
    options: SlotOptions,
    observers: Vec<Arc<dyn CommitObserver>>,
    carriers: Vec<Arc<dyn Carrier>>,
) -> Slots {
    let slots = Slots::start(
        kv.clone(),
        options,
        owner,
        Hooks {
            observers,
            carriers,
            ..Hooks::default()
        },
    );
    slots.grant(slot(), 1, InSync::alone());
    slots
}

/// Adds one to a counter and returns it: the smallest command that reads what an earlier one wrote.
async fn count(slots: &Slots) -> Result<u64, SlotError> {
    let committed = slots
        .write(slot(), |txn: SlotTxn| async move {
            let number = read_number(txn.get(&key("counter")).await?) + 1;
            txn.set(key("counter"), number.to_be_bytes().to_vec());
            txn.emit(event::Body::MessageSent(MessageSent {
                conversation_id: Bytes::new(),
                seq: number,
            }));
            Ok(number)
        })
        .await;
    committed.map(|committed| committed.value)
}

async fn counted(slots: &Slots) -> u64 {
    let read = slots.read(slot(), |read| async move {
        Ok::<_, SlotError>(read_number(read.get(&key("counter")).await?))
    });
    read.await.unwrap()
}

fn read_number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commands_run_one_after_another_in_few_commits() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<(u64, usize)>>);
    impl CommitObserver for Seen {
        fn committed(&self, entry: &CommittedEntry) {
            self.0.lock().push((entry.index, entry.events.len()));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let seen = Arc::new(Seen::default());
    let slots = start_with(&kv, OWNER, SlotOptions::default(), vec![seen.clone()], vec![]);

    let mut numbers: Vec<u64> = join_all((0..500).map(|_| count(&slots)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
    assert_eq!(counted(&slots).await, 500);

    // Observers are told after whoever waits for the answer.
    slots.close().await;
    let seen = seen.0.lock().clone();
    let indices: Vec<u64> = seen.iter().map(|(index, _)| *index).collect();
    assert_eq!(
        indices,
        (1..=indices.len() as u64).collect::<Vec<_>>(),
        "entries out of order"
    );
    assert_eq!(seen.iter().map(|(_, events)| events).sum::<usize>(), 500);
    assert!(
        indices.len() < 250,
        "{} commits for 500 commands: no group commit",
        indices.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, OWNER, SlotOptions::default());
    let refused = slots.write(slot(), |txn: SlotTxn| async move {
        txn.set(key("counter"), 9_u64.to_be_bytes().to_vec());
        Err::<(), _>(SlotError::Closed { slot: slot() })
    });
    let (refused, number) = tokio::join!(refused, count(&slots));
    assert!(refused.is_err());
    assert_eq!(number.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_fences_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let first = start(&kv, [1; 16], SlotOptions::default());
    assert_eq!(count(&first).await.unwrap(), 1);
    let second = start(&kv, [2; 16], SlotOptions::default());
    assert_eq!(count(&second).await.unwrap(), 2);

    assert!(matches!(count(&first).await, Err(SlotError::NotHome { .. })));
    let read = first.read(slot(), |_| async { Ok::<_, SlotError>(()) }).await;
    assert!(matches!(read, Err(SlotError::NotHome { .. })));
    assert_eq!(count(&second).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(
        &kv,
        OWNER,
        SlotOptions {
            queue_len_max: 4,
            batch_len_max: 1,
            ..SlotOptions::default()
        },
    );
    let answers = join_all((0..200).map(|_| count(&slots))).await;
    let overloaded = answers
        .iter()
        .filter(|answer| matches!(answer, Err(SlotError::Overloaded { .. })))
        .count();
    let counted_up = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(overloaded + counted_up, 200);
    assert!(overloaded > 0);
    assert_eq!(counted(&slots).await, counted_up as u64);
}

/// Sets a key of its own; says under which index.
async fn set_patiently(slots: &Slots, name: usize) -> u64 {
    let body = move |txn: SlotTxn| async move {
        txn.set(key(&name.to_string()), Bytes::from_static(b"set"));
        Ok::<_, SlotError>(())
    };
    slots.write_patiently(slot(), body).await.unwrap().index
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_hurry_is_committed_with_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    // So patient that without anybody in a hurry the test would end in a timeout.
    let patience = Duration::from_secs(3_600);
    let options = SlotOptions {
        patience,
        write_timeout: patience * 2,
        ..SlotOptions::default()
    };
    let slots = start(&kv, OWNER, options);
    assert_eq!(count(&slots).await.unwrap(), 1);
    let last_index = || slots.log_state(slot()).unwrap().borrow().last_index;
    let before = last_index();
    let waiting = tokio::spawn({
        let slots = slots.clone();
        async move { join_all((0..10).map(|name| set_patiently(&slots, name))).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(last_index(), before, "something was in a hurry");
    while !waiting.is_finished() {
        count(&slots).await.unwrap();
    }
    let indexes = waiting.await.unwrap();
    assert!(indexes.iter().all(|index| *index > before), "{indexes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_so_many_commands_over_all_of_its_slots() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let options = SlotOptions {
        waiting_max: 10,
        ..SlotOptions::default()
    };
    let slots = start(&kv, OWNER, options);
    let other = Slot::new(1).unwrap();
    slots.grant(other, 1, InSync::alone());
    let body = |_: SlotTxn| async { Ok::<_, SlotError>(()) };
    let write = |number: usize| {
        slots
            .write(if number.is_multiple_of(2) { slot() } else { other }, body)
            .boxed()
    };
    let asked: Vec<_> = (0..100).map(write).collect();
    let answers = join_all(asked).await;
    let refused = |answer: &Result<_, SlotError>| {
        matches!(
            answer,
            Err(SlotError::NodeOverloaded {
                waiting_max: 10,
                retry_after_ms: 1..
            })
        )
    };
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((10..100).contains(&taken), "{taken} were taken");
    assert_eq!(
        taken + answers.iter().filter(|answer| refused(answer)).count(),
        100,
        "{answers:?}"
    );
    // Whoever comes when they are answered finds room.
    slots.write(other, body).await.unwrap();
}

// On one thread, so that all of them are asked for before the slot's task can take one.
#[tokio::test]
async fn what_is_in_no_hurry_leaves_half_of_the_queue_to_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let options = SlotOptions {
        queue_len_max: 100,
        ..SlotOptions::default()
    };
    let slots = start(&kv, OWNER, options);
    count(&slots).await.unwrap();
    let body = |_: SlotTxn| async { Ok::<_, SlotError>(()) };
    let mut asked: Vec<_> = (0..100).map(|_| slots.write_patiently(slot(), body).boxed()).collect();
    let at_once: Vec<_> = asked.iter_mut().map(FutureExt::now_or_never).collect();
    let refused = at_once
        .iter()
        .filter(|answer| matches!(answer, Some(Err(SlotError::Overloaded { .. }))))
        .count();
    assert_eq!(refused, 49);
    let answers = join_all((0..40).map(|_| count(&slots))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_hurry_waits_no_longer_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, OWNER, SlotOptions::default());
    let indexes = join_all((0..10).map(|name| set_patiently(&slots, name))).await;
    let entries: BTreeSet<u64> = indexes.iter().copied().collect();
    assert!(entries.len() < indexes.len(), "each was committed alone: {indexes:?}");
    // Nor when the slot is closed meanwhile.
    let (last, ()) = tokio::join!(set_patiently(&slots, 99), async {
        tokio::task::yield_now().await;
        slots.close().await;
    });
    assert!(last > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_outgrows_an_entry_goes_on_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(
        &kv,
        OWNER,
        SlotOptions {
            entry_bytes_max: 5_000,
            ..SlotOptions::default()
        },
    );
    let write = |name: usize, len: usize| {
        let slots = slots.clone();
        async move {
            let body = move |txn: SlotTxn| async move {
                txn.set(key(&name.to_string()), vec![0; len]);
                Ok::<_, SlotError>(())
            };
            slots.write(slot(), body).await
        }
    };
    let answers = join_all((0..40).map(|name| write(name, 1_000))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(matches!(
        write(99, 6_000).await,
        Err(SlotError::TooLarge { limit: 5_000, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_cannot_write_into_another_slot() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, OWNER, SlotOptions::default());
    let foreign: Bytes = pack(&(8_u16, kind::TAIL, "x")).into();
    let body = move |txn: SlotTxn| {
        txn.set(foreign.clone(), Bytes::new());
        async { Ok::<_, SlotError>(()) }
    };
    assert!(matches!(
        slots.write(slot(), body).await,
        Err(SlotError::ForeignKey { .. })
    ));
}

#[derive(Default)]
struct Counting {
    carried: Mutex<Vec<u64>>,
    failures_left: AtomicUsize,
}

impl Carrier for Counting {
    fn wants(&self, event: &Event) -> bool {
        matches!(&event.body, Some(event::Body::MessageSent(sent)) if sent.seq % 3 == 0)
    }

    fn carry(&self, event: Event) -> BoxFuture<'static, Result<(), CarryError>> {
        let failing = self
            .failures_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if let (false, Some(event::Body::MessageSent(sent))) = (failing, event.body) {
            self.carried.lock().push(sent.seq);
        }
        async move {
            if failing {
                Err(CarryError("not yet".into()))
            } else {
                Ok(())
            }
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_carried_in_spite_of_failures() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let carrier = Arc::new(Counting {
        failures_left: AtomicUsize::new(3),
        ..Counting::default()
    });
    let slots = start_with(&kv, OWNER, SlotOptions::default(), vec![], vec![carrier.clone()]);
    for _ in 0..10 {
        count(&slots).await.unwrap();
    }
    assert!(slots.carried(slot(), 10, Duration::from_secs(5)).await);
    assert_eq!(*carrier.carried.lock(), [3, 6, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_carried_before_a_crash_is_carried_after_it() {
    let folder = tempfile::tempdir().unwrap();
    {
        let kv = open(folder.path()).await;
        let never = Arc::new(Counting {
            failures_left: AtomicUsize::new(usize::MAX),
            ..Counting::default()
        });
        let slots = start_with(&kv, OWNER, SlotOptions::default(), vec![], vec![never]);
        for _ in 0..4 {
            count(&slots).await.unwrap();
        }
        kv.close().await.unwrap();
        slots.close().await;
    }
    let kv = open(folder.path()).await;
    let carrier = Arc::new(Counting::default());
    let slots = start_with(&kv, [2; 16], SlotOptions::default(), vec![], vec![carrier.clone()]);
    assert_eq!(slots.recover().await.unwrap(), 1);
    assert!(slots.carried(slot(), 4, Duration::from_secs(5)).await);
    assert_eq!(*carrier.carried.lock(), [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_trimmed_and_counting_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let options = SlotOptions {
        log_entries_kept: 8,
        ..SlotOptions::default()
    };
    let slots = start(&kv, OWNER, options.clone());
    for number in 1..=300 {
        assert_eq!(count(&slots).await.unwrap(), number);
    }
    slots.close().await;
    let (start_key, end_key) = (
        pack(&(slot().number(), kind::LOG)),
        pack(&(slot().number(), kind::LOG + 1)),
    );
    let entries = kv
        .transact(|txn| {
            let (start, end) = (start_key.clone().into(), end_key.clone().into());
            async move {
                let range = antiphon_kv::RangeRead {
                    start,
                    end,
                    limit: 1_000,
                    reverse: false,
                };
                Ok::<_, antiphon_kv::KvError>(txn.range(range).await?.pairs.len())
            }
        })
        .await
        .unwrap();
    assert!((8..300).contains(&entries), "{entries} entries are left");
    let again = start(&kv, [3; 16], options);
    assert_eq!(count(&again).await.unwrap(), 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn close_answers_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let slots = start(&kv, OWNER, SlotOptions::default());
    let writes: Vec<_> = (0..100)
        .map(|_| {
            let slots = slots.clone();
            tokio::spawn(async move { count(&slots).await })
        })
        .collect();
    tokio::task::yield_now().await;
    slots.close().await;
    let mut done = 0;
    for write in writes {
        match write.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert!(matches!(error, SlotError::Closed { .. }), "{error}"),
        }
    }
    let again = start(&kv, [2; 16], SlotOptions::default());
    assert_eq!(counted(&again).await, done);
}
