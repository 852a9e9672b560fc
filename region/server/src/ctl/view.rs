//! The directory as an operator sees it: what the admin port answers and `antiphon ctl` prints.

use antiphon_directory::{
    Role, Status,
    domain::{Durability, Placement, RegionId, RegionStatus, State},
};
use antiphon_types::Slot;
use serde::{Deserialize, Serialize};

/// The whole deployment at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    /// The region that answers.
    pub(crate) region: String,
    /// What its node is in the directory's Raft group.
    pub(crate) role: String,
    /// The region whose node leads the group.
    pub(crate) leader: Option<String>,
    pub(crate) term: u64,
    /// Grows with each change of the directory.
    pub(crate) version: u64,
    pub(crate) voters: Vec<String>,
    pub(crate) in_sync_copies: u8,
    pub(crate) min_in_sync: u8,
    /// `global` or `regional`.
    pub(crate) durability: String,
    /// Slots that are on their way to another home: those of a home that is down wait for it, and are not.
    pub(crate) moving: usize,
    /// Slots with fewer in-sync copies than there are to be.
    pub(crate) short: usize,
    /// Slots with fewer in-sync copies than writes need.
    pub(crate) refusing: usize,
    pub(crate) regions: Vec<RegionView>,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegionView {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// `active`, `draining` or `down`.
    pub(crate) status: String,
    /// Slots that it is home of.
    pub(crate) homes: usize,
    /// Slots of other homes that it is in sync with.
    pub(crate) in_sync: usize,
    /// Slots that it follows without being waited for.
    pub(crate) observes: usize,
    pub(crate) rpc: String,
    pub(crate) edge: String,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SlotView {
    pub(crate) slot: u16,
    pub(crate) home: String,
    pub(crate) in_sync: Vec<String>,
    pub(crate) observers: Vec<String>,
    pub(crate) epoch: u64,
    pub(crate) version: u64,
    pub(crate) moving_to: Option<String>,
}

impl View {
    pub(crate) fn of(state: &State, status: &Status) -> Self {
        let count = |fits: &dyn Fn(&Placement) -> bool| state.slots().filter(|(_, placement)| fits(placement)).count();
        let regions = state.regions.iter().map(|(id, region)| RegionView {
            id: id.0,
            name: region.name.clone(),
            status: status_name(region.status).to_owned(),
            homes: count(&|placement| placement.home == *id),
            in_sync: count(&|placement| placement.home != *id && placement.in_sync.contains(id)),
            observes: count(&|placement| placement.replicas.contains(id) && !placement.in_sync.contains(id)),
            rpc: region.addresses.rpc.clone(),
            edge: region.addresses.edge.clone(),
        });
        let min_in_sync = state.min_in_sync();
        Self {
            region: name(state, status.region),
            role: role_name(status.role).to_owned(),
            leader: status.leader.map(|leader| name(state, leader)),
            term: status.term,
            version: state.version,
            voters: status.voters.iter().map(|voter| name(state, *voter)).collect(),
            in_sync_copies: state.policy.in_sync_copies,
            min_in_sync,
            durability: match state.policy.durability {
                Durability::Global => "global".to_owned(),
                Durability::Regional => "regional".to_owned(),
            },
            moving: count(&|placement| placement.moving_to.is_some() && !state.is(placement.home, RegionStatus::Down)),
            short: count(&|placement| placement.in_sync.len() < usize::from(state.policy.in_sync_copies)),
            refusing: count(&|placement| placement.in_sync.len() < usize::from(min_in_sync)),
            regions: regions.collect(),
        }
    }

    /// One region by its name.
    pub(crate) fn region(&self, name: &str) -> Option<&RegionView> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// What is not as it is to be; empty when all is well.
    pub(crate) fn amiss(&self) -> Vec<String> {
        let regions = self.regions.iter().filter(|region| region.status != "active");
        let mut amiss: Vec<String> = regions
            .map(|region| format!("{} is {}", region.name, region.status))
            .collect();
        for (slots, how) in [
            (self.moving, "moving"),
            (self.short, "short of in-sync copies"),
            (self.refusing, "refusing writes"),
        ] {
            if slots > 0 {
                amiss.push(format!("{slots} slots are {how}"));
            }
        }
        amiss
    }
}

impl SlotView {
    pub(crate) fn of(state: &State, slot: Slot, placement: &Placement) -> Self {
        let names = |regions: &mut dyn Iterator<Item = &RegionId>| regions.map(|id| name(state, *id)).collect();
        Self {
            slot: slot.number(),
            home: name(state, placement.home),
            in_sync: names(&mut placement.in_sync.iter()),
            observers: names(&mut placement.replicas.iter().filter(|id| !placement.in_sync.contains(id))),
            epoch: placement.epoch,
            version: placement.version,
            moving_to: placement.moving_to.map(|to| name(state, to)),
        }
    }
}

/// A region's name; its number when it is gone.
pub(crate) fn name(state: &State, id: RegionId) -> String {
    state
        .regions
        .get(&id)
        .map_or_else(|| format!("region {}", id.0), |region| region.name.clone())
}

const fn status_name(status: RegionStatus) -> &'static str {
    match status {
        RegionStatus::Active => "active",
        RegionStatus::Draining => "draining",
        RegionStatus::Down => "down",
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Outside => "outside",
        Role::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use antiphon_directory::domain::{Addresses, Command, Policy};

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let names = ["us-east", "eu-central", "ap-northeast"].map(str::to_owned);
        state
            .apply(&Command::Found {
                deployment: "trial".to_owned(),
                regions: names.map(|name| (name, Addresses::default())).to_vec(),
                policy: Policy::default(),
            })
            .unwrap();
        state
    }

    fn view(state: &State) -> View {
        let status = Status {
            region: RegionId(2),
            role: Role::Leader,
            leader: Some(RegionId(2)),
            term: 1,
            last_log: None,
            applied: None,
            snapshot: None,
            purged: None,
            version: state.version,
            voters: [1, 2, 3].map(RegionId).into(),
            learners: [].into(),
            peers: Vec::new(),
            failure: None,
        };
        View::of(state, &status)
    }

    #[test]
    fn a_slot_whose_home_is_down_is_not_on_its_way() {
        let mut state = state();
        for placement in &mut state.placements[..2] {
            placement.moving_to = [2, 3].map(RegionId).into_iter().find(|to| *to != placement.home);
        }
        let home = state.placements[0].home;
        assert_ne!(home, state.placements[1].home);
        assert_eq!(view(&state).moving, 2);
        state.regions.get_mut(&home).unwrap().status = RegionStatus::Down;
        assert_eq!(view(&state).moving, 1);
    }
}
