//! Regions that are cut off (connections stay open and swallow everything), or far apart.

use std::time::Duration;

use antiphon_directory::{
    RaftOptions,
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
async fn a_request_that_hangs_with_the_leader_goes_to_the_next_one() {
    let mut world = World::new();
    world.options.request_timeout_ms = 30_000;
    world.found(3).await;
    let leader = world.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    world.isolate(leader);
    soon(world.node(others[0]).propose(drain(2))).await.unwrap();
    let next = world.node(others[0]).status().leader.unwrap();
    assert!(others.contains(&next.0));
    // The old one has learnt nothing of it, and does not pretend to know.
    assert_eq!(
        world.node(leader).state().regions[&RegionId(2)].status,
        RegionStatus::Active
    );

    world.heal();
    let state = soon(world.node(leader).state_linearizable()).await.unwrap();
    assert_eq!(state.regions[&RegionId(2)].status, RegionStatus::Draining);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_off_leader_took_and_nobody_else_has_is_not_there_afterwards() {
    let mut world = World::new();
    world.options.request_timeout_ms = 1_000;
    world.found(3).await;
    let leader = world.leader().await;
    let other = world.follower().await;
    world.isolate(leader);
    let lost = Policy {
        in_sync_copies: 3,
        ..Policy::default()
    };
    soon(world.node(leader).propose(Command::SetPolicy { policy: lost }))
        .await
        .unwrap_err();
    soon(async { while world.node(other).propose(drain(2)).await.is_err() {} }).await;
    world.heal();
    until("the old leader has what the others have", || {
        world.node(leader).state() == world.node(other).state()
    })
    .await;
    assert_eq!(world.node(leader).state().policy, Policy::default());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_comes_back_does_not_depose_the_leader() {
    let world = World::founded().await;
    let leader = world.leader().await;
    let away = world.follower().await;
    let term = world.node(leader).status().term;
    world.isolate(away);
    // Long enough for it to stand for election several times over.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.node(away).status().term, term);
    let version = soon(world.node(leader).propose(drain(2))).await.unwrap().version;
    world.heal();
    soon(world.node(away).state_when(|state| state.version >= version))
        .await
        .unwrap();
    let status = world.node(leader).status();
    assert_eq!((status.leader, status.term), (Some(RegionId(leader)), term));
    world.close().await;
}

/// With the times that are the default.
#[tokio::test(flavor = "multi_thread")]
async fn voters_on_two_sides_of_the_earth_keep_their_leader_and_find_the_next() {
    let mut world = World::new();
    world.options.raft = RaftOptions::default();
    world.links.delay = Duration::from_millis(150);
    world.found(3).await;
    let leader = world.leader().await;
    let follower = world.follower().await;
    let term = world.node(leader).status().term;
    for copies in [3, 2].repeat(4) {
        let policy = Policy {
            in_sync_copies: copies,
            ..Policy::default()
        };
        soon(world.node(follower).propose(Command::SetPolicy { policy }))
            .await
            .unwrap();
    }
    assert_eq!(
        world.node(follower).status().term,
        term,
        "nobody stood for election meanwhile"
    );
    world.isolate(leader);
    soon(world.node(follower).propose(drain(2))).await.unwrap();
    world.close().await;
}
