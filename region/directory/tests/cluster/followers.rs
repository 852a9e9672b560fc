//! Nodes without a voter.

use std::time::Duration;

use antiphon_directory::{
    DirectoryError, DirectoryFollower,
    domain::{Command, RegionId, RegionStatus},
};
use antiphon_proto::rpc::{FollowRequest, RenewRequest, directory_client::DirectoryClient, renew_reply};
use antiphon_types::Slot;
use serde::Deserialize;
use tonic::{Code, transport::Channel};

use crate::{
    leases::{Leased, valid},
    world::{World, soon, until},
};

const R2: RegionId = RegionId(2);

fn status(region: u64, status: RegionStatus) -> Command {
    let region = RegionId(region);
    Command::SetStatus { region, status }
}

/// Has the directory change something by way of the voter `by`, and waits until `follower` sees it.
async fn seen(world: &World, by: u64, follower: &DirectoryFollower) {
    let before = soon(world.node(by).state_linearizable()).await.unwrap();
    let wanted = match before.is(RegionId(1), RegionStatus::Draining) {
        true => RegionStatus::Active,
        false => RegionStatus::Draining,
    };
    let applied = soon(world.node(by).propose(status(1, wanted))).await.unwrap();
    soon(follower.state_when(|state| state.version >= applied.version))
        .await
        .unwrap();
}

async fn client(world: &World, voter: u64) -> DirectoryClient<Channel> {
    let address = format!("http://{}", world.addresses(voter).rpc);
    let client = DirectoryClient::connect(address).await.unwrap();
    client.max_decoding_message_size(16 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_voter_sees_the_state_and_its_changes() {
    let world = World::founded().await;
    let follower = world.start_outside(2);
    let first = soon(follower.state_when(|state| !state.deployment.is_empty())).await;
    assert_eq!(first.unwrap().placements.len(), 4_096);
    assert_eq!(follower.follows(), Some(R2), "its own region's first");
    for _ in 0..3 {
        seen(&world, 1, &follower).await;
        let node = world.node(2).clone();
        soon(node.state_when(|state| state.version >= follower.state().version)).await;
        assert_eq!(follower.state(), node.state());
        assert_eq!(follower.table().version(), follower.state().version);
    }
    assert_eq!(soon(follower.store_id()).await, Some(world.node(2).store_id()));
    assert_eq!(follower.status().voters, world.node(2).status().voters);
    soon(follower.close()).await;
    assert_eq!(soon(follower.state_when(|_| false)).await, None);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_to_another_voter_and_comes_back_to_its_own() {
    let mut world = World::founded().await;
    let follower = world.start_outside(2);
    until("it follows its own", || follower.follows() == Some(R2)).await;
    world.kill(2).await;
    let other = world.leader().await;
    seen(&world, other, &follower).await;
    assert!(follower.follows().is_some_and(|voter| voter != R2));
    assert_eq!(soon(follower.store_id()).await.map(|_| ()), Some(()));
    world.start(2).await;
    until("it follows its own again", || follower.follows() == Some(R2)).await;
    seen(&world, other, &follower).await;
    soon(follower.close()).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_a_voter_that_falls_silent_or_knows_nothing_new() {
    for is_silent in [true, false] {
        let leased = Leased::founded().await;
        let world = &leased.world;
        let cut = world.follower().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != cut).collect();
        let follower = world.start_outside(cut);
        until("it follows its own", || follower.follows() == Some(RegionId(cut))).await;
        let keeper = follower.keep_lease("2", 1);
        valid(&keeper, true).await;
        if is_silent {
            world.isolate(cut);
        } else {
            world.cut_off(cut, &others);
        }
        seen(world, others[0], &follower).await;
        assert_ne!(follower.follows(), Some(RegionId(cut)), "silent: {is_silent}");
        valid(&keeper, true).await;
        world.heal();
        soon(follower.close()).await;
        leased.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_by_way_of_other_voters_when_its_own_is_dead() {
    let mut leased = Leased::founded().await;
    let dead = leased.world.follower().await;
    leased.keepers.remove(&dead);
    leased.world.kill(dead).await;
    let follower = leased.world.start_outside(dead);
    let keeper = follower.keep_lease("2", 1);
    valid(&keeper, true).await;
    let other = 1 + dead % 3;
    let applied = soon(follower.propose(status(other, RegionStatus::Draining)))
        .await
        .unwrap();
    assert_eq!(
        follower.state().version,
        applied.version,
        "it has seen what it has changed"
    );
    let state = soon(follower.state_linearizable()).await.unwrap();
    assert!(state.is(RegionId(other), RegionStatus::Draining));
    let refused = soon(follower.propose(status(9, RegionStatus::Active))).await;
    assert!(matches!(refused, Err(DirectoryError::Rejected(_))), "{refused:?}");
    soon(follower.close()).await;
    assert!(matches!(
        soon(follower.state_linearizable()).await,
        Err(DirectoryError::Stopped(_))
    ));
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_down_only_after_the_last_of_its_nodes_has_stopped() {
    let mut leased = Leased::founded().await;
    let region = leased.world.follower().await;
    let leader = leased.world.leader().await;
    let follower = leased.world.start_outside(region);
    let second = follower.keep_lease("2", 1);
    valid(&second, true).await;
    let first = leased.keepers.remove(&region).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(first.is_valid() && second.is_valid(), "both hold the lease");

    leased.world.kill(region).await;
    // Twice a lease and its margin.
    tokio::time::sleep(Duration::from_millis(6_600)).await;
    assert!(!first.is_valid());
    assert!(second.is_valid());
    assert_eq!(leased.status(leader, region), RegionStatus::Active);

    // Nothing gets to it or from it any more.
    leased.world.isolate(100 + region);
    let node = leased.world.node(leader).clone();
    let down = node.state_when(|state| state.is(RegionId(region), RegionStatus::Down));
    soon(down).await.unwrap();
    assert!(!second.is_valid(), "down while a node of it holds a lease");

    leased.world.heal();
    valid(&second, true).await;
    assert!(
        follower.state().is(RegionId(region), RegionStatus::Active),
        "the lease counts once it knows that the region was down"
    );
    soon(follower.close()).await;
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_process_of_the_same_node_gets_no_lease() {
    let leased = Leased::founded().await;
    let (old, new) = (leased.world.start_outside(2), leased.world.start_outside(2));
    let old_keeper = old.keep_lease("2", 5);
    valid(&old_keeper, true).await;
    let new_keeper = new.keep_lease("2", 6);
    valid(&new_keeper, true).await;
    valid(&old_keeper, false).await;
    assert!(new_keeper.is_valid());
    assert!(leased.keepers[&2].is_valid(), "the other node is not asked");

    // One of an earlier release does not say which node it is.
    let renew = RenewRequest {
        deployment: "test".to_owned(),
        region: 2,
        incarnation: 0,
        passed_on: false,
        node: None,
    };
    let answer = client(&leased.world, 1).await.renew(renew).await.unwrap().into_inner();
    assert!(
        matches!(answer.result, Some(renew_reply::Result::Refused(_))),
        "{answer:?}"
    );
    soon(old.close()).await;
    soon(new.close()).await;
    leased.world.close().await;
}

#[derive(Deserialize)]
struct Head {
    state: Version,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_the_newest_state_and_not_all_before_it() {
    const CHANGES: usize = 40;
    let world = World::founded().await;
    let request = FollowRequest {
        deployment: "test".to_owned(),
        region: 2,
    };
    let mut stream = client(&world, 2).await.follow(request).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let mut version = 0;
    for at in 0..CHANGES {
        // Every chunk changes, so that what is on its way fills the buffers between here and there.
        let to = (at % 2 == 0).then_some(R2);
        let moves = Slot::all().map(|slot| (slot, 1, to)).collect();
        version = soon(world.node(2).propose(Command::Plan { moves }))
            .await
            .unwrap()
            .version;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let mut replies = 0;
    loop {
        let reply = soon(stream.message()).await.unwrap().unwrap();
        let head: Head = rmp_serde::from_slice(&reply.head).unwrap();
        replies += 1;
        if head.state.version >= version {
            break;
        }
    }
    assert!(replies < CHANGES / 2, "{replies} replies for {CHANGES} changes");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_deployment_is_not_told() {
    let world = World::founded().await;
    let request = FollowRequest {
        deployment: "other".to_owned(),
        region: 2,
    };
    let refused = client(&world, 2).await.follow(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    world.close().await;
}
