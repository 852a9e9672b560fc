use std::{collections::BTreeMap, sync::Arc};

use antiphon_types::Slot;
use tokio::sync::watch;

use crate::domain::{NodeId, owner};

/// What a node tells the others of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name in the region.
    pub id: NodeId,
    /// `host:port` of its port between nodes.
    pub rpc: String,
    /// When the process started, by its own wall clock; for who reads it.
    pub started_at_ms: u64,
}

/// The live nodes of a region as one of them sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    own: NodeId,
    version: u64,
    live: BTreeMap<NodeId, Arc<NodeRow>>,
    is_leaving: bool,
}

impl Nodes {
    /// Nobody is known to live, as `own` sees it.
    #[must_use]
    pub const fn none(own: NodeId) -> Self {
        Self {
            own,
            version: 0,
            live: BTreeMap::new(),
            is_leaving: false,
        }
    }

    /// What is seen next, unless it is the same.
    #[must_use]
    pub fn next(&self, live: impl IntoIterator<Item = Arc<NodeRow>>) -> Option<Self> {
        let live: BTreeMap<_, _> = live.into_iter().map(|node| (node.id.clone(), node)).collect();
        (live != self.live).then(|| Self {
            own: self.own.clone(),
            version: self.version + 1,
            live,
            is_leaving: self.is_leaving,
        })
    }

    /// As [`Nodes::next`], of a node that has told the others that it ends.
    #[must_use]
    pub(crate) fn leaving(&self, live: impl IntoIterator<Item = Arc<NodeRow>>) -> Option<Self> {
        let before = Self {
            is_leaving: true,
            ..self.clone()
        };
        let told = (!self.is_leaving).then(|| Self {
            version: self.version + 1,
            ..before.clone()
        });
        before.next(live).or(told)
    }

    /// Whether this node has told the others that it ends: what they take from it, it does not take back, though it is its share for a
    /// moment yet.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// The node whose view this is. It need not be among the live ones: not before it has joined, nor when it has left or cannot
    /// reach the store.
    #[must_use]
    pub const fn own(&self) -> &NodeId {
        &self.own
    }

    /// The live nodes, in the order of their ids.
    pub fn live(&self) -> impl ExactSizeIterator<Item = &Arc<NodeRow>> {
        self.live.values()
    }

    /// The live node of this id.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Arc<NodeRow>> {
        self.live.get(id)
    }

    /// Whose the slot is; `None` while no node is known to live.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<&Arc<NodeRow>> {
        self.live.get(owner(slot, self.live.keys())?)
    }

    /// Whether the slot is this node's.
    #[must_use]
    pub fn is_mine(&self, slot: Slot) -> bool {
        self.owner(slot).is_some_and(|owner| owner.id == self.own)
    }
}

/// Which slots are this node's, now and from now on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Share {
    /// None for a region of one process.
    several: Option<watch::Receiver<Arc<Nodes>>>,
}

impl Share {
    /// Everything: of a region of one process, which knows of no nodes.
    #[must_use]
    pub const fn alone() -> Self {
        Self { several: None }
    }

    /// What `nodes` says.
    #[must_use]
    pub const fn of(nodes: watch::Receiver<Arc<Nodes>>) -> Self {
        Self { several: Some(nodes) }
    }

    /// The live nodes now; `None` in a region of one process.
    #[must_use]
    pub fn nodes(&self) -> Option<Arc<Nodes>> {
        self.several.as_ref().map(|nodes| nodes.borrow().clone())
    }

    /// Whether the slot is this node's.
    #[must_use]
    pub fn is_mine(&self, slot: Slot) -> bool {
        self.nodes().is_none_or(|nodes| nodes.is_mine(slot))
    }

    /// Whose the slot is; `None` while no node is known to live, and in a region of one process.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<Arc<NodeRow>> {
        self.nodes()?.owner(slot).cloned()
    }

    /// Grows with each change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.several.as_ref().map_or(0, |nodes| nodes.borrow().version)
    }

    /// Waits for another version than `seen`, the one that the caller acted upon last; answers at once when there is one already.
    pub async fn changed(&self, seen: u64) -> u64 {
        if let Some(nodes) = &self.several
            && let Ok(nodes) = nodes.clone().wait_for(|nodes| nodes.version != seen).await
        {
            return nodes.version;
        }
        // Nobody changes it any more.
        std::future::pending().await
    }
}
