//! What was committed is there after the store is opened again; a closed store says so.

use std::{future::Future, time::Duration};

use super::{Space, read, write};
use crate::{Kv, KvError};

/// Runs the rules of this module.
pub async fn run_all<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Kv>,
{
    what_was_committed_is_there_after_a_reopen(&open).await;
    a_closed_store_refuses(&open).await;
    close_waits_for_commits_in_flight(&open).await;
}

/// Sets, clears and cleared ranges survive, several times over.
pub async fn what_was_committed_is_there_after_a_reopen<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Kv>,
{
    let kv = open().await;
    let space = Space::new(&kv, "reopen").await;
    kv.close().await.unwrap();
    for round in 0..4_usize {
        let kv = open().await;
        for earlier in 0..round {
            assert_eq!(read(&kv, &space.key(&format!("kept{earlier}"))).await.unwrap(), "here");
            assert_eq!(read(&kv, &space.key(&format!("x{earlier}"))).await, None);
            assert_eq!(read(&kv, &space.key(&format!("y{earlier}"))).await, None);
        }
        write(&kv, |txn| {
            for name in ["kept", "x", "y"] {
                txn.set(space.key(&format!("{name}{round}")), "here");
            }
        })
        .await
        .unwrap();
        write(&kv, |txn| {
            txn.clear(space.key(&format!("x{round}")));
            txn.clear_range(space.key("y"), space.key("z"));
        })
        .await
        .unwrap();
        kv.close().await.unwrap();
    }
}

/// Every operation of a closed store fails as closed; closing again is no failure.
pub async fn a_closed_store_refuses<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Kv>,
{
    let kv = open().await;
    let key = Space::new(&kv, "closed").await.key("a");
    kv.health().await.unwrap();
    let watch = kv.watch(&key).await.unwrap();
    kv.close().await.unwrap();
    kv.close().await.unwrap();
    let refusals = [
        write(&kv, |txn| txn.set(key.clone(), "1")).await,
        kv.watch(&key).await.map(|_| ()),
        kv.health().await,
        watch.changed().await,
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(KvError::Closed)), "{refused:?}");
    }
}

/// A commit that was under way when the store was closed is answered, and what is answered is true.
pub async fn close_waits_for_commits_in_flight<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Kv>,
{
    let kv = open().await;
    let space = Space::new(&kv, "in_flight").await;
    let commits: Vec<_> = (0..40_u32)
        .map(|index| {
            let kv = kv.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(u64::from(index) * 50)).await;
                write(&kv, |txn| txn.set(space.key(&index.to_string()), "here")).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    kv.close().await.unwrap();
    drop(kv);
    let mut answered = Vec::new();
    for commit in commits {
        answered.push(commit.await.unwrap());
    }
    let kv = open().await;
    for (index, answer) in answered.into_iter().enumerate() {
        let found = read(&kv, &space.key(&index.to_string())).await;
        match answer {
            Ok(()) => assert_eq!(found.unwrap(), "here", "{index} was acknowledged"),
            Err(KvError::Closed) => assert_eq!(found, None, "{index} was refused"),
            Err(other) => panic!("{index} was answered {other:?}"),
        }
    }
    kv.close().await.unwrap();
}
