//! Two nodes of one region over one store: each slot is the share of one of them, and they may disagree for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{collections::BTreeSet, time::Duration};

use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use foundationdb_tuple::pack;
use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::sleep;

const EPOCH: u64 = 7;

fn slot() -> Slot {
    Slot::new(9).unwrap()
}

fn key(name: &str) -> Bytes {
    pack(&(slot().number(), kind::TAIL, name)).into()
}

async fn store() -> (tempfile::TempDir, Kv) {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        path: folder.path().to_owned(),
        ..EmbeddedOptions::default()
    };
    let kv = Kv::open_embedded(options).await.unwrap();
    (folder, kv)
}

fn node(kv: &Kv, number: u8) -> Slots {
    Slots::start(kv.clone(), SlotOptions::default(), [number; 16], Hooks::default())
}

fn grant(node: &Slots) {
    node.grant(slot(), EPOCH, InSync::alone());
}

/// Sends a message: the first time it takes the next number, and the same number whenever it is sent again.
async fn send(node: &Slots, name: String) -> Result<u64, SlotError> {
    let sent = node.write(slot(), move |txn: SlotTxn| {
        let name = name.clone();
        async move {
            if let Some(first) = txn.get(&key(&name)).await? {
                return Ok(number(Some(first)));
            }
            let next = number(txn.get(&key("last")).await?) + 1;
            for of in ["last", name.as_str()] {
                txn.set(key(of), next.to_be_bytes().to_vec());
            }
            Ok(next)
        }
    });
    sent.await.map(|committed| committed.value)
}

async fn last(node: &Slots) -> Result<u64, SlotError> {
    let read = node.read(slot(), |read| async move {
        Ok::<_, SlotError>(number(read.get(&key("last")).await?))
    });
    read.await
}

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

fn is_not_home<T: std::fmt::Debug>(result: &Result<T, SlotError>) -> bool {
    matches!(result, Err(SlotError::NotHome { epoch: EPOCH, .. }))
}

/// Its writer is told a moment before.
async fn has_let_go(node: &Slots) {
    while node.is_granted(slot()) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// As a route does: whoever does not own the slot is left for the other.
async fn send_to_either(nodes: &[Slots; 2], name: String) -> Result<u64, SlotError> {
    for turn in 0.. {
        match send(&nodes[turn % 2], name.clone()).await {
            Err(SlotError::NotHome { .. }) => sleep(Duration::from_millis(1)).await,
            sent => return sent,
        }
    }
    unreachable!("it is sent until it is taken")
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_node_dies_the_other_serves_its_slots_and_nothing_is_lost() {
    let (_folder, kv) = store().await;
    let (one, other) = (node(&kv, 1), node(&kv, 2));
    grant(&one);
    let sent = join_all((0..100).map(|name| send(&one, name.to_string()))).await;
    let sent: Vec<u64> = sent.into_iter().map(Result::unwrap).collect();
    drop(one);

    grant(&other);
    assert_eq!(last(&other).await.unwrap(), 100);
    for (name, first) in sent.iter().enumerate() {
        assert_eq!(send(&other, name.to_string()).await.unwrap(), *first, "sent again");
    }
    assert_eq!(send(&other, "new".to_owned()).await.unwrap(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_taken_is_served_again_under_the_same_epoch_when_it_is_granted_again() {
    let (_folder, kv) = store().await;
    let (one, other) = (node(&kv, 1), node(&kv, 2));
    grant(&one);
    assert_eq!(send(&one, "a".to_owned()).await.unwrap(), 1);
    grant(&other);
    assert_eq!(send(&other, "b".to_owned()).await.unwrap(), 2);
    assert!(is_not_home(&send(&one, "c".to_owned()).await));
    has_let_go(&one).await;
    other.withdraw(slot(), EPOCH);
    assert!(is_not_home(&send(&other, "c".to_owned()).await));
    grant(&one);
    assert_eq!(last(&one).await.unwrap(), 2);
    assert_eq!(send(&one, "c".to_owned()).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_a_slot_which_another_has_taken_lets_go_of_it() {
    let (_folder, kv) = store().await;
    let (one, other) = (node(&kv, 1), node(&kv, 2));
    grant(&one);
    assert_eq!(send(&one, "a".to_owned()).await.unwrap(), 1);
    grant(&other);
    assert_eq!(send(&other, "b".to_owned()).await.unwrap(), 2);
    assert!(is_not_home(&last(&one).await), "a read of before is shown");
    has_let_go(&one).await;
    grant(&one);
    assert_eq!(last(&one).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_lets_go_of_what_another_has_taken_when_it_looks() {
    let (_folder, kv) = store().await;
    let (one, other) = (node(&kv, 1), node(&kv, 2));
    grant(&one);
    assert_eq!(send(&one, "a".to_owned()).await.unwrap(), 1);
    one.check_owners().await.unwrap();
    sleep(Duration::from_millis(20)).await;
    assert!(one.is_open(slot()), "it lets go of what is its own");
    grant(&other);
    assert_eq!(last(&other).await.unwrap(), 1);
    one.check_owners().await.unwrap();
    has_let_go(&one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_goes_to_a_node_that_joins_without_a_send_that_fails() {
    let (_folder, kv) = store().await;
    let nodes = [node(&kv, 1), node(&kv, 2)];
    grant(&nodes[0]);
    let moving = async {
        for turn in 0..20 {
            let (from, to) = (&nodes[turn % 2], &nodes[(turn + 1) % 2]);
            sleep(Duration::from_millis(10)).await;
            assert!(from.hand_over(slot(), EPOCH).await);
            from.withdraw(slot(), EPOCH);
            grant(to);
        }
    };
    let sending = async {
        let mut numbers = Vec::new();
        for name in 0..200 {
            numbers.push(send_to_either(&nodes, name.to_string()).await.unwrap());
            sleep(Duration::from_millis(1)).await;
        }
        numbers
    };
    let (numbers, ()) = tokio::join!(sending, moving);
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

/// Both believe now and then that the slot is theirs, and take it from each other, and from themselves.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_disagree_acknowledge_one_log() {
    let (_folder, kv) = store().await;
    let nodes = [node(&kv, 1), node(&kv, 2)];
    let mut random = SmallRng::seed_from_u64(7);
    let quarrel = async {
        for _ in 0..300 {
            let one = &nodes[random.random_range(0..2)];
            match random.random_range(0..4) {
                0 => one.withdraw(slot(), EPOCH),
                1 => one.check_owners().await.unwrap(),
                _ => grant(one),
            }
            sleep(Duration::from_millis(random.random_range(0..3))).await;
        }
        nodes[1].withdraw(slot(), EPOCH);
        // The other may be about to take it all the same, for the last time.
        loop {
            nodes[0].check_owners().await.unwrap();
            if !nodes[0].is_granted(slot()) {
                grant(&nodes[0]);
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    let sending = |sender: u32| {
        let nodes = &nodes;
        async move {
            let mut sent = Vec::new();
            for name in 0..40 {
                let name = format!("{sender}-{name}");
                let number = send_to_either(nodes, name.clone()).await.unwrap();
                sent.push((name, number));
            }
            sent
        }
    };
    let checking = async {
        let sent = join_all((0..8).map(sending)).await;
        let sent: Vec<(String, u64)> = sent.into_iter().flatten().collect();
        let numbers: BTreeSet<u64> = sent.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (1..=320).collect(), "each once, none missing");
        for (name, number) in sent {
            assert_eq!(send_to_either(&nodes, name).await.unwrap(), number, "sent again");
        }
    };
    tokio::select! {
        () = checking => {}
        () = quarrel => {}
    }
}
