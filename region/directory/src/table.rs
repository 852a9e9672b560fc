use std::sync::Arc;

use antiphon_types::{Epoch, SLOT_COUNT, Slot};
use arc_swap::ArcSwap;

/// What the directory says of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The region that orders and stores the slot.
    pub home: Arc<str>,
    /// The regions that must hold an entry before it is committed; the home is one of them.
    pub in_sync: Vec<Arc<str>>,
    /// Grows by one at each change of home.
    pub epoch: Epoch,
}

/// All 4096 placements; a look-up is an index into memory.
#[derive(Debug, Clone)]
pub struct Table {
    placements: Vec<Placement>,
}

impl Table {
    /// The table of a deployment of one region: it is home of every slot, alone in the in-sync set, in the first epoch.
    #[must_use]
    pub fn single(region: &str) -> Self {
        let home: Arc<str> = region.into();
        let placement = Placement {
            home: home.clone(),
            in_sync: vec![home],
            epoch: 1,
        };
        Self {
            placements: vec![placement; usize::from(SLOT_COUNT)],
        }
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
}

/// The table as it is now; readers take it without a lock, the directory's client replaces it whole.
#[derive(Debug, Clone)]
pub struct TableWatch {
    current: Arc<ArcSwap<Table>>,
}

impl TableWatch {
    /// Starts with `table`.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(table)),
        }
    }

    /// The table now.
    #[must_use]
    pub fn load(&self) -> Arc<Table> {
        self.current.load_full()
    }

    /// Replaces the table.
    pub fn store(&self, table: Table) {
        self.current.store(Arc::new(table));
    }
}
