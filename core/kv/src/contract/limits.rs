//! The port's limits hold over each engine; the refusal names the thing, its size and the limit.

use std::time::Duration;

use super::{Space, read, write};
use crate::{Kv, KvError, Limits, Txn};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    what_is_at_the_limit_is_accepted(kv).await;
    long_keys_and_values_are_refused(kv).await;
    a_large_transaction_is_refused(kv).await;
    reads_count_for_the_size_of_a_transaction(kv).await;
    writing_a_key_again_does_not_count_twice(kv).await;
    an_old_transaction_is_refused(kv).await;
}

fn assert_too_large<T: std::fmt::Debug>(result: Result<T, KvError>, thing: &str, size: usize, limit: usize) {
    match result {
        Err(KvError::TooLarge {
            what,
            size: found,
            limit: bound,
        }) => {
            assert_eq!((what, found, bound), (thing, size, limit));
        }
        other => panic!("{thing} of {size} bytes was answered {other:?}"),
    }
}

/// The limits themselves are allowed.
pub async fn what_is_at_the_limit_is_accepted(kv: &Kv) {
    let space = Space::new(kv, "at_the_limit").await;
    let limits = kv.limits();
    let mut key = space.key("").to_vec();
    key.resize(limits.key_bytes_max, b'k');
    let value = vec![b'v'; limits.value_bytes_max];
    write(kv, |txn| txn.set(key.clone(), value.clone())).await.unwrap();
    assert_eq!(read(kv, &key.into()).await.unwrap(), value);
    write(kv, |txn| fill(txn, space, limits.transaction_bytes_max))
        .await
        .unwrap();
}

/// Keys and values over their limits fail the next read and the commit; an empty key fails too.
pub async fn long_keys_and_values_are_refused(kv: &Kv) {
    let space = Space::new(kv, "over_the_limit").await;
    let limits = kv.limits();
    let (key, value) = (
        vec![b'k'; limits.key_bytes_max + 1],
        vec![b'v'; limits.value_bytes_max + 1],
    );
    let too_long_key = |result| assert_too_large(result, "a key", limits.key_bytes_max + 1, limits.key_bytes_max);
    let too_long_value =
        |result| assert_too_large(result, "a value", limits.value_bytes_max + 1, limits.value_bytes_max);
    too_long_key(write(kv, |txn| txn.set(key.clone(), "")).await);
    too_long_key(write(kv, |txn| txn.clear(key.clone())).await);
    too_long_key(write(kv, |txn| txn.add(key.clone(), 1)).await);
    too_long_key(kv.begin().await.unwrap().get(&key).await.map(|_| ()));
    too_long_value(write(kv, |txn| txn.set(space.key("a"), value.clone())).await);
    let refused = write(kv, |txn| txn.set("", "")).await;
    assert!(
        matches!(refused, Err(KvError::Io(_))),
        "an empty key was answered {refused:?}"
    );

    let txn = kv.begin().await.unwrap();
    txn.set(space.key("a"), value);
    txn.set(space.key("b"), "short");
    too_long_value(txn.get(&space.key("b")).await.map(|_| ()));
    too_long_value(kv.commit(&txn).await);
    assert_eq!(
        read(kv, &space.key("b")).await,
        None,
        "nothing of a refused transaction is written"
    );
}

/// Writes `bytes` of keys and values.
fn fill(txn: &Txn, space: Space, bytes: usize) {
    let mut left = bytes;
    for index in 0.. {
        let key = space.key(&format!("{index:04}"));
        if left <= key.len() {
            // What is left is too short for a key of its own: the value before this one gets it.
            let last = space.key(&format!("{:04}", index - 1));
            txn.set(last, vec![b'v'; 10_000 + left]);
            return;
        }
        let value = (left - key.len()).min(10_000);
        left -= key.len() + value;
        txn.set(key, vec![b'v'; value]);
        if left == 0 {
            return;
        }
    }
}

/// All keys and values of a transaction together have a limit.
pub async fn a_large_transaction_is_refused(kv: &Kv) {
    let space = Space::new(kv, "large_transaction").await;
    let limit = kv.limits().transaction_bytes_max;
    let refused = write(kv, |txn| fill(txn, space, limit + 1)).await;
    assert_too_large(refused, "a transaction", limit + 1, limit);
    let left = kv.begin().await.unwrap().range(space.all()).await.unwrap();
    assert!(left.pairs.is_empty(), "nothing of a refused transaction is written");
}

/// What may conflict has to be remembered, so it counts; what is read twice counts once.
pub async fn reads_count_for_the_size_of_a_transaction(kv: &Kv) {
    let space = Space::new(kv, "large_reads").await;
    let (one, two) = (space.key("one"), space.key("two"));
    let limits = Limits {
        transaction_bytes_max: one.len() * 2,
        ..kv.limits()
    };
    let kv = kv.clone().with_limits(limits);
    let txn = kv.begin().await.unwrap();
    for _ in 0..10 {
        txn.get(&one).await.unwrap();
        txn.snapshot_range(space.all()).await.unwrap();
    }
    txn.get(&two).await.unwrap();
    let refused = txn.get(&space.key("3")).await;
    assert_too_large(
        refused,
        "a transaction",
        one.len() * 2 + space.key("3").len(),
        one.len() * 2,
    );
}

/// The last value counts.
pub async fn writing_a_key_again_does_not_count_twice(kv: &Kv) {
    let key = Space::new(kv, "rewrites").await.key("a");
    let rewritten = write(kv, |txn| {
        for _ in 0..50 {
            txn.set(key.clone(), vec![b'v'; 100_000]);
        }
    });
    rewritten.await.unwrap();
}

/// A transaction over the age limit reads and commits no more.
pub async fn an_old_transaction_is_refused(kv: &Kv) {
    let space = Space::new(kv, "old").await;
    let short = kv.clone().with_limits(Limits {
        transaction_age_ms_max: 200,
        ..kv.limits()
    });
    let txn = short.begin().await.unwrap();
    txn.get(&space.key("a")).await.unwrap();
    txn.set(space.key("a"), "late");
    tokio::time::sleep(Duration::from_millis(250)).await;
    for refused in [txn.get(&space.key("b")).await.map(|_| ()), short.commit(&txn).await] {
        assert!(matches!(refused, Err(KvError::TooOld { limit_ms: 200 })), "{refused:?}");
    }
    assert_eq!(read(kv, &space.key("a")).await, None);
}
