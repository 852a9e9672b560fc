use std::time::Duration;

use antiphon_directory::{
    DirectoryError, DirectoryNode, StartError,
    domain::{Addresses, Command, Policy, RegionId},
};

use crate::{
    links::Links,
    world::{World, soon, until},
};

fn policy(copies: u8) -> Command {
    Command::SetPolicy {
        policy: Policy {
            in_sync_copies: copies,
            ..Policy::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_comes_back_from_its_disks() {
    let mut world = World::founded().await;
    soon(world.node(2).propose(policy(3))).await.unwrap();
    let before = soon(world.node(1).state_linearizable()).await.unwrap();
    for id in 1..=3 {
        world.kill(id).await;
    }
    world.start(3).await;
    // What this node had applied is there before it has met anybody.
    assert!(!world.node(3).state().regions.is_empty());
    assert_eq!(world.node(3).state().placements.len(), 4_096);
    world.start(1).await;
    world.start(2).await;
    let regions = world.first_regions(3);
    soon(world.node(1).found(&regions, &Policy::default())).await.unwrap();
    assert_eq!(soon(world.node(1).state_linearizable()).await.unwrap(), before);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_a_snapshot() {
    let mut world = World::new();
    world.options.raft.snapshot_entries = 20;
    world.options.raft.kept_entries = 5;
    world.found(3).await;
    let leader = world.leader().await;
    let behind = world.follower().await;
    let at = world.node(behind).status().last_log.unwrap();
    world.kill(behind).await;
    for round in 0..60 {
        soon(world.node(leader).propose(policy(2 + round % 2))).await.unwrap();
    }
    until("the log that the node lacks is purged", || {
        world.node(leader).status().purged.is_some_and(|purged| purged > at + 1)
    })
    .await;
    world.start(behind).await;
    let target = soon(world.node(leader).state_linearizable()).await.unwrap();
    let caught_up = soon(world.node(behind).state_when(|state| state.version >= target.version))
        .await
        .unwrap();
    assert_eq!(caught_up, target);
    assert!(world.node(behind).status().purged.is_some_and(|purged| purged > at));

    // It goes on from the snapshot, on its own disk too.
    world.kill(behind).await;
    world.start(behind).await;
    assert_eq!(world.node(behind).state(), target);
    soon(world.node(behind).propose(policy(4))).await.unwrap();
    world.close().await;
}

/// Writers, one for each region's addresses, that go on through two deaths of leaders.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_leaders_die() {
    const WRITES: u64 = 150;
    let mut world = World::founded().await;
    let spared = world.follower().await;
    let node = world.node(spared).clone();
    let founded = node.state();
    let writers = founded.regions.iter().map(|(region, now)| {
        let (node, region, rpc) = (node.clone(), *region, now.addresses.rpc.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 1..=WRITES {
                let addresses = Addresses {
                    rpc: rpc.clone(),
                    edge: number.to_string(),
                };
                if node.propose(Command::SetAddresses { region, addresses }).await.is_ok() {
                    acknowledged.push(number);
                }
            }
            (region, acknowledged)
        })
    });
    let writing = futures_util::future::join_all(writers.collect::<Vec<_>>());
    for _ in 0..2 {
        let before = node.state().version;
        until("the writers go on", || node.state().version > before + 30).await;
        let victim = world.leader().await;
        if victim != spared {
            world.kill(victim).await;
            world.start(victim).await;
        }
    }
    let written: Vec<_> = soon(writing).await.into_iter().map(Result::unwrap).collect();
    let acknowledged: usize = written.iter().map(|(_, acknowledged)| acknowledged.len()).sum();
    assert!(acknowledged > 300, "{acknowledged}");
    for id in 1..=3 {
        let state = soon(world.node(id).state_linearizable()).await.unwrap();
        // Each that was acknowledged has changed something, and none was undone.
        assert!(state.version >= founded.version + acknowledged as u64);
        for (region, acknowledged) in &written {
            let last: u64 = state.regions[region].addresses.edge.parse().unwrap();
            assert!(
                Some(&last) >= acknowledged.last(),
                "region {region:?} is at {last} of {acknowledged:?}"
            );
        }
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_store_is_not_heard() {
    let mut world = World::founded().await;
    let lost = world.follower().await;
    world.kill(lost).await;
    std::fs::remove_dir_all(world.folder(lost)).unwrap();
    world.start(lost).await;
    // The others go on; the one that has forgotten neither learns nor votes.
    let other = (1..=3).find(|id| *id != lost).unwrap();
    soon(world.node(other).propose(policy(3))).await.unwrap();
    let status = world.node(lost).status();
    assert_eq!((status.last_log, status.version), (None, 0), "{status:?}");
    world.close().await;
}

/// Two followers have never had anything to tell each other but who they are. What the dead leader and the one that has forgotten had
/// acknowledged together must not be undone by the votes of the two that are left.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_store_elects_nobody() {
    let mut world = World::new();
    world.options.request_timeout_ms = 3_000;
    world.found(3).await;
    let leader = world.leader().await;
    let lost = world.follower().await;
    let left = (1..=3).find(|id| ![leader, lost].contains(id)).unwrap();
    // All have greeted each other by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.kill(lost).await;
    world.kill(leader).await;
    std::fs::remove_dir_all(world.folder(lost)).unwrap();
    world.start(lost).await;
    let alone = soon(world.node(left).state_linearizable()).await;
    assert_eq!(alone, Err(DirectoryError::NoQuorum { within_ms: 3_000 }));
    world.start(leader).await;
    world.kill(lost).await;
    soon(async { while world.node(left).state_linearizable().await.is_err() {} }).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_serves_one_region_of_one_deployment() {
    let mut world = World::founded().await;
    world.kill(2).await;
    let other = DirectoryNode::start(
        world.options.clone(),
        RegionId(3),
        &world.folder(2),
        Links::default().dial(3),
    )
    .await;
    assert!(matches!(other, Err(StartError::OtherStore { .. })), "{other:?}");
    world.close().await;
}
