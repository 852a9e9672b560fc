use std::{collections::BTreeMap, sync::Arc};

use antiphon_nodes::NodeId;
use antiphon_types::{Epoch, SLOT_COUNT, Slot};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::domain::{self, Addresses, Durability, NodeAddress, RegionId, RegionStatus, State};

/// A region as the table names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRegion {
    /// Never given twice.
    pub id: RegionId,
    /// Its name.
    pub name: Arc<str>,
    /// How it is reached.
    pub addresses: Addresses,
    /// Whether it may be home.
    pub status: RegionStatus,
    /// Its live nodes; empty for a region of one process.
    pub nodes: Vec<NodeAddress>,
}

/// What the directory says of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The name of the region that orders and stores the slot.
    pub home: Arc<str>,
    /// That region.
    pub home_region: Arc<TableRegion>,
    /// The regions that must hold an entry before it is committed; the home first.
    pub in_sync: Vec<Arc<TableRegion>>,
    /// The regions that follow the log without being waited for.
    pub observers: Vec<Arc<TableRegion>>,
    /// Grows by one at each change of home.
    pub epoch: Epoch,
    /// The home waits out the lease of the one before, who was up, before it serves.
    pub forced: bool,
    /// Grows with each change of the in-sync set.
    pub version: u64,
    /// The opening of the slot at its home that the directory has heard last in this epoch.
    pub opening: u64,
    /// The home is asked to hand the slot over to this region.
    pub moving_to: Option<Arc<TableRegion>>,
    /// Size of the in-sync set that is aimed at.
    pub in_sync_copies: u8,
    /// Below this many in-sync copies the slot refuses writes.
    pub min_in_sync: u8,
    /// When a write is acknowledged.
    pub durability: Durability,
}

/// All 4096 placements; a look-up is an index into memory.
#[derive(Debug, Clone)]
pub struct Table {
    version: u64,
    regions: BTreeMap<RegionId, Arc<TableRegion>>,
    placements: Vec<Placement>,
}

impl Table {
    /// The table of a state; none when the deployment is not founded yet.
    #[must_use]
    pub fn from_state(state: &State) -> Option<Self> {
        let regions: BTreeMap<RegionId, Arc<TableRegion>> = state
            .regions
            .iter()
            .map(|(id, region)| (*id, Arc::new(TableRegion::new(*id, region))))
            .collect();
        let placements = state
            .placements
            .iter()
            .map(|from| Placement::new(from, state, &regions));
        let placements: Vec<Placement> = placements.collect::<Option<_>>()?;
        (placements.len() == usize::from(SLOT_COUNT)).then_some(Self {
            version: state.version,
            regions,
            placements,
        })
    }

    /// The table of a deployment of one region: it is home of every slot, alone in the in-sync set, in the first epoch. It is older
    /// than any that the directory makes.
    #[must_use]
    pub fn single(region: &str) -> Self {
        let region = Arc::new(TableRegion {
            id: RegionId(1),
            name: region.into(),
            addresses: Addresses::default(),
            status: RegionStatus::Active,
            nodes: Vec::new(),
        });
        let placement = Placement {
            home: region.name.clone(),
            home_region: region.clone(),
            in_sync: vec![region.clone()],
            observers: Vec::new(),
            epoch: 1,
            forced: false,
            version: 1,
            opening: 0,
            moving_to: None,
            in_sync_copies: 1,
            min_in_sync: 1,
            durability: Durability::Global,
        };
        Self {
            version: 0,
            regions: BTreeMap::from([(region.id, region)]),
            placements: vec![placement; usize::from(SLOT_COUNT)],
        }
    }

    /// The version of the state that this is the table of.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The placement of a slot.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "a Slot is below SLOT_COUNT by construction")]
    pub fn placement(&self, slot: Slot) -> &Placement {
        &self.placements[usize::from(slot.number())]
    }

    /// The slots whose home is `region`.
    pub fn homed_in<'a>(&'a self, region: &'a str) -> impl Iterator<Item = Slot> + 'a {
        Slot::all().filter(move |slot| &*self.placement(*slot).home == region)
    }

    /// Every region, in the order of their ids.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<TableRegion>> {
        self.regions.values()
    }

    /// The region of this id.
    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<&Arc<TableRegion>> {
        self.regions.get(&id)
    }

    /// The region of this name.
    #[must_use]
    pub fn region_named(&self, name: &str) -> Option<&Arc<TableRegion>> {
        self.regions.values().find(|region| &*region.name == name)
    }
}

impl TableRegion {
    fn new(id: RegionId, region: &domain::Region) -> Self {
        Self {
            id,
            name: region.name.as_str().into(),
            addresses: region.addresses.clone(),
            status: region.status,
            nodes: region.nodes.clone(),
        }
    }

    /// The node whose share `slot` is, as the region has told last; `None` for a region of one process.
    #[must_use]
    pub fn node_of(&self, slot: Slot) -> Option<&NodeAddress> {
        let owner = antiphon_nodes::owner(slot, self.nodes.iter().map(|node| &node.id))?;
        self.node(owner)
    }

    /// The node of this id.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeAddress> {
        self.nodes.iter().find(|node| node.id == *id)
    }
}

impl Placement {
    fn new(from: &domain::Placement, state: &State, regions: &BTreeMap<RegionId, Arc<TableRegion>>) -> Option<Self> {
        let known = |region: &RegionId| regions.get(region).cloned();
        let home_region = known(&from.home)?;
        let observers = from.replicas.iter().filter(|region| !from.in_sync.contains(region));
        Some(Self {
            home: home_region.name.clone(),
            home_region,
            in_sync: from.in_sync.iter().filter_map(known).collect(),
            observers: observers.filter_map(known).collect(),
            epoch: from.epoch,
            forced: from.forced,
            version: from.version,
            opening: from.opening,
            moving_to: from.moving_to.as_ref().and_then(known),
            in_sync_copies: state.policy.in_sync_copies,
            min_in_sync: state.min_in_sync(),
            durability: state.policy.durability,
        })
    }
}

/// The table as it is now; readers take it without a lock, the directory's client replaces it whole.
#[derive(Debug, Clone)]
pub struct TableWatch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Table>,
    version: watch::Sender<u64>,
}

impl TableWatch {
    /// Starts with `table`.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self {
            shared: Arc::new(Shared {
                version: watch::Sender::new(table.version),
                current: ArcSwap::from_pointee(table),
            }),
        }
    }

    /// The table now.
    #[must_use]
    pub fn load(&self) -> Arc<Table> {
        self.shared.current.load_full()
    }

    /// The version of the table now.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.shared.version.borrow()
    }

    /// Waits for a table of another version than `seen`, that of the table which the caller acted upon last; answers at once when
    /// there is one already. Several changes may be seen as one.
    pub async fn changed(&self, seen: u64) -> Arc<Table> {
        // Fails only when the sender is gone, and that is held here.
        let _ = self
            .shared
            .version
            .subscribe()
            .wait_for(|version| *version != seen)
            .await;
        self.load()
    }

    /// Replaces the table, unless this one is older than what is there.
    pub fn store(&self, table: Table) {
        self.shared.version.send_if_modified(|version| {
            if table.version < *version {
                return false;
            }
            let newer = table.version > *version;
            *version = table.version;
            self.shared.current.store(Arc::new(table));
            newer
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::{Command, Policy};

    #[test]
    fn a_table_says_of_a_slot_what_the_state_says() {
        let mut state = three_regions();
        let wish = vec![(slot(0), 1, Some(RegionId(2)))];
        state.apply(&Command::Plan { moves: wish }).unwrap();
        let table = Table::from_state(&state).unwrap();

        assert_eq!(table.version(), state.version);
        let placement = table.placement(slot(0));
        assert_eq!(&*placement.home, "r1");
        assert_eq!(placement.home_region.id, RegionId(1));
        assert_eq!(placement.home_region.addresses.rpc, "r1:7404");
        assert_eq!(names(&placement.in_sync), ["r1", "r2"]);
        assert_eq!(names(&placement.observers), ["r3"]);
        assert_eq!((placement.epoch, placement.version), (1, 1));
        assert_eq!(placement.moving_to.as_deref().map(|to| to.id), Some(RegionId(2)));
        assert_eq!((placement.min_in_sync, placement.durability), (2, Durability::Global));
        assert_eq!(table.homed_in("r2").next(), Some(slot(1)));
        assert_eq!(table.region_named("r3").map(|region| region.id), Some(RegionId(3)));
        assert_eq!(table.region(RegionId(3)), table.region_named("r3"));
    }

    #[test]
    fn a_deployment_that_is_not_founded_has_no_table() {
        assert!(Table::from_state(&State::default()).is_none());
    }

    #[test]
    fn a_waiter_hears_of_a_change_while_it_waits_and_of_one_before() {
        let mut state = three_regions();
        let table = TableWatch::new(Table::from_state(&state).unwrap());
        let seen = table.version();
        assert!(table.changed(seen).now_or_never().is_none());

        let mut waiting = pin!(table.changed(seen));
        assert!(waiting.as_mut().now_or_never().is_none());
        change(&mut state);
        table.store(Table::from_state(&state).unwrap());
        assert_eq!(waiting.now_or_never().unwrap().version(), state.version);
        assert_eq!(table.changed(seen).now_or_never().unwrap().version(), state.version);
        assert_eq!(table.version(), state.version);
    }

    #[test]
    fn an_older_table_does_not_replace_a_newer_one() {
        let mut state = three_regions();
        let old = Table::from_state(&state).unwrap();
        change(&mut state);
        let table = TableWatch::new(Table::from_state(&state).unwrap());
        table.store(old);
        assert_eq!(
            (table.version(), table.load().version()),
            (state.version, state.version)
        );
    }

    fn three_regions() -> State {
        let region = |name: &str| {
            let addresses = Addresses {
                rpc: format!("{name}:7404"),
                edge: format!("http://{name}"),
            };
            (name.to_owned(), addresses)
        };
        let found = Command::Found {
            deployment: "test".to_owned(),
            regions: ["r1", "r2", "r3"].map(region).to_vec(),
            policy: Policy::default(),
        };
        let mut state = State::default();
        state.apply(&found).unwrap();
        state
    }

    fn change(state: &mut State) {
        let drain = Command::SetStatus {
            region: RegionId(3),
            status: RegionStatus::Draining,
        };
        state.apply(&drain).unwrap();
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    fn names(regions: &[Arc<TableRegion>]) -> Vec<&str> {
        regions.iter().map(|region| &*region.name).collect()
    }
}
