//! A slot's log at a replica, over the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;

use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_proto::log::{Entry, EpochStart, Write};
use antiphon_slot::{
    Bounds, Hooks, ReplicaLog, SlotError, SlotOptions, SlotTxn, Slots,
    protocol::{Durability, InSync},
};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use prost::Message as _;
use tempfile::TempDir;

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn key(name: &str) -> Bytes {
    pack(&(slot().number(), kind::TAIL, name)).into()
}

/// An entry that sets `last` to its own index, and a key that only it writes.
fn entry(epoch: u64, index: u64) -> Entry {
    let write = |name: String, value: Vec<u8>| Write {
        key: key(&name),
        value: Some(value.into()),
    };
    Entry {
        epoch,
        index,
        batch_id: format!("{epoch}-{index}").into_bytes().into(),
        writes: vec![
            write("last".to_owned(), index.to_be_bytes().to_vec()),
            write(format!("own-{index}"), vec![7; 3_000]),
        ],
        events: vec![],
    }
}

fn entries(epoch: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(epoch, index)).collect()
}

fn watermark(high_watermark: u64) -> Bounds {
    Bounds {
        high_watermark,
        ..Bounds::default()
    }
}

struct Replica {
    log: ReplicaLog,
    kv: Kv,
    _folder: TempDir,
}

impl Replica {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kv = open(folder.path()).await;
        Self {
            log: ReplicaLog::new(kv.clone()),
            kv,
            _folder: folder,
        }
    }

    async fn value(&self, name: &str) -> Option<Bytes> {
        let key = key(name);
        self.kv
            .transact(|txn| {
                let key = key.clone();
                async move { txn.get(&key).await }
            })
            .await
            .unwrap()
    }

    async fn last_applied(&self) -> u64 {
        self.value("last")
            .await
            .map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
    }
}

async fn open(path: &Path) -> Kv {
    let options = EmbeddedOptions {
        path: path.to_owned(),
        ..EmbeddedOptions::default()
    };
    Kv::open_embedded(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_stored_at_once_and_applied_up_to_the_high_watermark() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 3).await.unwrap();
    let header = replica
        .log
        .append(slot(), 3, 0, &entries(3, 1..=500), watermark(0))
        .await
        .unwrap();
    assert_eq!((header.last_index, header.applied_index), (500, 0));
    assert_eq!(replica.last_applied().await, 0);

    let header = replica
        .log
        .append(slot(), 3, 500, &entries(3, 501..=502), watermark(400))
        .await
        .unwrap();
    assert_eq!(
        (header.last_index, header.applied_index, header.high_watermark),
        (502, 400, 400)
    );
    assert_eq!(replica.last_applied().await, 400);

    let header = replica.log.apply_to(slot(), 3, watermark(9_999)).await.unwrap();
    assert_eq!((header.applied_index, replica.last_applied().await), (502, 502));
    assert!(replica.value("own-137").await.is_some());
    let stored = replica.log.entries(slot(), 499, 9_999, usize::MAX).await.unwrap();
    let stored: Vec<_> = stored.into_iter().map(|value| Entry::decode(value).unwrap()).collect();
    assert_eq!(stored, entries(3, 499..=502));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_epoch_stores_nothing_once_a_higher_one_is_promised() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 3).await.unwrap();
    replica
        .log
        .append(slot(), 3, 0, &entries(3, 1..=2), watermark(2))
        .await
        .unwrap();
    replica.log.promise(slot(), 4).await.unwrap();
    let is_refused = |result| matches!(result, Err(SlotError::NotHome { epoch: 4, .. }));
    assert!(is_refused(
        replica.log.append(slot(), 3, 2, &entries(3, 3..=3), watermark(3)).await
    ));
    assert!(is_refused(replica.log.apply_to(slot(), 3, watermark(3)).await));
    let known = replica.log.header(slot()).await.unwrap();
    assert!(is_refused(replica.log.cut(slot(), 3, &known, 1).await));
    assert!(is_refused(replica.log.promise(slot(), 3).await));
    assert_eq!(replica.log.header(slot()).await.unwrap().last_index, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_and_a_repetition_are_refused() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 1).await.unwrap();
    replica
        .log
        .append(slot(), 1, 0, &entries(1, 1..=3), watermark(0))
        .await
        .unwrap();
    for (prev, indexes) in [(4, 5..=6), (2, 3..=4), (3, 5..=6)] {
        let appended = replica
            .log
            .append(slot(), 1, prev, &entries(1, indexes), watermark(0))
            .await;
        assert!(matches!(appended, Err(SlotError::Stale { .. })), "{prev}: {appended:?}");
    }
    assert_eq!(replica.log.header(slot()).await.unwrap().last_index, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_is_kept_aside_until_it_is_forgotten() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 2).await.unwrap();
    let log = &replica.log;
    log.append(slot(), 2, 0, &entries(1, 1..=10), watermark(10))
        .await
        .unwrap();
    log.append(slot(), 2, 10, &entries(2, 11..=300), watermark(11))
        .await
        .unwrap();

    let known = log.promise(slot(), 3).await.unwrap();
    let header = log.cut(slot(), 3, &known, 12).await.unwrap();
    assert_eq!(
        (header.last_index, header.applied_index, header.high_watermark),
        (12, 11, 11)
    );
    assert_eq!(header.last_batch_id, "2-12");
    let started = |epoch, first_index| EpochStart { epoch, first_index };
    assert_eq!(header.epochs, [started(1, 1), started(2, 11)]);
    assert_eq!(cut_off(log).await, entries(2, 13..=300));

    let header = log
        .append(slot(), 3, 12, &entries(3, 13..=14), watermark(14))
        .await
        .unwrap();
    assert_eq!(header.epochs, [started(1, 1), started(2, 11), started(3, 13)]);
    assert_eq!(replica.last_applied().await, 14);
}

/// What was cut, taken page by page as it is proposed again.
async fn cut_off(log: &ReplicaLog) -> Vec<Entry> {
    let mut found = Vec::new();
    loop {
        let page = log.cut_entries(slot()).await.unwrap();
        if page.is_empty() {
            return found;
        }
        for entry in page {
            log.forget_cut(slot(), 3, entry.index).await.unwrap();
            found.push(entry);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_aside_what_is_not_known_to_be_with_others() {
    let replica = Replica::new().await;
    let log = &replica.log;
    log.promise(slot(), 2).await.unwrap();
    log.append(slot(), 2, 0, &entries(2, 1..=300), watermark(100))
        .await
        .unwrap();
    log.promise(slot(), 3).await.unwrap();

    let known = log.header(slot()).await.unwrap();
    let begun = log.begin_copy(slot(), 3, &known).await.unwrap();
    assert_eq!(replica.last_applied().await, 0);
    // Once more, as after a crash in between: nothing of it is lost.
    let begun = log.begin_copy(slot(), 3, &begun).await.unwrap();
    let header = log.copied(slot(), 3, begun.copy, (400, 400), Vec::new()).await.unwrap();
    assert_eq!((header.first_index, header.last_index), (401, 400));
    assert_eq!(cut_off(log).await, entries(2, 101..=300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_does_not_end_under_an_epoch_that_was_followed_by_another() {
    let replica = Replica::new().await;
    let log = &replica.log;
    log.promise(slot(), 3).await.unwrap();
    let known = log.header(slot()).await.unwrap();
    let begun = log.begin_copy(slot(), 3, &known).await.unwrap();
    log.promise(slot(), 4).await.unwrap();
    let late = log.copied(slot(), 3, begun.copy, (400, 400), Vec::new()).await;
    assert!(matches!(late, Err(SlotError::NotHome { epoch: 4, .. })), "{late:?}");
    assert_eq!(log.header(slot()).await.unwrap().epoch, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_returns_takes_back_what_was_never_committed() {
    let replica = Replica::new().await;
    let slots = Slots::start(replica.kv.clone(), SlotOptions::default(), [1; 16], Hooks::default());
    let with_standby = InSync {
        others: [2].into(),
        confirmed: 2,
        min_in_sync: 2,
        durability: Durability::Global,
        opening: u64::MAX,
    };
    slots.grant(slot(), 1, with_standby);
    let write = |number: u64| {
        let slots = slots.clone();
        tokio::spawn(async move {
            let written = slots.write(slot(), move |txn: SlotTxn| async move {
                txn.set(key("last"), number.to_be_bytes().to_vec());
                txn.set(key(&format!("own-{number}")), vec![1]);
                if number == 3 {
                    txn.clear(key("own-1"));
                }
                Ok::<_, SlotError>(())
            });
            written.await.map(drop)
        })
    };
    let mut writes = Vec::new();
    for number in 1..=4 {
        writes.push(write(number));
        while replica.log.header(slot()).await.unwrap().last_index < number {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        if number <= 2 {
            slots.held(slot(), 1, 2, number);
        }
    }
    assert_eq!((replica.last_applied().await, replica.value("own-1").await), (4, None));

    // The standby became home with the two entries that it holds.
    let header = replica.log.promise(slot(), 2).await.unwrap();
    assert_eq!(header.last_index, 4);
    replica.log.cut(slot(), 2, &header, 2).await.unwrap();
    assert_eq!(replica.last_applied().await, 2);
    assert!(replica.value("own-1").await.is_some() && replica.value("own-2").await.is_some());
    assert_eq!(
        (replica.value("own-3").await, replica.value("own-4").await),
        (None, None)
    );
    let cut = replica.log.cut_entries(slot()).await.unwrap();
    assert_eq!(cut.iter().map(|entry| entry.index).collect::<Vec<_>>(), [3, 4]);

    // What was committed cannot be taken back: only a copy helps a replica that would have to.
    let header = replica
        .log
        .append(slot(), 2, 2, &entries(2, 3..=3), watermark(3))
        .await
        .unwrap();
    assert_eq!(header.undo_first_index, 0);
    let cut = replica.log.cut(slot(), 2, &header, 1).await;
    assert!(matches!(cut, Err(SlotError::Corrupt { .. })), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_as_nothing_until_it_is_whole() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 2).await.unwrap();
    let known = replica
        .log
        .append(slot(), 2, 0, &entries(2, 1..=5), watermark(5))
        .await
        .unwrap();
    let header = replica.log.begin_copy(slot(), 2, &known).await.unwrap();
    assert_eq!(replica.value("own-3").await, None);
    assert_eq!(header, replica.log.header(slot()).await.unwrap());
    let copy = header.copy;
    assert!(header.copying && header.last_index == 0);
    let appended = replica.log.append(slot(), 2, 0, &entries(2, 1..=1), watermark(0)).await;
    assert!(matches!(appended, Err(SlotError::Stale { .. })), "{appended:?}");

    let page = [Write {
        key: key("own-80"),
        value: Some(Bytes::from_static(b"80")),
    }];
    replica.log.put(slot(), 2, copy, &page).await.unwrap();
    let epochs = vec![EpochStart {
        epoch: 2,
        first_index: 1,
    }];
    let header = replica.log.copied(slot(), 2, copy, (80, 70), epochs).await.unwrap();
    assert_eq!(
        (header.last_index, header.first_index, header.applied_index),
        (80, 81, 80)
    );
    // What came with the copy cannot be taken back.
    let cut = replica.log.cut(slot(), 2, &header, 79).await;
    assert!(matches!(cut, Err(SlotError::Corrupt { .. })), "{cut:?}");
    replica
        .log
        .append(slot(), 2, 80, &entries(2, 81..=81), watermark(81))
        .await
        .unwrap();
    assert_eq!(replica.last_applied().await, 81);

    let foreign: Bytes = pack(&(9_u16, kind::TAIL)).into();
    let put = replica
        .log
        .put(
            slot(),
            2,
            copy,
            &[Write {
                key: foreign,
                value: None,
            }],
        )
        .await;
    assert!(matches!(put, Err(SlotError::ForeignKey { .. })), "{put:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_trimmed_where_the_home_trimmed_it_and_applied() {
    let replica = Replica::new().await;
    replica.log.promise(slot(), 1).await.unwrap();
    let bounds = Bounds {
        first_index: 250,
        carried_index: 240,
        high_watermark: 200,
    };
    let header = replica
        .log
        .append(slot(), 1, 0, &entries(1, 1..=300), bounds)
        .await
        .unwrap();
    assert_eq!(
        (header.applied_index, header.first_index, header.carried_index),
        (200, 201, 240)
    );
    let stored = replica.log.entries(slot(), 1, 300, usize::MAX).await.unwrap();
    assert_eq!(Entry::decode(stored[0].clone()).unwrap().index, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_lost_its_slot_here_writes_nothing_more() {
    let replica = Replica::new().await;
    let slots = Slots::start(replica.kv.clone(), SlotOptions::default(), [1; 16], Hooks::default());
    slots.grant(slot(), 1, InSync::alone());
    let write = || {
        slots.write(slot(), |txn: SlotTxn| async move {
            txn.set(key("last"), 1_u64.to_be_bytes().to_vec());
            Ok::<_, SlotError>(())
        })
    };
    write().await.unwrap();
    replica.log.promise(slot(), 2).await.unwrap();
    assert!(matches!(write().await, Err(SlotError::NotHome { epoch: 2, .. })));
    replica
        .log
        .append(slot(), 2, 1, &entries(2, 2..=2), watermark(2))
        .await
        .unwrap();
    assert_eq!(replica.last_applied().await, 2);
}

/// Two nodes of a region, with one store, both follow the slot for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_on_another_log_drops_nothing() {
    let replica = Replica::new().await;
    let log = &replica.log;
    log.promise(slot(), 2).await.unwrap();
    log.append(slot(), 2, 0, &entries(1, 1..=10), watermark(8))
        .await
        .unwrap();
    let known = log.promise(slot(), 3).await.unwrap();

    // One has cut and goes on when what the other was told comes to be done.
    log.cut(slot(), 3, &known, 8).await.unwrap();
    let held = log
        .append(slot(), 3, 8, &entries(3, 9..=10), watermark(8))
        .await
        .unwrap();
    assert_eq!(held.last_index, known.last_index);
    let is_stale = |result: Result<_, SlotError>| matches!(result, Err(SlotError::Stale { .. }));
    assert!(is_stale(log.cut(slot(), 3, &known, 8).await));
    assert!(is_stale(log.begin_copy(slot(), 3, &known).await));
    assert_eq!(log.header(slot()).await.unwrap(), held);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_the_later_goes_on() {
    let replica = Replica::new().await;
    let log = &replica.log;
    let known = log.promise(slot(), 2).await.unwrap();
    let page = |text: &'static str| {
        [Write {
            key: key(text),
            value: Some(Bytes::from_static(b"1")),
        }]
    };
    let first = log.begin_copy(slot(), 2, &known).await.unwrap();
    log.put(slot(), 2, first.copy, &page("first")).await.unwrap();
    let second = log.begin_copy(slot(), 2, &first).await.unwrap();

    let is_stale = |result| matches!(result, Err(SlotError::Stale { .. }));
    assert!(is_stale(log.put(slot(), 2, first.copy, &page("more")).await));
    let ended = log.copied(slot(), 2, first.copy, (9, 9), vec![]).await;
    assert!(is_stale(ended.map(|_| ())));

    log.put(slot(), 2, second.copy, &page("second")).await.unwrap();
    log.copied(slot(), 2, second.copy, (5, 5), vec![]).await.unwrap();
    let values = (replica.value("first").await, replica.value("second").await.is_some());
    assert_eq!(values, (None, true));
    // A page that comes late changes nothing any more.
    assert!(is_stale(log.put(slot(), 2, second.copy, &page("second")).await));
}

/// A copy that was under way when the slot got another home.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_copy_takes_no_promise_back() {
    let replica = Replica::new().await;
    let log = &replica.log;
    let known = log.promise(slot(), 2).await.unwrap();
    let copy = log.begin_copy(slot(), 2, &known).await.unwrap().copy;
    log.promise(slot(), 3).await.unwrap();
    let ended = log.copied(slot(), 2, copy, (9, 9), vec![]).await;
    assert!(matches!(ended, Err(SlotError::NotHome { epoch: 3, .. })), "{ended:?}");
    assert_eq!(log.header(slot()).await.unwrap().epoch, 3);
}
