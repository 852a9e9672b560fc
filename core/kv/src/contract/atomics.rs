//! Atomic operations are resolved at the commit and never conflict with each other.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Space, assert_conflict, number, read, read_number, write};
use crate::{Kv, KvError};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    atomics_count_from_zero_and_wrap(kv).await;
    atomics_do_not_conflict_with_each_other(kv).await;
    a_read_conflicts_with_an_atomic(kv).await;
    own_atomics_are_read(kv).await;
    atomics_follow_the_order_of_writes(kv).await;
    concurrent_atomics_are_all_counted(kv).await;
}

/// An absent value counts as zero, a short one as padded, a sum wraps.
pub async fn atomics_count_from_zero_and_wrap(kv: &Kv) {
    let space = Space::new(kv, "atomic_values").await;
    write(kv, |txn| txn.set(space.key("short"), vec![7_u8])).await.unwrap();
    write(kv, |txn| {
        txn.add(space.key("absent"), 3);
        txn.max(space.key("max_absent"), 3);
        txn.add(space.key("short"), 256);
        txn.add(space.key("wraps"), u64::MAX);
    })
    .await
    .unwrap();
    write(kv, |txn| {
        txn.add(space.key("wraps"), 2);
        txn.max(space.key("max_absent"), 2);
    })
    .await
    .unwrap();
    for (name, expected) in [("absent", 3), ("max_absent", 3), ("short", 263), ("wraps", 1)] {
        assert_eq!(read_number(kv, &space.key(name)).await, expected, "{name}");
    }
}

/// Two that began together both count.
pub async fn atomics_do_not_conflict_with_each_other(kv: &Kv) {
    let key = Space::new(kv, "atomic_pair").await.key("n");
    let (first, second) = (kv.begin().await.unwrap(), kv.begin().await.unwrap());
    first.add(key.clone(), 1);
    second.add(key.clone(), 2);
    kv.commit(&first).await.unwrap();
    kv.commit(&second).await.unwrap();
    assert_eq!(read_number(kv, &key).await, 3);
}

/// Who has read the value has to run again.
pub async fn a_read_conflicts_with_an_atomic(kv: &Kv) {
    let space = Space::new(kv, "atomic_read").await;
    let reader = kv.begin().await.unwrap();
    reader.get(&space.key("n")).await.unwrap();
    reader.set(space.key("seen"), "0");
    write(kv, |txn| txn.add(space.key("n"), 1)).await.unwrap();
    assert_conflict!(kv.commit(&reader).await, "the value has changed");

    let reader = kv.begin().await.unwrap();
    reader.add(space.key("n"), 1);
    assert_eq!(
        reader.get(&space.key("n")).await.unwrap().map(|value| number(&value)),
        Some(2)
    );
    write(kv, |txn| txn.add(space.key("n"), 1)).await.unwrap();
    assert_conflict!(kv.commit(&reader).await, "an own atomic was read with what is below it");
}

/// Reads show what the buffered operations make of the snapshot.
pub async fn own_atomics_are_read(kv: &Kv) {
    let space = Space::new(kv, "own_atomics").await;
    write(kv, |txn| txn.add(space.key("a"), 40)).await.unwrap();
    let txn = kv.begin().await.unwrap();
    txn.add(space.key("a"), 2);
    txn.max(space.key("a"), 10);
    txn.max(space.key("b"), 5);
    assert_eq!(number(&txn.get(&space.key("a")).await.unwrap().unwrap()), 42);
    assert_eq!(number(&txn.snapshot_get(&space.key("b")).await.unwrap().unwrap()), 5);
    let page = txn.snapshot_range(space.all()).await.unwrap();
    let values: Vec<u64> = page.pairs.iter().map(|pair| number(&pair.value)).collect();
    assert_eq!(values, [42, 5]);
}

/// Set, clear, cleared range and atomics of one transaction apply one after another.
pub async fn atomics_follow_the_order_of_writes(kv: &Kv) {
    let space = Space::new(kv, "atomic_order").await;
    write(kv, |txn| {
        ["a", "b", "c", "d"]
            .iter()
            .for_each(|name| txn.add(space.key(name), 100));
    })
    .await
    .unwrap();
    write(kv, |txn| {
        txn.set(space.key("a"), Bytes::copy_from_slice(&5_u64.to_le_bytes()));
        txn.add(space.key("a"), 1);
        txn.clear(space.key("b"));
        txn.add(space.key("b"), 1);
        txn.add(space.key("c"), 7);
        txn.clear_range(space.key("c"), space.key("d"));
        txn.add(space.key("c"), 1);
        txn.add(space.key("d"), 1);
        txn.max(space.key("d"), 200);
        txn.add(space.key("d"), 1);
        txn.add(space.key("e"), 1);
        txn.clear(space.key("e"));
    })
    .await
    .unwrap();
    for (name, expected) in [("a", 6), ("b", 1), ("c", 1), ("d", 201)] {
        assert_eq!(read_number(kv, &space.key(name)).await, expected, "{name}");
    }
    assert_eq!(read(kv, &space.key("e")).await, None);
}

/// Many at once, none tried twice, all counted.
pub async fn concurrent_atomics_are_all_counted(kv: &Kv) {
    let space = Space::new(kv, "atomic_crowd").await;
    let tasks = (1..=16_u64).map(|task| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let added = write(&kv, |txn| {
                    txn.add(space.key("sum"), 1);
                    txn.max(space.key("max"), task * 100 + round);
                });
                added.await.expect("atomics do not conflict");
            }
            Ok::<(), KvError>(())
        })
    });
    for ended in join_all(tasks).await {
        ended.unwrap().unwrap();
    }
    assert_eq!(read_number(kv, &space.key("sum")).await, 160);
    assert_eq!(read_number(kv, &space.key("max")).await, 1_609);
}
