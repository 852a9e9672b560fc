//! Transactions are serializable: what one has read and another has changed fails at the commit.

use futures_util::future::join_all;

use super::{Space, assert_conflict, names, read, read_number, write};
use crate::{Kv, KvError, RangeRead};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    lost_update_is_refused(kv).await;
    write_skew_is_refused(kv).await;
    phantoms_are_refused(kv).await;
    keys_cleared_from_a_range_conflict(kv).await;
    a_read_of_a_key_cleared_by_range_conflicts(kv).await;
    reading_what_is_absent_conflicts_with_its_creation(kv).await;
    reads_stay_with_one_snapshot(kv).await;
    snapshot_reads_do_not_conflict(kv).await;
    blind_writes_do_not_conflict(kv).await;
    reads_of_own_writes_do_not_conflict(kv).await;
    reads_of_other_keys_do_not_conflict(kv).await;
    a_page_conflicts_only_up_to_where_it_was_cut(kv).await;
    what_is_committed_is_read_by_who_begins_later(kv).await;
    concurrent_increments_are_all_counted(kv).await;
    concurrent_transfers_keep_the_sum(kv).await;
}

/// Two that have read a key cannot both write it.
pub async fn lost_update_is_refused(kv: &Kv) {
    let key = Space::new(kv, "lost_update").await.key("n");
    let (first, second) = (kv.begin().await.unwrap(), kv.begin().await.unwrap());
    for txn in [&first, &second] {
        assert_eq!(txn.get(&key).await.unwrap(), None);
    }
    first.set(key.clone(), "first");
    second.set(key.clone(), "second");
    kv.commit(&first).await.unwrap();
    assert_conflict!(kv.commit(&second).await, "the first update would be lost");
    assert_eq!(read(kv, &key).await.unwrap(), "first");
}

/// Two that each read what the other writes cannot both commit.
pub async fn write_skew_is_refused(kv: &Kv) {
    let space = Space::new(kv, "write_skew").await;
    let (left, right) = (space.key("left"), space.key("right"));
    let (first, second) = (kv.begin().await.unwrap(), kv.begin().await.unwrap());
    first.get(&right).await.unwrap();
    second.get(&left).await.unwrap();
    first.set(left, "1");
    second.set(right.clone(), "1");
    kv.commit(&first).await.unwrap();
    assert_conflict!(kv.commit(&second).await, "neither order explains both reads");
    assert_eq!(read(kv, &right).await, None);
}

/// A key that appears in a range that was read conflicts.
pub async fn phantoms_are_refused(kv: &Kv) {
    let space = Space::new(kv, "phantoms").await;
    for reverse in [false, true] {
        let reader = kv.begin().await.unwrap();
        let range = RangeRead {
            reverse,
            ..space.range("a", "m")
        };
        reader.range(range).await.unwrap();
        reader.set(space.key("z"), "count");
        write(kv, |txn| txn.set(space.key(if reverse { "b" } else { "c" }), "phantom"))
            .await
            .unwrap();
        assert_conflict!(kv.commit(&reader).await, "a key has appeared in the range");
    }
}

/// A range that was read conflicts with the clearing of a range that holds one of its keys.
pub async fn keys_cleared_from_a_range_conflict(kv: &Kv) {
    let space = Space::new(kv, "cleared_range").await;
    write(kv, |txn| txn.set(space.key("d"), "there")).await.unwrap();
    let reader = kv.begin().await.unwrap();
    assert_eq!(
        names(&reader.range(space.range("c", "m")).await.unwrap().pairs),
        ["d=there"]
    );
    reader.set(space.key("z"), "count");
    write(kv, |txn| txn.clear_range(space.key("a"), space.key("e")))
        .await
        .unwrap();
    assert_conflict!(kv.commit(&reader).await, "a key has gone from the range");
}

/// As above, for a single key.
pub async fn a_read_of_a_key_cleared_by_range_conflicts(kv: &Kv) {
    let space = Space::new(kv, "cleared_key").await;
    write(kv, |txn| txn.set(space.key("d"), "there")).await.unwrap();
    let reader = kv.begin().await.unwrap();
    reader.get(&space.key("d")).await.unwrap();
    reader.set(space.key("z"), "saw it");
    write(kv, |txn| txn.clear_range(space.key("a"), space.key("e")))
        .await
        .unwrap();
    assert_conflict!(kv.commit(&reader).await, "the key has gone");
}

/// "It is not there" is a read as well.
pub async fn reading_what_is_absent_conflicts_with_its_creation(kv: &Kv) {
    let space = Space::new(kv, "absent").await;
    let reader = kv.begin().await.unwrap();
    assert_eq!(reader.get(&space.key("a")).await.unwrap(), None);
    reader.set(space.key("z"), "it is free");
    write(kv, |txn| txn.set(space.key("a"), "taken")).await.unwrap();
    assert_conflict!(kv.commit(&reader).await, "the key has been created");
}

/// A transaction does not see what was committed after it began.
pub async fn reads_stay_with_one_snapshot(kv: &Kv) {
    let space = Space::new(kv, "snapshot").await;
    write(kv, |txn| txn.set(space.key("a"), "old")).await.unwrap();
    let reader = kv.begin().await.unwrap();
    reader.get(&space.key("a")).await.unwrap();
    write(kv, |txn| {
        txn.set(space.key("a"), "new");
        txn.set(space.key("b"), "new");
    })
    .await
    .unwrap();
    assert_eq!(reader.get(&space.key("a")).await.unwrap().unwrap(), "old");
    assert_eq!(reader.get(&space.key("b")).await.unwrap(), None);
    assert_eq!(names(&reader.range(space.all()).await.unwrap().pairs), ["a=old"]);
    assert_eq!(
        names(&reader.snapshot_range(space.all()).await.unwrap().pairs),
        ["a=old"]
    );
    kv.commit(&reader).await.expect("what writes nothing commits nothing");
}

/// Snapshot reads take no part in conflicts.
pub async fn snapshot_reads_do_not_conflict(kv: &Kv) {
    let space = Space::new(kv, "snapshot_reads").await;
    let reader = kv.begin().await.unwrap();
    reader.snapshot_get(&space.key("a")).await.unwrap();
    reader.snapshot_range(space.all()).await.unwrap();
    reader.set(space.key("z"), "done");
    write(kv, |txn| txn.set(space.key("a"), "changed")).await.unwrap();
    kv.commit(&reader).await.unwrap();
}

/// Who reads nothing does not conflict; the last commit stays.
pub async fn blind_writes_do_not_conflict(kv: &Kv) {
    let space = Space::new(kv, "blind").await;
    let (first, second) = (kv.begin().await.unwrap(), kv.begin().await.unwrap());
    first.set(space.key("a"), "first");
    second.set(space.key("a"), "second");
    second.clear_range(space.key("b"), space.key("c"));
    kv.commit(&first).await.unwrap();
    kv.commit(&second).await.unwrap();
    assert_eq!(read(kv, &space.key("a")).await.unwrap(), "second");
}

/// What a transaction has written itself does not come from the store.
pub async fn reads_of_own_writes_do_not_conflict(kv: &Kv) {
    let space = Space::new(kv, "own_writes").await;
    let txn = kv.begin().await.unwrap();
    txn.set(space.key("a"), "mine");
    txn.clear(space.key("b"));
    txn.clear_range(space.key("c"), space.key("e"));
    assert_eq!(txn.get(&space.key("a")).await.unwrap().unwrap(), "mine");
    for cleared in ["b", "c", "d"] {
        assert_eq!(txn.get(&space.key(cleared)).await.unwrap(), None);
    }
    write(kv, |txn| {
        for key in ["a", "b", "c", "d"] {
            txn.set(space.key(key), "theirs");
        }
    })
    .await
    .unwrap();
    kv.commit(&txn).await.unwrap();
    assert_eq!(
        names(&kv.begin().await.unwrap().range(space.all()).await.unwrap().pairs),
        ["a=mine"]
    );
}

/// Conflicts are those of keys and ranges, not of neighbours.
pub async fn reads_of_other_keys_do_not_conflict(kv: &Kv) {
    let space = Space::new(kv, "neighbours").await;
    let reader = kv.begin().await.unwrap();
    reader.get(&space.key("b")).await.unwrap();
    reader.range(space.range("d", "f")).await.unwrap();
    reader.set(space.key("z"), "done");
    write(kv, |txn| {
        for key in ["a", "bb", "c", "f"] {
            txn.set(space.key(key), "changed");
        }
    })
    .await
    .unwrap();
    kv.commit(&reader).await.unwrap();
}

/// Beyond a page that was cut nothing was read.
pub async fn a_page_conflicts_only_up_to_where_it_was_cut(kv: &Kv) {
    let space = Space::new(kv, "page_extent").await;
    write(kv, |txn| {
        for key in ["b", "d", "f", "h"] {
            txn.set(space.key(key), "");
        }
    })
    .await
    .unwrap();
    for (reverse, outside, inside) in [(false, "g", "c"), (true, "c", "g")] {
        for (written, conflicts) in [(outside, false), (inside, true)] {
            let reader = kv.begin().await.unwrap();
            let page = RangeRead {
                limit: 1,
                reverse,
                ..space.all()
            };
            assert!(reader.range(page).await.unwrap().more);
            reader.set(space.key("0"), "");
            write(kv, |txn| txn.set(space.key(written), "")).await.unwrap();
            assert_eq!(
                kv.commit(&reader).await.is_err(),
                conflicts,
                "reverse {reverse}, {written}"
            );
            write(kv, |txn| {
                txn.clear(space.key("0"));
                txn.clear(space.key(written));
            })
            .await
            .unwrap();
        }
    }
}

/// A commit that was answered is seen by everyone who begins afterwards.
pub async fn what_is_committed_is_read_by_who_begins_later(kv: &Kv) {
    let key = Space::new(kv, "real_time").await.key("n");
    for round in 0..50_u64 {
        write(kv, |txn| txn.set(key.clone(), round.to_le_bytes().to_vec()))
            .await
            .unwrap();
        assert_eq!(read_number(kv, &key).await, round);
    }
}

/// Read, add one, write: none is lost.
pub async fn concurrent_increments_are_all_counted(kv: &Kv) {
    let key = Space::new(kv, "increments").await.key("n");
    let increment = |_: usize| {
        let (kv, key) = (kv.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..10 {
                let key = &key;
                let incremented: Result<(), KvError> = kv
                    .transact(|txn| async move {
                        let before = txn.get(key).await?.map_or(0, |value| super::number(&value));
                        txn.set(key.clone(), (before + 1).to_le_bytes().to_vec());
                        Ok(())
                    })
                    .await;
                incremented.unwrap();
            }
        })
    };
    for ended in join_all((0..8).map(increment)).await {
        ended.unwrap();
    }
    assert_eq!(read_number(kv, &key).await, 80);
}

/// Money moves between accounts; every sum over all of them is the same.
pub async fn concurrent_transfers_keep_the_sum(kv: &Kv) {
    const ACCOUNTS: u64 = 8;
    let space = Space::new(kv, "transfers").await;
    let account = move |index: u64| space.key(&format!("{index}"));
    write(kv, |txn| (0..ACCOUNTS).for_each(|index| txn.add(account(index), 100)))
        .await
        .unwrap();
    let transfers = (0..6_u64).map(|seed| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for round in 0..25 {
                let (from, to) = ((seed + round) % ACCOUNTS, (seed * 3 + round * 5 + 1) % ACCOUNTS);
                let moved: Result<(), KvError> = kv
                    .transact(|txn| async move {
                        let balance = txn.get(&account(from)).await?.map_or(0, |value| super::number(&value));
                        if balance > 0 {
                            txn.set(account(from), (balance - 1).to_le_bytes().to_vec());
                            txn.add(account(to), 1);
                        }
                        Ok(())
                    })
                    .await;
                moved.unwrap();
            }
        })
    });
    let transfers = join_all(transfers);
    let audits = async {
        for _ in 0..50 {
            let page = kv.begin().await.unwrap().range(space.all()).await.unwrap();
            let sum: u64 = page.pairs.iter().map(|pair| super::number(&pair.value)).sum();
            assert_eq!(sum, ACCOUNTS * 100);
            tokio::task::yield_now().await;
        }
    };
    for ended in futures_util::future::join(transfers, audits).await.0 {
        ended.unwrap();
    }
    let page = kv.begin().await.unwrap().range(space.all()).await.unwrap();
    let sum: u64 = page.pairs.iter().map(|pair| super::number(&pair.value)).sum();
    assert_eq!(sum, ACCOUNTS * 100);
}
