use std::{path::PathBuf, time::Duration};

use antiphon_kv::{
    Kv, KvError, Limits, RangeRead,
    contract::{
        self,
        history::{Action, Step},
    },
};
use antiphon_kv_fdb::FdbOptions;
use bytes::Bytes;
use parking_lot::Mutex;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

use crate::{
    cluster,
    fdb::{Cluster, Programs},
};

pub(crate) fn options(cluster: &Cluster, region: &str) -> FdbOptions {
    FdbOptions {
        cluster_file: Some(cluster.cluster_file()),
        prefix: vec!["tests".to_owned(), region.to_owned()],
        watches_max: 100,
        ..FdbOptions::default()
    }
}

pub(crate) async fn open(cluster: &Cluster, region: &str) -> Kv {
    antiphon_kv_fdb::open(options(cluster, region)).await.unwrap()
}

pub(crate) async fn set(kv: &Kv, key: &str, value: &str) -> Result<(), KvError> {
    kv.transact(|txn| async move {
        txn.set(key.to_owned(), value.to_owned());
        Ok(())
    })
    .await
}

pub(crate) async fn get(kv: &Kv, key: &str) -> Result<Option<String>, KvError> {
    let value = kv.transact(|txn| async move { txn.get(key.as_bytes()).await }).await?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

pub(crate) async fn contract_holds(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    contract::run_all(|| open(&cluster, "contract")).await;
}

pub(crate) async fn histories_are_serializable(programs: Programs) {
    const HISTORIES: usize = 60;
    let cluster = cluster(programs, 1, "single memory").await;
    let kv = open(&cluster, "histories").await;
    let mut runner = TestRunner::new(Config::default());
    for run in 0..HISTORIES {
        let steps = vec(step(), 1..60).new_tree(&mut runner).unwrap().current();
        let prefix = format!("history/{run:06}/");
        contract::history::is_serializable(&kv, prefix.as_bytes(), &steps).await;
    }
    kv.close().await.unwrap();
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..8_u8;
    let get = (key(), any::<bool>()).prop_map(|(key, snapshot)| Action::Get { key, snapshot });
    let range = (key(), 0..10_u8, 1..6_usize, any::<bool>(), any::<bool>()).prop_map(
        |(start, end, limit, reverse, snapshot)| Action::Range {
            start,
            end,
            limit,
            reverse,
            snapshot,
        },
    );
    let set = (key(), vec(any::<u8>(), 0..10)).prop_map(|(key, value)| Action::Set { key, value });
    let clear_range = (key(), 0..10_u8).prop_map(|(start, end)| Action::ClearRange { start, end });
    let action = prop_oneof![
        3 => get,
        3 => range,
        3 => set,
        1 => key().prop_map(|key| Action::Clear { key }),
        1 => clear_range,
        2 => (key(), any::<u64>()).prop_map(|(key, delta)| Action::Add { key, delta }),
        1 => (key(), any::<u64>()).prop_map(|(key, value)| Action::Max { key, value }),
        4 => Just(Action::Commit),
    ];
    (0..4_u8, action).prop_map(|(txn, action)| Step { txn, action })
}

pub(crate) async fn stores_of_different_prefixes_do_not_meet(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let (us, us_east) = (open(&cluster, "us").await, open(&cluster, "us-east").await);
    set(&us, "-east", "of us").await.unwrap();
    set(&us_east, "a", "of us-east").await.unwrap();
    for (kv, expected) in [(&us, "-east"), (&us_east, "a")] {
        let all: Result<_, KvError> = kv.transact(|txn| async move { txn.range(everything()).await }).await;
        let keys: Vec<_> = all.unwrap().pairs.into_iter().map(|pair| pair.key).collect();
        assert_eq!(keys, [expected]);
    }
}

fn everything() -> RangeRead {
    RangeRead {
        start: vec![0].into(),
        end: vec![0xff].into(),
        limit: usize::MAX,
        reverse: false,
    }
}

pub(crate) async fn watches_are_bounded(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let kv = open(&cluster, "watches").await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(kv.watch(b"key").await.unwrap());
    }
    let refused = kv.watch(b"other").await.unwrap_err();
    assert!(matches!(refused, KvError::Unavailable(_)), "{refused:?}");
    watches.pop();
    kv.watch(b"other").await.unwrap();
}

pub(crate) async fn what_cannot_be_opened_is_named(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let nowhere = FdbOptions {
        cluster_file: Some(PathBuf::from("/nowhere/fdb.cluster")),
        ..options(&cluster, "errors")
    };
    let refused = antiphon_kv_fdb::open(nowhere).await.unwrap_err();
    assert!(
        matches!(&refused, KvError::Io(told) if told.contains("/nowhere/fdb.cluster")),
        "{refused:?}"
    );
}

/// The port's own limit of age is lifted, so that FoundationDB's shows.
pub(crate) async fn a_range_goes_on_when_its_snapshot_has_grown_too_old(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let kv = open(&cluster, "ages").await;
    let kv = kv.clone().with_limits(Limits {
        transaction_age_ms_max: 60_000,
        ..kv.limits()
    });
    for index in 0..10 {
        set(&kv, &format!("range/{index}"), "value").await.unwrap();
    }
    let found = Mutex::new(Vec::new());
    let cut = read(&kv, &found, Duration::from_secs(8)).await.unwrap_err();
    assert!(
        matches!(&cut, KvError::RetriesExhausted { last, .. } if matches!(**last, KvError::TooOld { .. })),
        "{cut:?}"
    );
    assert_eq!(found.lock().len(), 4, "one page was read in time");
    read(&kv, &found, Duration::ZERO).await.unwrap();
    let expected: Vec<String> = (0..10).map(|index| format!("range/{index}")).collect();
    assert_eq!(*found.lock(), expected);
}

/// Reads the range page by page in one transaction, after what was found before, with a pause after each page.
async fn read(kv: &Kv, found: &Mutex<Vec<Bytes>>, pause: Duration) -> Result<(), KvError> {
    kv.transact(|txn| async move {
        loop {
            let last = found.lock().last().cloned();
            let start = last.map_or_else(|| Bytes::from("range/"), |last| [&last[..], &[0]].concat().into());
            let page = RangeRead {
                start,
                end: "range0".into(),
                limit: 4,
                reverse: false,
            };
            let page = txn.range(page).await?;
            found.lock().extend(page.pairs.into_iter().map(|pair| pair.key));
            if !page.more {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
    })
    .await
}
