//! Nodes of one region over one store, in one process.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_nodes::{NodeId, NodeRow, Registry, RegistryOptions, Share};
use antiphon_types::Slot;
use tokio::time::{sleep, timeout};

/// Longer than anything takes here, busy machines included.
const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> RegistryOptions {
    RegistryOptions {
        heartbeat: Duration::from_millis(100),
        dead_after: Duration::from_millis(1_500),
        forget_after: Duration::from_secs(3_600),
    }
}

async fn store() -> (tempfile::TempDir, Kv) {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        path: folder.path().join("store"),
        ..EmbeddedOptions::default()
    };
    let kv = Kv::open_embedded(options).await.unwrap();
    (folder, kv)
}

async fn start(kv: &Kv, id: &str) -> (Registry, Share) {
    start_with(kv, id, options()).await
}

async fn start_with(kv: &Kv, id: &str, options: RegistryOptions) -> (Registry, Share) {
    let own = NodeRow {
        id: NodeId::parse(id).unwrap(),
        rpc: format!("{id}.example:7404"),
        started_at_ms: 1,
    };
    Registry::start(kv.clone(), own, options).await.unwrap()
}

fn live(share: &Share) -> Vec<String> {
    let nodes = share.nodes().unwrap();
    nodes.live().map(|node| node.id.to_string()).collect()
}

async fn sees(share: &Share, wanted: &[&str]) {
    let seen = async {
        let mut version = share.version();
        while live(share) != wanted {
            version = share.changed(version).await;
        }
    };
    if timeout(PATIENCE, seen).await.is_err() {
        panic!("{:?} and not {wanted:?} are seen alive", live(share));
    }
}

/// Each slot is the share of exactly one of them, and all say the same of it.
fn divided(shares: &[&Share]) {
    for slot in Slot::all() {
        let owners = shares.iter().filter(|share| share.is_mine(slot)).count();
        assert_eq!(owners, 1, "{slot:?}");
        let first = shares[0].owner(slot).unwrap();
        assert!(
            shares.iter().all(|share| share.owner(slot).unwrap() == first),
            "{slot:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_serves_everything_at_once() {
    let (_folder, kv) = store().await;
    let (_one, share) = start(&kv, "1").await;
    assert!(Slot::all().all(|slot| share.is_mine(slot)));
    assert_eq!(share.owner(Slot::DEPLOYMENT).unwrap().rpc, "1.example:7404");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_takes_its_share_when_the_others_have_let_go_of_it() {
    let (_folder, kv) = store().await;
    let (_one, first) = start(&kv, "1").await;
    let (_two, second) = start(&kv, "2").await;
    assert!(!Slot::all().any(|slot| second.is_mine(slot)), "nobody has seen it yet");
    let before = async {
        sees(&first, &["1", "2"]).await;
        live(&second)
    };
    assert_eq!(before.await, ["1"], "it waits until it is seen");
    sees(&second, &["1", "2"]).await;
    divided(&[&first, &second]);

    let (_three, third) = start(&kv, "3").await;
    for share in [&first, &second, &third] {
        sees(share, &["1", "2", "3"]).await;
    }
    divided(&[&first, &second, &third]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_lets_go_before_the_others_take_what_it_had() {
    let (_folder, kv) = store().await;
    let (one, first) = start(&kv, "1").await;
    let (_two, second) = start(&kv, "2").await;
    sees(&first, &["1", "2"]).await;
    sees(&second, &["1", "2"]).await;

    one.let_go().await;
    assert_eq!(live(&first), ["2"]);
    // For as long as it takes to finish what it has begun, be that many heartbeats.
    let taken = timeout(options().heartbeat * 6, sees(&second, &["2"])).await;
    assert!(
        taken.is_err(),
        "its slots were taken before it has said that it is done"
    );
    one.leave().await;
    assert_eq!(live(&second), ["2"], "it has left before the others have seen that");
    assert!(Slot::all().all(|slot| second.is_mine(slot)));

    one.close().await;
    let (_other, third) = start(&kv, "3").await;
    sees(&third, &["2", "3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_noticed_when_it_counts_no_more() {
    let (_folder, kv) = store().await;
    let (one, first) = start(&kv, "1").await;
    let (_two, second) = start(&kv, "2").await;
    sees(&first, &["1", "2"]).await;
    sees(&second, &["1", "2"]).await;
    drop(one);
    sees(&second, &["2"]).await;
    assert!(Slot::all().all(|slot| second.is_mine(slot)));
    // Its row is still there: who comes now waits for it to be counted out, too.
    let (_three, third) = start(&kv, "3").await;
    sees(&third, &["2", "3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_id_the_later_is_the_node() {
    let (_folder, kv) = store().await;
    let (_one, earlier) = start(&kv, "1").await;
    let (_again, later) = start(&kv, "1").await;
    sees(&earlier, &[]).await;
    assert!(!Slot::all().any(|slot| earlier.is_mine(slot)));
    sleep(options().dead_after).await;
    assert_eq!(live(&later), ["1"]);
    assert!(live(&earlier).is_empty(), "it comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_store_claims_nothing() {
    let (_folder, kv) = store().await;
    let (_one, share) = start(&kv, "1").await;
    sees(&share, &["1"]).await;
    kv.close().await.unwrap();
    sees(&share, &[]).await;
    assert_eq!(share.owner(Slot::DEPLOYMENT), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_long_dead_are_forgotten() {
    let (_folder, kv) = store().await;
    let (one, _) = start(&kv, "1").await;
    let forgetting = RegistryOptions {
        forget_after: Duration::from_millis(1_800),
        ..options()
    };
    let (_two, second) = start_with(&kv, "2", forgetting).await;
    drop(one);
    sees(&second, &["2"]).await;
    sleep(Duration::from_secs(1)).await;
    let (_three, third) = start(&kv, "3").await;
    let first_seen = live(&third);
    assert_eq!(first_seen, ["2"], "the row of the dead is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_of_one_process_knows_of_no_nodes() {
    let share = Share::alone();
    assert!(Slot::all().all(|slot| share.is_mine(slot)));
    assert_eq!(
        (share.nodes(), share.owner(Slot::DEPLOYMENT), share.version()),
        (None, None, 0)
    );
    assert!(timeout(Duration::from_millis(20), share.changed(7)).await.is_err());
}
