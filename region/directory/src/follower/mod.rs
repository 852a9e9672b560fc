//! The directory at a node that has no voter: it follows the state at a voter, and asks by way of any of them.

mod known;
mod requests;
mod stream;
mod voters;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Dial, NodeOptions, Role, StartError, Status, TableWatch,
    domain::{Addresses, LeaseTerms, RegionId, State},
    raft::dialer::Links,
};

use known::{Knowledge, Known};

/// A node of the directory without a voter: it has no store, and no say in what the group decides. Cheap to clone.
///
/// It keeps one stream to a voter, that of its own region if it can, and goes to another when nothing comes from there, or less than
/// others know. What it knows never goes back to an older version.
#[derive(Clone)]
pub struct DirectoryFollower {
    shared: Arc<Shared>,
}

struct Shared {
    region: RegionId,
    options: NodeOptions,
    terms: LeaseTerms,
    /// Voters to begin with.
    seeds: Vec<(RegionId, Addresses)>,
    links: Links,
    knowledge: Knowledge,
    /// The highest index that a leader is known to have committed.
    committed: watch::Sender<u64>,
    started: Instant,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl DirectoryFollower {
    /// Starts a node of `region`, which finds the first voter by `seeds`: its own region among them, if that has a voter.
    ///
    /// # Errors
    /// [`StartError::Lease`].
    pub fn start(
        options: NodeOptions,
        region: RegionId,
        seeds: Vec<(RegionId, Addresses)>,
        dial: Dial,
    ) -> Result<Self, StartError> {
        let terms = options.lease.terms()?;
        let shared = Arc::new(Shared {
            region,
            options,
            terms,
            seeds,
            links: Links::new(dial),
            knowledge: Knowledge::default(),
            committed: watch::Sender::new(0),
            started: Instant::now(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        let following = stream::follow(shared.clone());
        let closing = shared.closing.clone();
        shared.tasks.spawn(closing.run_until_cancelled_owned(following));
        Ok(Self { shared })
    }

    /// The region whose node this is.
    #[must_use]
    pub fn region(&self) -> RegionId {
        self.shared.region
    }

    /// As [`DirectoryNode::lease_wait`](crate::DirectoryNode::lease_wait).
    #[must_use]
    pub fn lease_wait(&self) -> Duration {
        Duration::from_millis(self.shared.terms.waited_ms())
    }

    /// The placements, as far as this node has heard. Until then a region without a name is home.
    #[must_use]
    pub fn table(&self) -> TableWatch {
        self.shared.knowledge.table()
    }

    /// The state, as far as this node has heard.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.shared.knowledge.known().image.state.clone()
    }

    /// Waits for the local state to be such as `wanted` says, and returns it; `None` once the node is closed.
    pub async fn state_when(&self, mut wanted: impl FnMut(&State) -> bool) -> Option<Arc<State>> {
        let known = self.known_when(|known| wanted(&known.image.state)).await?;
        Some(known.image.state.clone())
    }

    /// The number that the store of this region's voter drew when it was made, once a voter has told it; `None` once the node is
    /// closed.
    pub async fn store_id(&self) -> Option<u64> {
        let known = self.known_when(|known| known.region_store.is_some()).await?;
        known.region_store
    }

    /// The voter from which this node hears.
    #[must_use]
    pub fn follows(&self) -> Option<RegionId> {
        self.shared.knowledge.known().follows
    }

    /// How this node is.
    #[must_use]
    pub fn status(&self) -> Status {
        let known = self.shared.knowledge.known();
        let members = known.image.membership.membership();
        Status {
            region: self.shared.region,
            role: Role::Outside,
            leader: known.leader,
            term: known.term,
            last_log: None,
            applied: known.applied(),
            snapshot: None,
            purged: None,
            version: known.image.state.version,
            voters: members.voter_ids().map(RegionId).collect(),
            learners: members.learner_ids().map(RegionId).collect(),
            peers: Vec::new(),
            failure: None,
        }
    }

    /// Ends everything that this node has started, and waits for it.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn known_when(&self, wanted: impl FnMut(&Known) -> bool) -> Option<Arc<Known>> {
        let shared = &self.shared;
        let closed = shared.closing.cancelled();
        tokio::select! {
            () = closed => None,
            known = shared.knowledge.when(wanted) => Some(known),
        }
    }
}

impl fmt::Debug for DirectoryFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryFollower({})", self.shared.region.0)
    }
}
