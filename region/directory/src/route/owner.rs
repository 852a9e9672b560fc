use std::{fmt, sync::Arc};

use antiphon_nodes::{NodeId, Share};
use antiphon_types::{Epoch, Slot};

use super::Shared;
use crate::{Placement, Table};

/// A process that serves slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The name of its region.
    pub region: Arc<str>,
    /// Which of the region's nodes it is; `None` in a region of one process.
    pub node: Option<NodeId>,
}

impl Owner {
    /// Who serves `slot` in the region that is its home, by the nodes that the region has told of.
    #[must_use]
    pub fn of(placement: &Placement, slot: Slot) -> Self {
        Self {
            region: placement.home.clone(),
            node: placement.home_region.node_of(slot).map(|node| node.id.clone()),
        }
    }
}

/// How far somebody has followed the table and the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    table: u64,
    share: u64,
}

/// Where a process is reached.
pub(super) enum Place {
    /// It is this one.
    Here,
    /// The region that its certificate names, and `host:port`.
    There(Arc<str>, String),
    /// It is not known.
    Nowhere,
}

impl Shared {
    pub(super) fn seen(&self) -> Seen {
        Seen {
            table: self.table.version(),
            share: self.share.version(),
        }
    }

    /// Waits until the table or the share is another than in `seen`.
    pub(super) async fn changed(&self, seen: Seen) -> Seen {
        tokio::select! {
            _ = self.table.changed(seen.table) => {}
            _ = self.share.changed(seen.share) => {}
        }
        self.seen()
    }

    /// Who serves the slot, and under which epoch; nobody while this region knows of no live node.
    pub(super) fn owner(&self, slot: Slot) -> (Option<Owner>, Epoch) {
        let table = self.table.load();
        let placement = table.placement(slot);
        let owner = if *placement.home == *self.region {
            self.owner_here(slot)
        } else {
            Some(Owner::of(placement, slot))
        };
        (owner, placement.epoch)
    }

    /// The share is nearer than what the region has told the directory.
    fn owner_here(&self, slot: Slot) -> Option<Owner> {
        let node = match self.share.nodes() {
            Some(nodes) => Some(nodes.owner(slot)?.id.clone()),
            None => None,
        };
        let region = self.region.clone();
        Some(Owner { region, node })
    }

    pub(super) fn place_of(&self, owner: &Owner) -> Place {
        if *owner.region == *self.region {
            return place_in_own_region(&self.share, owner);
        }
        place_in(&self.table.load(), owner)
    }

    /// Waits until another serves the slot than now, or under another epoch.
    pub(super) async fn moves(&self, slot: Slot) {
        let mut seen = self.seen();
        let owner = self.owner(slot);
        while self.owner(slot) == owner {
            seen = self.changed(seen).await;
        }
    }
}

fn place_in_own_region(share: &Share, owner: &Owner) -> Place {
    let (Some(id), Some(nodes)) = (&owner.node, share.nodes()) else {
        return Place::Here;
    };
    if nodes.own() == id {
        return Place::Here;
    }
    match nodes.node(id) {
        Some(node) => Place::There(owner.region.clone(), node.rpc.clone()),
        None => Place::Nowhere,
    }
}

fn place_in(table: &Table, owner: &Owner) -> Place {
    let Some(region) = table.region_named(&owner.region) else {
        return Place::Nowhere;
    };
    let address = match &owner.node {
        Some(id) => region.node(id).map(|node| &node.rpc),
        None => Some(&region.addresses.rpc),
    };
    address.map_or(Place::Nowhere, |rpc| Place::There(region.name.clone(), rpc.clone()))
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "node {node} of {}", self.region),
            None => f.write_str(&self.region),
        }
    }
}
