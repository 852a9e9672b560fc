//! The embedded engine: the contract that every engine passes, and what is its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use antiphon_kv::{
    EmbeddedOptions, Kv, KvError,
    contract::{
        self,
        history::{Action, Step},
    },
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tempfile::tempdir;

async fn open(path: &Path) -> Kv {
    try_open(path).await.unwrap()
}

async fn try_open(path: &Path) -> Result<Kv, KvError> {
    let options = EmbeddedOptions {
        path: path.to_owned(),
        cache_bytes: 8 << 20,
        watches_max: 100,
    };
    Kv::open_embedded(options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contract_holds() {
    let folder = tempdir().unwrap();
    contract::run_all(|| open(folder.path())).await;
}

#[test]
fn histories_are_serializable() {
    let folder = tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kv = runtime.block_on(open(folder.path()));
    let runs = AtomicU32::new(0);
    let mut runner = TestRunner::new(Config {
        cases: 300,
        ..Config::default()
    });
    let checked = runner.run(&vec(step(), 1..60), |steps| {
        let prefix = format!("history/{:06}/", runs.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(contract::history::is_serializable(&kv, prefix.as_bytes(), &steps));
        Ok(())
    });
    runtime.block_on(kv.close()).unwrap();
    checked.unwrap();
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
    let clear = key().prop_map(|key| Action::Clear { key });
    let clear_range = (key(), 0..10_u8).prop_map(|(start, end)| Action::ClearRange { start, end });
    let add = (key(), any::<u64>()).prop_map(|(key, delta)| Action::Add { key, delta });
    let max = (key(), any::<u64>()).prop_map(|(key, value)| Action::Max { key, value });
    let action = prop_oneof![
        3 => get,
        3 => range,
        3 => set,
        1 => clear,
        1 => clear_range,
        2 => add,
        1 => max,
        4 => Just(Action::Commit),
    ];
    (0..4_u8, action).prop_map(|(txn, action)| Step { txn, action })
}

#[tokio::test]
async fn second_opener_is_told_which_folder_is_open() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).await;
    let refused = try_open(folder.path()).await.unwrap_err();
    assert!(matches!(refused, KvError::Unavailable(_)), "{refused:?}");
    let (told, path) = (refused.to_string(), folder.path().display().to_string());
    assert!(told.contains(&path) && told.contains("open already"), "{told}");
    kv.close().await.unwrap();
    open(folder.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn dropped_store_can_be_opened_again() {
    let folder = tempdir().unwrap();
    for round in 0..3_u64 {
        let kv = open(folder.path()).await;
        let rounds: Result<u64, KvError> = kv
            .transact(|txn| async move {
                let rounds = txn
                    .get(b"rounds")
                    .await?
                    .map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
                txn.add(&b"rounds"[..], 1);
                Ok(rounds)
            })
            .await;
        assert_eq!(rounds.unwrap(), round);
    }
}

#[tokio::test]
async fn folder_that_cannot_be_made_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "in the way").unwrap();
    let refused = try_open(&path.join("store")).await.unwrap_err();
    assert!(matches!(refused, KvError::Io(_)), "{refused:?}");
    assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
}

#[tokio::test]
async fn store_whose_creation_was_cut_short_is_created_again() {
    let folder = tempdir().unwrap();
    let unfinished = folder.path().join("creating");
    std::fs::create_dir(&unfinished).unwrap();
    // What fjall has made when it is killed before its marker is written; it can neither open nor create over it.
    for file in ["lock", "0.jnl"] {
        std::fs::write(unfinished.join(file), "").unwrap();
    }
    let kv = open(folder.path()).await;
    kv.health().await.unwrap();
    kv.close().await.unwrap();
}

#[tokio::test]
async fn watches_are_bounded() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(kv.watch(b"key").await.unwrap());
    }
    let refused = kv.watch(b"other").await.unwrap_err();
    assert!(matches!(refused, KvError::Unavailable(_)), "{refused:?}");
    watches.pop();
    kv.watch(b"other").await.unwrap();
}
