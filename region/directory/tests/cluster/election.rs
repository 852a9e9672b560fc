use antiphon_directory::{
    DirectoryError,
    domain::{Command, Policy, RegionId, RegionStatus},
};

use crate::world::{World, soon, until};

fn drain(region: u64) -> Command {
    Command::SetStatus {
        region: RegionId(region),
        status: RegionStatus::Draining,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_proposes_and_every_table_follows() {
    let world = World::founded().await;
    let follower = world.follower().await;
    soon(world.node(follower).propose(drain(2))).await.unwrap();
    // At the one that asked, at once.
    assert_eq!(
        world.node(follower).state().regions[&RegionId(2)].status,
        RegionStatus::Draining
    );
    for id in 1..=3 {
        let node = world.node(id);
        let seen = soon(node.state_when(|state| state.regions[&RegionId(2)].status == RegionStatus::Draining)).await;
        assert_eq!(seen.unwrap(), node.state());
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn founding_again_changes_nothing() {
    let world = World::founded().await;
    let version = world.node(1).state().version;
    let regions = world.first_regions(3);
    soon(world.node(1).found(&regions, &Policy::default())).await.unwrap();
    assert_eq!(soon(world.node(1).state_linearizable()).await.unwrap().version, version);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_leader() {
    let mut world = World::founded().await;
    let mut expected = Vec::new();
    for round in 0..2 {
        let leader = world.leader().await;
        let policy = Policy {
            in_sync_copies: 2 + round,
            ..Policy::default()
        };
        soon(
            world
                .node(leader)
                .propose(Command::SetPolicy { policy: policy.clone() }),
        )
        .await
        .unwrap();
        expected.push(policy);
        world.kill(leader).await;
        let next = world.leader().await;
        assert_ne!(next, leader);
        let state = soon(world.node(next).state_linearizable()).await.unwrap();
        assert_eq!(Some(&state.policy), expected.last());
        world.start(leader).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_is_told_so_in_bounded_time() {
    let mut world = World::new();
    world.options.request_timeout_ms = 2_000;
    world.found(3).await;
    let leader = world.leader().await;
    let others: Vec<u64> = world.nodes.keys().copied().filter(|id| *id != leader).collect();
    for id in &others {
        world.kill(*id).await;
    }
    // The old leader may have taken the first one into its log before its lease ended; it commits nothing.
    let error = soon(world.node(leader).propose(drain(2))).await.unwrap_err();
    assert!(
        matches!(error, DirectoryError::NoQuorum { .. } | DirectoryError::Timeout { .. }),
        "{error}"
    );
    let error = soon(world.node(leader).propose(drain(2))).await.unwrap_err();
    assert_eq!(error, DirectoryError::NoQuorum { within_ms: 2_000 });
    assert_eq!(
        world.node(leader).state().regions[&RegionId(2)].status,
        RegionStatus::Active
    );
    let error = soon(world.node(leader).state_linearizable()).await.unwrap_err();
    assert_eq!(error, DirectoryError::NoQuorum { within_ms: 2_000 });

    // With a majority again, the same proposal goes through.
    world.start(others[0]).await;
    let done = async { while world.node(leader).propose(drain(2)).await.is_err() {} };
    soon(done).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_to_whom_it_is_told() {
    let world = World::founded().await;
    let leader = world.leader().await;
    let follower = world.follower().await;
    let version = world.node(1).state().version;
    until("all are level", || {
        let peers = world.node(leader).status().peers;
        peers.len() == 2 && peers.iter().all(|peer| peer.lag == 0)
    })
    .await;
    let taken = soon(world.node(leader).hand_over(Some(RegionId(follower)))).await;
    assert_eq!(taken, Some(RegionId(follower)));
    assert_eq!(world.leader().await, follower);
    assert_eq!(
        soon(world.node(leader).state_linearizable()).await.unwrap().version,
        version
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_deployments_refuse_each_other() {
    let mut world = World::founded().await;
    world.reserve(4).await;
    world.options.deployment = "other".to_owned();
    world.start(4).await;
    let seeds = [(RegionId(1), world.addresses(1))];
    let joining = world.node(4).join(&seeds);
    let short = tokio::time::timeout(std::time::Duration::from_secs(2), joining).await;
    assert!(short.is_err(), "{short:?}");
    assert!(!world.node(1).status().voters.contains(&RegionId(4)));
    world.close().await;
}
