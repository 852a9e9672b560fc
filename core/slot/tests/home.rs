//! A slot whose in-sync set has more members than its home.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_kv::{EmbeddedOptions, Kv, KvError};
use antiphon_slot::{
    CommittedEntry, Hooks, Lease, ReplicaLog, Shipping, SlotError, SlotOptions, SlotTxn, Slots,
    protocol::{Durability, InSync, LogState, Replica},
};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::sleep};

const STANDBY: Replica = 2;
const A_WHILE: Duration = Duration::from_millis(150);

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn key() -> Bytes {
    pack(&(slot().number(), kind::TAIL, "counter")).into()
}

fn with_standby() -> InSync {
    InSync {
        others: [STANDBY].into(),
        confirmed: 2,
        min_in_sync: 2,
        durability: Durability::Global,
        opening: u64::MAX,
    }
}

#[derive(Default)]
struct Shipped {
    entries: Mutex<Vec<(u64, Bytes)>>,
    slots: OnceLock<Slots>,
    /// What was told of the log, and what the log showed then.
    told: Mutex<Vec<(LogState, LogState)>>,
}

impl Shipping for Shipped {
    fn appended(&self, entry: &CommittedEntry) {
        self.entries.lock().push((entry.index, entry.encoded.clone()));
    }

    fn moved(&self, slot: Slot, state: &LogState) {
        let Some(slots) = self.slots.get() else { return };
        if let Ok(shown) = slots.log_state(slot) {
            self.told.lock().push((state.clone(), shown.borrow().clone()));
        }
    }
}

struct World {
    slots: Slots,
    lease: watch::Sender<bool>,
    shipped: Arc<Shipped>,
    kv: Kv,
    _folder: TempDir,
}

impl World {
    async fn start(in_sync: InSync) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().to_owned(),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        let (lease, shipped) = (watch::Sender::new(true), Arc::new(Shipped::default()));
        let is_valid = lease.subscribe();
        let changes = lease.subscribe();
        let hooks = Hooks {
            shipping: Some(shipped.clone()),
            lease: Lease::new(move || *is_valid.borrow(), changes),
            ..Hooks::default()
        };
        let slots = Slots::start(kv.clone(), SlotOptions::default(), [1; 16], hooks);
        let _ = shipped.slots.set(slots.clone());
        slots.grant(slot(), 1, in_sync);
        Self {
            slots,
            lease,
            shipped,
            kv,
            _folder: folder,
        }
    }

    fn count(&self) -> JoinHandle<Result<u64, SlotError>> {
        let slots = self.slots.clone();
        tokio::spawn(async move {
            let written = slots.write(slot(), |txn: SlotTxn| async move {
                let number = read_number(txn.get(&key()).await?) + 1;
                txn.set(key(), number.to_be_bytes().to_vec());
                Ok::<_, SlotError>(number)
            });
            written.await.map(|written| written.value)
        })
    }

    async fn counted(&self) -> Result<u64, SlotError> {
        let read = self.slots.read(slot(), |read| async move {
            Ok::<_, SlotError>(read_number(read.get(&key()).await?))
        });
        read.await
    }

    async fn stored(&self) -> u64 {
        let stored = self
            .kv
            .transact(|txn| async move { Ok::<_, KvError>(read_number(txn.get(&key()).await?)) });
        stored.await.unwrap()
    }

    /// Waits until the home itself holds `index`.
    async fn appended(&self, index: u64) {
        while !self.shipped.entries.lock().iter().any(|(shipped, _)| *shipped >= index) {
            sleep(Duration::from_millis(2)).await;
        }
    }
}

fn read_number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

/// Of what a replica says before the writer listens the latest counts, and a fetch that was under way speaks of an earlier moment.
#[tokio::test]
async fn older_news_of_a_replica_takes_nothing_back() {
    let world = World::start(with_standby()).await;
    let counting = world.count();
    world.appended(1).await;
    world.slots.held(slot(), 1, STANDBY, 1);
    world.slots.held(slot(), 1, STANDBY, 0);
    assert_eq!(counting.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn whoever_ships_is_told_of_a_log_when_it_shows_what_is_told() {
    let world = World::start(InSync::alone()).await;
    for number in 1..=3 {
        assert_eq!(world.count().await.unwrap().unwrap(), number);
    }
    let told = world.shipped.told.lock().clone();
    assert!(told.len() >= 4, "{told:?}");
    assert!(told.iter().all(|(state, shown)| state == shown), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_read_before_the_standby_holds_it() {
    let world = World::start(with_standby()).await;
    let first = world.count();
    world.appended(1).await;
    let read = world.counted();
    sleep(A_WHILE).await;
    assert!(!first.is_finished(), "acknowledged without the standby");
    assert_eq!(world.stored().await, 1);
    let read = tokio::time::timeout(A_WHILE, read).await;
    assert!(read.is_err(), "shown above the high watermark: {read:?}");

    world.slots.held(slot(), 1, STANDBY, 1);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(world.counted().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_observer_or_a_replica_of_another_epoch_holds_counts_for_nothing() {
    let world = World::start(with_standby()).await;
    let first = world.count();
    world.appended(1).await;
    world.slots.held(slot(), 1, STANDBY + 1, 1);
    world.slots.held(slot(), 2, STANDBY, 1);
    sleep(A_WHILE).await;
    assert!(!first.is_finished());
    world.slots.held(slot(), 1, STANDBY, 1);
    first.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_copies_writes_are_refused_and_reads_go_on() {
    let world = World::start(with_standby()).await;
    let first = world.count();
    world.appended(1).await;
    world.slots.held(slot(), 1, STANDBY, 1);
    first.await.unwrap().unwrap();

    let alone = InSync {
        min_in_sync: 2,
        ..InSync::alone()
    };
    world.slots.grant(slot(), 1, alone);
    let refused = world.count().await.unwrap();
    assert!(
        matches!(
            refused,
            Err(SlotError::TooFewInSync {
                in_sync: 1,
                min_in_sync: 2,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(world.counted().await.unwrap(), 1);

    world.slots.grant(slot(), 1, with_standby());
    let second = world.count();
    world.appended(2).await;
    world.slots.held(slot(), 1, STANDBY, 2);
    assert_eq!(second.await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_is_answered() {
    let world = World::start(with_standby()).await;
    let first = world.count();
    world.appended(1).await;
    world.lease.send_replace(false);
    world.slots.held(slot(), 1, STANDBY, 1);
    sleep(A_WHILE).await;
    assert!(!first.is_finished(), "answered without a lease");
    let read = world.counted().await;
    assert!(matches!(read, Err(SlotError::NoLease { .. })), "{read:?}");

    world.lease.send_replace(true);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(world.counted().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_handed_over_finishes_what_it_began_and_sends_the_rest_on() {
    let world = World::start(with_standby()).await;
    let begun = world.count();
    world.appended(1).await;
    let slots = world.slots.clone();
    let handed_over = tokio::spawn(async move { slots.hand_over(slot(), 1).await });
    sleep(A_WHILE).await;
    assert!(
        !handed_over.is_finished(),
        "handed over with an entry that is not committed"
    );
    let waiting = world.count();
    world.slots.held(slot(), 1, STANDBY, 1);
    assert_eq!(begun.await.unwrap().unwrap(), 1);
    assert!(handed_over.await.unwrap());
    // By then whoever ships knows, and tells the next home at once how far the log is committed.
    let (told, shown) = world.shipped.told.lock().last().cloned().unwrap();
    assert_eq!((told.is_handed_over, told.high_watermark), (true, 1));
    assert_eq!(shown, told);
    sleep(A_WHILE).await;
    assert!(!waiting.is_finished(), "taken or refused while the slot moves");
    assert_eq!(world.stored().await, 1);

    world.slots.withdraw(slot(), 2);
    let sent_on = waiting.await.unwrap();
    assert!(
        matches!(sent_on, Err(SlotError::NotHome { epoch: 2, .. })),
        "{sent_on:?}"
    );
    assert!(matches!(
        world.counted().await,
        Err(SlotError::NotHome { epoch: 2, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_stays_after_all_serves_on() {
    let world = World::start(InSync::alone()).await;
    world.count().await.unwrap().unwrap();
    assert!(world.slots.hand_over(slot(), 1).await);
    let waiting = world.count();
    world.slots.resume(slot(), 1);
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    assert_eq!(world.counted().await.unwrap(), 2);
    let told = world.shipped.told.lock().last().cloned().unwrap().0;
    assert_eq!((told.is_handed_over, told.high_watermark), (false, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_home_shows_nothing_before_its_standby_is_level() {
    let world = World::start(InSync::alone()).await;
    for _ in 0..3 {
        world.count().await.unwrap().unwrap();
    }
    world.slots.close().await;

    // As a replica it learns of two entries more, one of them above every watermark that it was told.
    let log = ReplicaLog::new(world.kv.clone());
    let header = log.promise(slot(), 2).await.unwrap();
    let entry = |index: u64| antiphon_proto::log::Entry {
        epoch: 2,
        index,
        writes: vec![antiphon_proto::log::Write {
            key: key(),
            value: Some(index.to_be_bytes().to_vec().into()),
        }],
        ..Default::default()
    };
    let bounds = antiphon_slot::Bounds {
        high_watermark: 4,
        ..Default::default()
    };
    log.append(slot(), 2, header.last_index, &[entry(4), entry(5)], bounds)
        .await
        .unwrap();
    assert_eq!(world.stored().await, 4);

    let slots = Slots::start(world.kv.clone(), SlotOptions::default(), [2; 16], Hooks::default());
    slots.grant(slot(), 3, with_standby());
    let world = World { slots, ..world };
    let read = tokio::time::timeout(A_WHILE, world.counted()).await;
    assert!(read.is_err(), "shown before it is committed again: {read:?}");
    assert_eq!(world.stored().await, 5, "what a home holds it keeps");
    world.slots.held(slot(), 3, STANDBY, 5);
    assert_eq!(world.counted().await.unwrap(), 5);
}

#[tokio::test]
async fn a_home_that_is_short_of_copies_can_be_copied_from_while_it_opens() {
    let world = World::start(InSync::alone()).await;
    for number in 1..=3 {
        assert_eq!(world.count().await.unwrap().unwrap(), number);
    }
    // It is home again after others, alone in the in-sync set, and may not open before somebody has taken a copy.
    let alone = InSync {
        others: [].into(),
        confirmed: 1,
        ..with_standby()
    };
    world.slots.grant(slot(), 2, alone);
    let mut state = world.slots.log_state(slot()).unwrap();
    let log = state.wait_for(|log| log.epoch == 2).await.unwrap().clone();
    let end = world.slots.copy_end(slot(), &log);
    assert_eq!(end, log.last_index);
    let page = async {
        loop {
            if let Some(page) = world.slots.copy_page(slot(), &Bytes::new(), end).await.unwrap() {
                return page;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(20), page).await.unwrap();
    assert!(page.pairs.iter().any(|pair| pair.key == key()), "{page:?}");
    // Of another end it is not: the copy would lack what the log holds no more.
    assert!(
        world
            .slots
            .copy_page(slot(), &Bytes::new(), end - 1)
            .await
            .unwrap()
            .is_none()
    );

    // With the copy there are enough.
    world.slots.grant(slot(), 2, with_standby());
    world.slots.held(slot(), 2, STANDBY, end);
    assert_eq!(world.counted().await.unwrap(), 3);
}
