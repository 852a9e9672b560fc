//! The store is judged by the suite that every engine passes.

use antiphon_kv::{Kv, contract};

use super::*;

pub(crate) fn contract_holds() {
    let runtime = paused();
    let disk = Disk::new(1);
    let temper = Temper {
        commit_us_max: 200,
        unknown_permille: 0,
    };
    runtime.block_on(contract::run_all(|| async { Kv::over(Store::open(&disk, temper)) }));
}

/// Commits that a crash interrupts have happened or not, none in part and none before an earlier one.
pub(crate) fn crashes_are_clean() {
    let temper = Temper {
        commit_us_max: 5_000,
        unknown_permille: 0,
    };
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let runtime = paused();
        let disk = Disk::new(seed);
        runtime.block_on(async {
            let store = Store::open(&disk, temper);
            let kv = Kv::over(store.clone());
            let write = |name: &'static str| {
                let kv = kv.clone();
                async move {
                    let put = kv.transact(|txn| async move {
                        txn.set(format!("{name}1"), "x");
                        txn.set(format!("{name}2"), "x");
                        Ok::<_, KvError>(())
                    });
                    put.await
                }
            };
            write("a").await.unwrap();
            let (b, c) = (tokio::spawn(write("b")), tokio::spawn(write("c")));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            store.crash();
            drop((b, c));
        });
        let there: Vec<String> = disk
            .pairs(b"a", b"z")
            .into_iter()
            .map(|(key, _)| String::from_utf8_lossy(&key).into_owned())
            .collect();
        outcomes.insert(there.join(" "));
    }
    let expected = ["a1 a2", "a1 a2 b1 b2", "a1 a2 b1 b2 c1 c2"].map(str::to_owned);
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), expected);
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}
