use std::{collections::BTreeMap, time::Duration};

use antiphon_directory::{
    LeaseKeeper, LeaseOptions,
    domain::{Command, RegionId, RegionStatus},
};

use crate::world::{SOON, World, soon, until};

pub(crate) struct Leased {
    pub(crate) world: World,
    pub(crate) keepers: BTreeMap<u64, LeaseKeeper>,
}

impl Leased {
    /// Three regions that hold leases.
    pub(crate) async fn founded() -> Self {
        let mut world = World::new();
        world.options.lease = LeaseOptions {
            lease_ms: 3_000,
            margin_ms: 300,
            renewal_ms: 200,
        };
        world.found(3).await;
        let mut leased = Self {
            world,
            keepers: BTreeMap::new(),
        };
        for id in 1..=3 {
            leased.keep(id, 1).await;
        }
        leased
    }

    async fn keep(&mut self, id: u64, incarnation: u64) {
        let keeper = self.world.node(id).keep_lease("1", incarnation);
        valid(&keeper, true).await;
        self.keepers.insert(id, keeper);
    }

    pub(crate) fn status(&self, at: u64, region: u64) -> RegionStatus {
        self.world.node(at).state().regions[&RegionId(region)].status
    }
}

pub(crate) async fn valid(keeper: &LeaseKeeper, wanted: bool) {
    let mut watch = keeper.watch();
    let reached = watch.wait_for(|valid| *valid == wanted);
    assert!(
        tokio::time::timeout(SOON, reached).await.is_ok(),
        "the lease never was valid = {wanted}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_region_is_down_once_its_own_lease_is_over_and_active_when_it_is_back() {
    comes_back(RegionStatus::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_being_emptied_is_so_again_when_it_is_back() {
    comes_back(RegionStatus::Draining).await;
}

/// A region of this status falls silent, and is of the same status when it has come back.
async fn comes_back(status: RegionStatus) {
    let mut leased = Leased::founded().await;
    let silent = leased.world.follower().await;
    let leader = leased.world.leader().await;
    let node = leased.world.node(leader).clone();
    let region = RegionId(silent);
    node.propose(Command::SetStatus { region, status }).await.unwrap();
    let keeper = leased.keepers.remove(&silent).unwrap();
    leased.world.kill(silent).await;
    let down = node.state_when(|state| state.regions[&region].status == RegionStatus::Down);
    soon(down).await.unwrap();
    assert!(!keeper.is_valid(), "down while it holds a lease");
    for id in leased.world.nodes.keys() {
        assert_ne!(leased.status(leader, *id), RegionStatus::Down, "region {id} renews");
    }

    leased.world.start(silent).await;
    leased.keep(silent, 2).await;
    until("the region is what it was", || leased.status(leader, silent) == status).await;
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_go_on_under_a_new_leader() {
    let mut leased = Leased::founded().await;
    let leader = leased.world.leader().await;
    leased.keepers.remove(&leader);
    leased.world.kill(leader).await;
    let next = leased.world.leader().await;
    soon(
        leased
            .world
            .node(next)
            .state_when(|state| state.regions[&RegionId(leader)].status == RegionStatus::Down),
    )
    .await
    .unwrap();
    for (id, keeper) in &leased.keepers {
        assert!(keeper.is_valid(), "region {id}");
        assert_eq!(leased.status(next, *id), RegionStatus::Active, "region {id}");
    }
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_reach_a_majority_loses_its_lease() {
    let mut leased = Leased::founded().await;
    let leader = leased.world.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in others {
        leased.world.kill(id).await;
    }
    valid(&leased.keepers[&leader], false).await;
    assert!(!leased.keepers[&leader].is_valid());
    // And it declares nobody down.
    tokio::time::sleep(Duration::from_millis(4_000)).await;
    assert!((1..=3).all(|id| leased.status(leader, id) == RegionStatus::Active));
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_one_process_of_a_region() {
    let mut leased = Leased::founded().await;
    let old = leased.keepers.remove(&2).unwrap();
    leased.keep(2, 2).await;
    valid(&old, false).await;
    assert!(!old.is_valid());
    assert!(leased.keepers[&2].is_valid());
    leased.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_of_a_draining_region_are_asked_to_hand_over() {
    let leased = Leased::founded().await;
    let node = leased.world.node(1);
    let drain = Command::SetStatus {
        region: RegionId(2),
        status: RegionStatus::Draining,
    };
    soon(node.propose(drain)).await.unwrap();
    let asked = node.state_when(|state| {
        let mut homes = state
            .placements
            .iter()
            .filter(|placement| placement.home == RegionId(2));
        homes.all(|placement| placement.moving_to.is_some())
    });
    assert!(
        soon(asked)
            .await
            .unwrap()
            .placements
            .iter()
            .any(|placement| placement.home == RegionId(2))
    );
    leased.world.close().await;
}
