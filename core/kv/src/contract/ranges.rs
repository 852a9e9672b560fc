//! Ranges are read in pages, both ways, with the transaction's own writes in them.

use bytes::Bytes;

use super::{Space, names, write};
use crate::{Kv, KvError, RangeRead, Txn};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    own_writes_are_read(kv).await;
    pages_hold_every_pair_once_in_order(kv).await;
    a_range_is_half_open(kv).await;
    more_is_said_only_when_there_is_more(kv).await;
    large_values_cut_a_page_before_its_limit(kv).await;
    limit_of_zero_is_refused_and_an_inverted_range_is_empty(kv).await;
}

/// Keys that are there before each rule of this module: `a` to `h`.
async fn filled(kv: &Kv, rule: &'static str) -> Space {
    let space = Space::new(kv, rule).await;
    write(kv, |txn| {
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            txn.set(space.key(name), "old");
        }
    })
    .await
    .unwrap();
    space
}

/// Sets, clears and cleared ranges show in what is read afterwards, by key and by range.
pub async fn own_writes_are_read(kv: &Kv) {
    let space = filled(kv, "own_writes_in_ranges").await;
    let txn = kv.begin().await.unwrap();
    txn.set(space.key("a"), "new");
    txn.set(space.key("aa"), "new");
    txn.clear(space.key("b"));
    txn.clear_range(space.key("d"), space.key("g"));
    txn.set(space.key("e"), "again");
    let expected = ["a=new", "aa=new", "c=old", "e=again", "g=old", "h=old"];
    assert_eq!(names(&txn.range(space.all()).await.unwrap().pairs), expected);
    let mut backwards = names(
        &txn.range(RangeRead {
            reverse: true,
            ..space.all()
        })
        .await
        .unwrap()
        .pairs,
    );
    backwards.reverse();
    assert_eq!(backwards, expected);
    for (name, value) in [
        ("a", Some("new")),
        ("b", None),
        ("c", Some("old")),
        ("d", None),
        ("e", Some("again")),
    ] {
        assert_eq!(
            txn.get(&space.key(name)).await.unwrap(),
            value.map(Bytes::from),
            "{name}"
        );
    }
    kv.commit(&txn).await.unwrap();
    let later = kv.begin().await.unwrap();
    assert_eq!(names(&later.range(space.all()).await.unwrap().pairs), expected);
}

/// Page after page, each from where the last one ended, gives the whole range.
pub async fn pages_hold_every_pair_once_in_order(kv: &Kv) {
    let space = filled(kv, "paging").await;
    let txn = kv.begin().await.unwrap();
    txn.clear_range(space.key("b"), space.key("d"));
    txn.set(space.key("dd"), "new");
    txn.clear(space.key("h"));
    txn.add(space.key("i"), 1);
    txn.clear(space.key("i"));
    let expected = ["a=old", "d=old", "dd=new", "e=old", "f=old", "g=old"];
    for limit in 1..=7 {
        assert_eq!(
            names(&paged(&txn, space, limit, false).await),
            expected,
            "limit {limit}"
        );
        let mut backwards = names(&paged(&txn, space, limit, true).await);
        backwards.reverse();
        assert_eq!(backwards, expected, "limit {limit}, backwards");
    }
}

async fn paged(txn: &Txn, space: Space, limit: usize, reverse: bool) -> Vec<crate::KvPair> {
    let mut pairs: Vec<crate::KvPair> = Vec::new();
    let mut rest = RangeRead {
        limit,
        reverse,
        ..space.all()
    };
    loop {
        let page = txn.range(rest.clone()).await.unwrap();
        assert!(page.pairs.len() <= limit);
        pairs.extend(page.pairs);
        let Some(last) = pairs.last().filter(|_| page.more) else {
            return pairs;
        };
        if reverse {
            rest.end = last.key.clone();
        } else {
            rest.start = [&last.key[..], &[0]].concat().into();
        }
    }
}

/// The start belongs to a range and the end does not, for reading and for clearing.
pub async fn a_range_is_half_open(kv: &Kv) {
    let space = filled(kv, "half_open").await;
    let txn = kv.begin().await.unwrap();
    for reverse in [false, true] {
        let page = txn
            .range(RangeRead {
                reverse,
                ..space.range("b", "d")
            })
            .await
            .unwrap();
        let mut found = names(&page.pairs);
        found.sort();
        assert_eq!(found, ["b=old", "c=old"]);
    }
    txn.clear_range(space.key("b"), space.key("h"));
    kv.commit(&txn).await.unwrap();
    let later = kv.begin().await.unwrap();
    assert_eq!(
        names(&later.range(space.all()).await.unwrap().pairs),
        ["a=old", "h=old"]
    );
}

/// `more` is exact, also where own writes decide it.
pub async fn more_is_said_only_when_there_is_more(kv: &Kv) {
    let space = filled(kv, "more").await;
    let txn = kv.begin().await.unwrap();
    let more = async |limit| txn.range(RangeRead { limit, ..space.all() }).await.unwrap().more;
    assert!(more(7).await);
    assert!(!more(8).await);
    txn.clear(space.key("h"));
    assert!(!more(7).await);
    txn.set(space.key("i"), "new");
    assert!(more(7).await);
    assert!(!more(8).await);
}

/// A page of large values ends early and says so; the pages together hold them all.
pub async fn large_values_cut_a_page_before_its_limit(kv: &Kv) {
    let space = Space::new(kv, "large_pages").await;
    for part in 0..4 {
        write(kv, |txn| {
            for index in 0..8 {
                txn.set(space.key(&format!("{part}{index}")), vec![b'v'; 100_000]);
            }
        })
        .await
        .unwrap();
    }
    let txn = kv.begin().await.unwrap();
    for reverse in [false, true] {
        let first = txn.range(RangeRead { reverse, ..space.all() }).await.unwrap();
        assert!(
            first.more && first.pairs.len() < 32,
            "{} pairs of 100 kB are no page",
            first.pairs.len()
        );
        assert_eq!(paged(&txn, space, 1_000, reverse).await.len(), 32);
    }
}

/// Requests that make no sense.
pub async fn limit_of_zero_is_refused_and_an_inverted_range_is_empty(kv: &Kv) {
    let space = filled(kv, "nonsense").await;
    let txn = kv.begin().await.unwrap();
    let refused = txn
        .range(RangeRead {
            limit: 0,
            ..space.all()
        })
        .await;
    assert!(matches!(refused, Err(KvError::Io(_))), "{refused:?}");
    for (start, end) in [("d", "b"), ("b", "b")] {
        assert_eq!(
            txn.range(space.range(start, end)).await.unwrap(),
            crate::Page::default()
        );
        txn.clear_range(space.key(start), space.key(end));
    }
    assert_eq!(txn.range(space.all()).await.unwrap().pairs.len(), 8);
}
