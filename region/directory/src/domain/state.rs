use std::collections::{BTreeMap, BTreeSet};

use antiphon_nodes::NodeId;
use antiphon_types::{Epoch, Slot};
use serde::{Deserialize, Serialize};

/// A region of the deployment and, being one and the same, its voter in the Raft group. Never given twice: a region that is
/// replaced comes back under a new id, though it may keep its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct RegionId(pub u64);

/// Everything the directory knows; the same at every voter that has applied the same commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct State {
    /// Grows with each command that changed something.
    pub version: u64,
    /// Names the deployment; empty before [`Command::Found`].
    pub deployment: String,
    /// By id; a removed region is gone, its id stays used.
    pub regions: BTreeMap<RegionId, Region>,
    /// The highest id ever given.
    pub region_id_max: RegionId,
    /// One for each slot, in slot order; empty before [`Command::Found`].
    pub placements: Vec<Placement>,
    /// Rules of placement.
    pub policy: Policy,
    /// See [`State::min_in_sync`].
    pub min_in_sync: u8,
}

impl State {
    /// Below this many in-sync copies a slot refuses writes: the policy's number, as soon as every slot has once had as many.
    ///
    /// It rises by itself and falls by an operator's word alone ([`Command::SetPolicy`]), never by loss. So a deployment that is
    /// founded with one region can be written, goes on while a second region is still filling up, and asks for two copies from the
    /// moment at which every slot has them. And one that was founded with three and has lost two refuses writes: a single copy is
    /// less than what was promised to those who wrote.
    #[must_use]
    pub fn min_in_sync(&self) -> u8 {
        self.min_in_sync
    }

    /// The placement of a slot; none before [`Command::Found`].
    #[must_use]
    pub fn placement(&self, slot: Slot) -> Option<&Placement> {
        self.placements.get(usize::from(slot.number()))
    }

    /// Every slot with its placement, in slot order; empty before [`Command::Found`].
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Placement)> {
        Slot::all().zip(&self.placements)
    }

    /// Whether the region is there and has this status.
    #[must_use]
    pub fn is(&self, region: RegionId, status: RegionStatus) -> bool {
        self.regions.get(&region).is_some_and(|found| found.status == status)
    }
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Lower-case letters, digits and hyphens; unique among the regions that are there.
    pub name: String,
    /// How it is reached.
    pub addresses: Addresses,
    /// Whether it may be home.
    pub status: RegionStatus,
    /// It was being emptied when it went down, and is to be emptied on when it is back.
    pub was_draining: bool,
    /// The live nodes of the region, in the order of their ids; empty for a region of one process, which is reached at its addresses.
    #[serde(default)]
    pub nodes: Vec<NodeAddress>,
}

/// How one of several nodes of a region is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// Its name in the region; it decides which slots are its share.
    pub id: NodeId,
    /// `host:port` of the port between nodes (mTLS).
    pub rpc: String,
}

/// How a region is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Addresses {
    /// `host:port` of the port between nodes (mTLS).
    pub rpc: String,
    /// Base URL of its edges, as devices reach them.
    pub edge: String,
}

/// Whether a region may be home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionStatus {
    /// It may.
    Active,
    /// An operator empties it: its homes move away one by one, and none comes.
    Draining,
    /// Its lease has expired; its homes were given away.
    Down,
}

/// Where one slot lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Orders and stores the slot.
    pub home: RegionId,
    /// Who must hold an entry before it is committed; the home first.
    pub in_sync: Vec<RegionId>,
    /// Who follows the log: the in-sync set, then the observers, who are all other regions that the policy allows.
    pub replicas: Vec<RegionId>,
    /// Leader epoch: grows by one at each change of home.
    pub epoch: Epoch,
    /// The home took over on an operator's word from one that was up: before it serves, it waits out the lease that the other may hold.
    pub forced: bool,
    /// Grows with each change of the in-sync set; a change names the one that it was decided on.
    pub version: u64,
    /// The opening of the slot at its home that has asked for a change last in this epoch, or 0; what earlier ones ask for is refused.
    pub opening: u64,
    /// Where the slot is to be when all is well. A hand-over that evens out the homes of active regions changes it; one that empties
    /// a region, or a fail-over, does not.
    pub preferred_home: RegionId,
    /// The home is asked to hand the slot over to this region (drain, rebalance). One that only observes has to be brought into the
    /// in-sync set first: [`super::wanted_in_sync`] names it.
    pub moving_to: Option<RegionId>,
}

/// Rules of placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Size of the in-sync set that is aimed at.
    pub in_sync_copies: u8,
    /// Below this many in-sync copies a slot refuses writes.
    pub min_in_sync: u8,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// By home region: the names of the regions that may hold a copy, besides the home. A home that is not named here allows all.
    ///
    /// Who may hold a copy may come to be the home, so its own rule may not allow more: else a fail-over would carry a slot's data
    /// to where the operator did not want it.
    pub allowed: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            in_sync_copies: 2,
            min_in_sync: 2,
            durability: Durability::Global,
            allowed: BTreeMap::new(),
        }
    }
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// When every in-sync region holds it: losing a region loses nothing.
    Global,
    /// When the home holds it.
    Regional,
}

/// A change of the state. Nothing in it depends on who applies it or when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a deployment; the same one again changes nothing.
    Found {
        /// Names the deployment.
        deployment: String,
        /// The first regions: name and addresses, by id from 1.
        regions: Vec<(String, Addresses)>,
        /// Rules of placement.
        policy: Policy,
    },
    /// A region comes: it gets the next id and follows slots, home of none yet.
    AddRegion {
        /// Its name.
        name: String,
        /// How it is reached.
        addresses: Addresses,
    },
    /// A region goes for good; refused while it is home or in an in-sync set.
    RemoveRegion {
        /// Which.
        region: RegionId,
    },
    /// A region is reached otherwise now.
    SetAddresses {
        /// Which.
        region: RegionId,
        /// How.
        addresses: Addresses,
    },
    /// A region becomes active, draining or down. Down fails its homes over to in-sync regions, each under the next epoch.
    SetStatus {
        /// Which.
        region: RegionId,
        /// To what.
        status: RegionStatus,
    },
    /// Homes change the in-sync sets of slots.
    ChangeInSync {
        /// Who asks: the home.
        home: RegionId,
        /// Each is judged alone.
        changes: Vec<InSyncChange>,
    },
    /// A home hands slots over that have nothing above the high watermark any more.
    MoveHome {
        /// Who asks: the home.
        home: RegionId,
        /// Slot, epoch that it was decided on, and to whom. Each is judged alone.
        moves: Vec<(Slot, Epoch, RegionId)>,
    },
    /// An operator gives homes away without asking the home; `to` has to be in sync.
    FailOver {
        /// Which slots.
        slots: Vec<Slot>,
        /// To whom; `None` lets the policy choose.
        to: Option<RegionId>,
    },
    /// An operator gives up what only regions that are down hold: `to` becomes home with what it has, and what it lacks is lost.
    /// Refused for a slot that has an in-sync region which is up.
    ForceHome {
        /// Which slots.
        slots: Vec<Slot>,
        /// To whom: an observer that is up.
        to: RegionId,
    },
    /// Asks homes to hand slots over (the planner's word).
    Plan {
        /// Slot, epoch that it was decided on, to whom; `None` takes the wish back.
        moves: Vec<(Slot, Epoch, Option<RegionId>)>,
    },
    /// Other rules of placement.
    SetPolicy {
        /// The rules.
        policy: Policy,
    },
    /// Other nodes of a region are alive now.
    SetNodes {
        /// Which region.
        region: RegionId,
        /// All of them, each id once; none for a region of one process.
        nodes: Vec<NodeAddress>,
    },
}

/// Another in-sync set for a slot, or the present one once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSyncChange {
    /// Which.
    pub slot: Slot,
    /// The leader epoch that it was decided in.
    pub epoch: Epoch,
    /// The version of the set that it was decided on.
    pub version: u64,
    /// Who asks: the opening of the slot at its home, counted in the epoch.
    pub opening: u64,
    /// The set, the home first.
    pub set: Vec<RegionId>,
}

/// Why a command, or one part of it, changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The state has moved on since the command was decided.
    #[error("{what} is at {found} and the command was decided at {expected}")]
    Stale {
        /// What: a slot's epoch or version.
        what: String,
        /// The command's.
        expected: u64,
        /// The state's.
        found: u64,
    },
    /// There is no such region.
    #[error("there is no region {0:?}")]
    NoRegion(String),
    /// The command breaks a rule.
    #[error("{0}")]
    Refused(String),
}
