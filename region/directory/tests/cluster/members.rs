use std::collections::BTreeSet;

use antiphon_directory::{
    DirectoryError,
    domain::{Command, RegionId, RegionStatus},
};

use crate::world::{World, soon, until};

fn ids(ids: &[u64]) -> BTreeSet<RegionId> {
    ids.iter().copied().map(RegionId).collect()
}

impl World {
    /// Adds region `id`, the next one, and waits until it votes.
    async fn grow(&mut self, id: u64, by: u64) {
        let addresses = self.reserve(id).await;
        let added = soon(self.directory(by).add_region(&format!("r{id}"), &addresses))
            .await
            .unwrap();
        assert_eq!(added, RegionId(id));
        self.start(id).await;
        let seeds: Vec<_> = self
            .nodes
            .keys()
            .map(|seed| (RegionId(*seed), self.addresses(*seed)))
            .collect();
        soon(self.node(id).join(&seeds)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_comes_while_it_runs() {
    let mut world = World::founded().await;
    let follower = world.follower().await;
    world.grow(4, follower).await;
    assert_eq!(world.node(4).status().voters, ids(&[1, 2, 3, 4]));
    let state = soon(world.node(4).state_linearizable()).await.unwrap();
    assert!(state.regions.contains_key(&RegionId(4)));
    assert_eq!(state.placements.len(), 4_096);
    // Asking again is answered with the region that is there.
    let addresses = world.addresses(4);
    assert_eq!(
        soon(world.directory(1).add_region("r4", &addresses)).await,
        Ok(RegionId(4))
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_one_region_grows_to_three() {
    let mut world = World::new();
    world.found(1).await;
    assert_eq!(world.node(1).state().placements.len(), 4_096);
    world.grow(2, 1).await;
    world.grow(3, 2).await;
    assert_eq!(world.node(3).status().voters, ids(&[1, 2, 3]));
    world.kill(1).await;
    let next = world.leader().await;
    soon(world.node(next).state_linearizable()).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_found_at_its_new_addresses() {
    let mut world = World::founded().await;
    let moved = world.follower().await;
    world.kill(moved).await;
    let addresses = world.reserve(moved).await;
    let other = world.leader().await;
    let command = Command::SetAddresses {
        region: RegionId(moved),
        addresses,
    };
    let version = soon(world.node(other).propose(command)).await.unwrap().version;
    world.start(moved).await;
    soon(world.node(moved).state_when(|state| state.version >= version))
        .await
        .unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_takes_the_vote_of_a_region_that_is_gone_from_the_state() {
    let world = World::founded().await;
    let leader = world.leader().await;
    let gone = world.follower().await;
    empty(&world, leader, gone).await;
    // As if whoever removes it died halfway.
    soon(
        world
            .node(leader)
            .propose(Command::RemoveRegion { region: RegionId(gone) }),
    )
    .await
    .unwrap();
    until("it votes no more", || {
        !world.node(leader).status().voters.contains(&RegionId(gone))
    })
    .await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_in_the_directory_does_not_vote() {
    let mut world = World::founded().await;
    world.reserve(9).await;
    world.start(9).await;
    let seeds = [(RegionId(1), world.addresses(1))];
    let refused = soon(world.node(9).join(&seeds)).await;
    assert!(matches!(refused, Err(DirectoryError::VotersRefused(_))), "{refused:?}");
    assert_eq!(world.node(1).status().voters, ids(&[1, 2, 3]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_region_is_replaced_under_a_new_id() {
    let mut world = World::founded().await;
    let leader = world.leader().await;
    world.kill(leader).await;
    let survivor = world.leader().await;
    let dead = RegionId(leader);
    let down = Command::SetStatus {
        region: dead,
        status: RegionStatus::Down,
    };
    soon(world.node(survivor).propose(down)).await.unwrap();
    soon(world.directory(survivor).remove_region(dead)).await.unwrap();
    // Once more: it is gone already.
    soon(world.directory(survivor).remove_region(dead)).await.unwrap();
    world.grow(4, survivor).await;
    let left: Vec<u64> = (1..=4).filter(|id| *id != leader).collect();
    let state = soon(world.node(4).state_linearizable()).await.unwrap();
    assert_eq!(state.regions.keys().copied().collect::<BTreeSet<_>>(), ids(&left));
    until("all know who votes", || {
        left.iter().all(|id| world.node(*id).status().voters == ids(&left))
    })
    .await;

    // The id of the dead one is never given again.
    let addresses = world.reserve(5).await;
    assert_eq!(
        soon(world.directory(4).add_region("again", &addresses)).await,
        Ok(RegionId(5))
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_leaves_a_group_that_works() {
    let mut world = World::founded().await;
    world.grow(4, 1).await;
    let leader = world.leader().await;
    let by = world.follower().await;
    empty(&world, by, leader).await;
    soon(world.directory(by).remove_region(RegionId(leader))).await.unwrap();
    world.kill(leader).await;
    let next = world.leader().await;
    assert_ne!(next, leader);
    assert!(
        !soon(world.node(next).state_linearizable())
            .await
            .unwrap()
            .regions
            .contains_key(&RegionId(leader))
    );
    assert!(!world.node(next).status().voters.contains(&RegionId(leader)));
    world.close().await;
}

/// Takes the homes and copies of a region away from it.
async fn empty(world: &World, by: u64, region: u64) {
    let down = Command::SetStatus {
        region: RegionId(region),
        status: RegionStatus::Down,
    };
    soon(world.node(by).propose(down)).await.unwrap();
}
