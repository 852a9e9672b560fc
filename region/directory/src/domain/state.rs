use std::collections::{BTreeMap, BTreeSet};

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
    /// Who follows the log: the in-sync set and the observers.
    pub replicas: Vec<RegionId>,
    /// Leader epoch: grows by one at each change of home.
    pub epoch: Epoch,
    /// Grows with each change of the in-sync set; a change names the one that it was decided on.
    pub version: u64,
    /// Where the slot is to be when all is well.
    pub preferred_home: RegionId,
    /// The home is asked to hand the slot over to this in-sync region (drain, rebalance).
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
    /// By home region: the names of the regions that may hold a copy. A home that is not named here allows all.
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
        /// Slot, epoch and version that it was decided on, and the new set. Each is judged alone.
        changes: Vec<(Slot, Epoch, u64, Vec<RegionId>)>,
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
