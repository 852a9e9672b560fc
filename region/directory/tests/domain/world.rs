use antiphon_directory::domain::{
    Addresses, Applied, Command, InSyncChange, NodeAddress, Placement, Policy, RegionId, RegionStatus, State,
    wanted_in_sync,
};
use antiphon_nodes::NodeId;
use antiphon_types::{Epoch, Slot};

use crate::invariants::check;

/// A founded deployment of `r1`, `r2` …, whose invariants are checked after each command.
pub(crate) struct World {
    pub(crate) state: State,
}

impl World {
    pub(crate) fn of(regions: u64) -> Self {
        Self::with(regions, Policy::default())
    }

    pub(crate) fn with(regions: u64, policy: Policy) -> Self {
        let mut world = Self {
            state: State::default(),
        };
        world.apply(&found(regions, policy));
        world
    }

    /// Applies a command that is accepted; parts of it may be refused.
    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        let before = self.state.clone();
        let result = self.state.apply(command);
        check(&before, command, &result, &self.state);
        result.unwrap_or_else(|rejection| panic!("{command:?} was refused: {rejection}"))
    }

    /// Applies a command that is refused, and says why it was.
    pub(crate) fn refuse(&mut self, command: &Command) -> String {
        let before = self.state.clone();
        let result = self.state.apply(command);
        check(&before, command, &result, &self.state);
        match result {
            Ok(applied) => panic!("{command:?} was accepted: {applied:?}"),
            Err(rejection) => rejection.to_string(),
        }
    }

    /// Applies a command about one slot that is refused for it, and says why.
    pub(crate) fn refuse_slot(&mut self, command: &Command) -> String {
        let applied = self.apply(command);
        assert!(!applied.changed, "{command:?} changed something");
        let [(_, rejection)] = applied.refused.as_slice() else {
            panic!("{command:?} was not refused once: {applied:?}");
        };
        rejection.to_string()
    }

    pub(crate) fn slot(&self, number: u16) -> &Placement {
        self.state.placement(slot(number)).unwrap()
    }

    pub(crate) fn set_status(&mut self, region: u64, status: RegionStatus) -> Applied {
        self.apply(&Command::SetStatus {
            region: RegionId(region),
            status,
        })
    }

    /// The home changes the in-sync set of one slot, as of now.
    pub(crate) fn in_sync_change(&self, number: u16, set: &[u64]) -> Command {
        let placement = self.slot(number);
        Command::ChangeInSync {
            home: placement.home,
            changes: vec![change(slot(number), placement.epoch, placement.version, ids(set))],
        }
    }

    /// The home hands one slot over, as of now.
    pub(crate) fn move_of(&self, number: u16, to: u64) -> Command {
        let placement = self.slot(number);
        Command::MoveHome {
            home: placement.home,
            moves: vec![(slot(number), placement.epoch, RegionId(to))],
        }
    }

    pub(crate) fn homes_of(&self, region: u64) -> usize {
        let slots = self.state.slots();
        slots
            .filter(|(_, placement)| placement.home == RegionId(region))
            .count()
    }

    /// What every home that is up does by itself: it aims at the in-sync set it ought to have (all regions are level here), and hands
    /// over what it is asked to. Returns how many slots changed homes.
    pub(crate) fn homes_act(&mut self, nearest: impl Fn(RegionId) -> Vec<RegionId>) -> usize {
        let up = |world: &Self| -> Vec<RegionId> {
            let regions = world.state.regions.iter();
            let up = regions.filter(|(_, region)| region.status != RegionStatus::Down);
            up.map(|(id, _)| *id).collect()
        };
        let mut moved = 0;
        for home in up(self) {
            let wanted = |slot| wanted_in_sync(&self.state, slot, &nearest(home));
            let own = self.state.slots().filter(|(_, placement)| placement.home == home);
            let changes: Vec<InSyncChange> = own
                .map(|(slot, placement)| change(slot, placement.epoch, placement.version, wanted(slot)))
                .collect();
            let applied = self.apply(&Command::ChangeInSync { home, changes });
            assert_eq!(applied.refused, [], "what is wanted is refused");
        }
        for home in up(self) {
            let own = self.state.slots().filter(|(_, placement)| placement.home == home);
            let moves: Vec<(Slot, Epoch, RegionId)> = own
                .filter_map(|(slot, placement)| Some((slot, placement.epoch, placement.moving_to?)))
                .collect();
            let applied = self.apply(&Command::MoveHome { home, moves });
            assert_eq!(applied.refused, [], "a hand-over that was asked for is refused");
            moved += applied.slots_changed;
        }
        moved
    }
}

pub(crate) fn found(regions: u64, policy: Policy) -> Command {
    let named = |number| (format!("r{number}"), addresses(&format!("r{number}")));
    Command::Found {
        deployment: "test".to_owned(),
        regions: (1..=regions).map(named).collect(),
        policy,
    }
}

pub(crate) fn add(name: &str) -> Command {
    Command::AddRegion {
        name: name.to_owned(),
        addresses: addresses(name),
    }
}

pub(crate) fn set_nodes(region: u64, nodes: &[u8]) -> Command {
    let node = |number: &u8| NodeAddress {
        id: NodeId::parse(&number.to_string()).unwrap(),
        rpc: format!("node-{number}.example:7404"),
    };
    Command::SetNodes {
        region: RegionId(region),
        nodes: nodes.iter().map(node).collect(),
    }
}

pub(crate) fn addresses(name: &str) -> Addresses {
    Addresses {
        rpc: format!("{name}.example:7404"),
        edge: format!("https://{name}.example"),
    }
}

/// A policy with these rules; every region that they do not name allows all.
pub(crate) fn policy(in_sync_copies: u8, min_in_sync: u8, rules: &[(&str, &[&str])]) -> Policy {
    let rule = |(home, allowed): &(&str, &[&str])| {
        let allowed = allowed.iter().map(|region| (*region).to_owned()).collect();
        ((*home).to_owned(), allowed)
    };
    Policy {
        in_sync_copies,
        min_in_sync,
        allowed: rules.iter().map(rule).collect(),
        ..Policy::default()
    }
}

pub(crate) fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

pub(crate) fn ids(regions: &[u64]) -> Vec<RegionId> {
    regions.iter().copied().map(RegionId).collect()
}

/// A change that the first opening of the slot asks for.
pub(crate) fn change(slot: Slot, epoch: Epoch, version: u64, set: Vec<RegionId>) -> InSyncChange {
    InSyncChange {
        slot,
        epoch,
        version,
        opening: 1,
        set,
    }
}
