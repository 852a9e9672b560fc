//! A watch fires after a durable commit that changed its key.

use std::time::Duration;

use tokio::time::timeout;

use super::{Space, read, write};
use crate::{Kv, Txn, Watch};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    every_kind_of_change_fires(kv).await;
    what_woke_it_can_be_read(kv).await;
    a_change_of_another_key_does_not_fire(kv).await;
    all_watches_of_a_key_fire(kv).await;
}

const SOON: Duration = Duration::from_secs(5);

/// Whether `watch` fires within a time in which it should.
async fn fires(watch: Watch) -> bool {
    timeout(SOON, watch.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
}

type Change<'a> = &'a (dyn Fn(&Txn) + Send + Sync);

/// Set, clear, cleared range and atomics.
pub async fn every_kind_of_change_fires(kv: &Kv) {
    let key = &Space::new(kv, "watch_kinds").await.key("a");
    let end = [&key[..], b"b"].concat();
    let changes: [(&str, Change<'_>); 6] = [
        ("set", &|txn| txn.set(key.clone(), "1")),
        ("clear", &|txn| txn.clear(key.clone())),
        ("add", &|txn| txn.add(key.clone(), 1)),
        ("max", &|txn| txn.max(key.clone(), 9)),
        ("clear_range", &|txn| txn.clear_range(key.clone(), end.clone())),
        ("set again", &|txn| txn.set(key.clone(), "2")),
    ];
    for (name, change) in changes {
        let watch = kv.watch(key).await.unwrap();
        write(kv, change).await.unwrap();
        assert!(fires(watch).await, "{name}");
    }
}

/// Who is woken reads the change: watch, read, wait, read.
pub async fn what_woke_it_can_be_read(kv: &Kv) {
    let key = Space::new(kv, "watch_read").await.key("a");
    for round in 0..50_u32 {
        let watch = kv.watch(&key).await.unwrap();
        let value = round.to_string();
        let writer = {
            let (kv, key, value) = (kv.clone(), key.clone(), value.clone());
            tokio::spawn(async move { write(&kv, |txn| txn.set(key.clone(), value.clone())).await })
        };
        assert!(fires(watch).await);
        assert_eq!(read(kv, &key).await.unwrap(), value);
        writer.await.unwrap().unwrap();
    }
}

/// Neighbours do not wake anyone.
pub async fn a_change_of_another_key_does_not_fire(kv: &Kv) {
    let space = Space::new(kv, "watch_other").await;
    let mut watching = Box::pin(kv.watch(&space.key("b")).await.unwrap().changed());
    write(kv, |txn| {
        txn.set(space.key("a"), "1");
        txn.set(space.key("bb"), "1");
        txn.clear_range(space.key("c"), space.key("d"));
    })
    .await
    .unwrap();
    assert!(
        timeout(Duration::from_millis(50), &mut watching).await.is_err(),
        "woken by another key"
    );
    write(kv, |txn| txn.set(space.key("b"), "1")).await.unwrap();
    assert!(timeout(SOON, watching).await.is_ok_and(|changed| changed.is_ok()));
}

/// A key may be watched by many.
pub async fn all_watches_of_a_key_fire(kv: &Kv) {
    let key = Space::new(kv, "watch_many").await.key("a");
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(kv.watch(&key).await.unwrap());
    }
    drop(watches.pop());
    write(kv, |txn| txn.set(key.clone(), "1")).await.unwrap();
    for watch in watches {
        assert!(fires(watch).await);
    }
}
