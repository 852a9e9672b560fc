use std::{sync::Arc, time::Duration};

use crate::{
    DirectoryError, DirectoryFollower, DirectoryNode, LeaseKeeper, Status, TableWatch,
    domain::{Addresses, Applied, Command, RegionId, State},
};

/// The directory as any node has it: with a voter of its own, or following one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Voter(DirectoryNode),
    Follower(DirectoryFollower),
}

impl From<DirectoryNode> for Directory {
    fn from(node: DirectoryNode) -> Self {
        let kind = Kind::Voter(node);
        Self { kind }
    }
}

impl From<DirectoryFollower> for Directory {
    fn from(follower: DirectoryFollower) -> Self {
        let kind = Kind::Follower(follower);
        Self { kind }
    }
}

impl Directory {
    /// The voter, at the node of the region that has it.
    #[must_use]
    pub fn voter(&self) -> Option<&DirectoryNode> {
        match &self.kind {
            Kind::Voter(node) => Some(node),
            Kind::Follower(_) => None,
        }
    }

    /// The region whose node this is.
    #[must_use]
    pub fn region(&self) -> RegionId {
        match &self.kind {
            Kind::Voter(node) => node.region(),
            Kind::Follower(follower) => follower.region(),
        }
    }

    /// After this long nobody holds a lease any more that was granted before.
    #[must_use]
    pub fn lease_wait(&self) -> Duration {
        match &self.kind {
            Kind::Voter(node) => node.lease_wait(),
            Kind::Follower(follower) => follower.lease_wait(),
        }
    }

    /// The placements, as far as this node knows. Until the deployment is founded a region without a name is home.
    #[must_use]
    pub fn table(&self) -> TableWatch {
        match &self.kind {
            Kind::Voter(node) => node.table(),
            Kind::Follower(follower) => follower.table(),
        }
    }

    /// The state, as far as this node knows.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        match &self.kind {
            Kind::Voter(node) => node.state(),
            Kind::Follower(follower) => follower.state(),
        }
    }

    /// Waits for the local state to be such as `wanted` says, and returns it; `None` once the node is closed.
    pub async fn state_when(&self, wanted: impl FnMut(&State) -> bool) -> Option<Arc<State>> {
        match &self.kind {
            Kind::Voter(node) => node.state_when(wanted).await,
            Kind::Follower(follower) => follower.state_when(wanted).await,
        }
    }

    /// The state, not older than anything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn state_linearizable(&self) -> Result<Arc<State>, DirectoryError> {
        match &self.kind {
            Kind::Voter(node) => node.state_linearizable().await,
            Kind::Follower(follower) => follower.state_linearizable().await,
        }
    }

    /// As [`DirectoryNode::propose`].
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn propose(&self, command: Command) -> Result<Applied, DirectoryError> {
        match &self.kind {
            Kind::Voter(node) => node.propose(command).await,
            Kind::Follower(follower) => follower.propose(command).await,
        }
    }

    /// As [`DirectoryNode::keep_lease`].
    #[must_use]
    pub fn keep_lease(&self, node: &str, incarnation: u64) -> LeaseKeeper {
        match &self.kind {
            Kind::Voter(voter) => voter.keep_lease(node, incarnation),
            Kind::Follower(follower) => follower.keep_lease(node, incarnation),
        }
    }

    /// The number that the store of this region's voter drew when it was made: another one means another store. A node without a voter
    /// waits until it has heard it. `None` once the node is closed.
    pub async fn store_id(&self) -> Option<u64> {
        match &self.kind {
            Kind::Voter(node) => Some(node.store_id()),
            Kind::Follower(follower) => follower.store_id().await,
        }
    }

    /// How this node is.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.kind {
            Kind::Voter(node) => node.status(),
            Kind::Follower(follower) => follower.status(),
        }
    }

    /// Takes a region into the directory and returns its id, under which its node is to be started and to join. A region of that
    /// name and those addresses that is there already is returned as it is.
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn add_region(&self, name: &str, addresses: &Addresses) -> Result<RegionId, DirectoryError> {
        let command = Command::AddRegion {
            name: name.to_owned(),
            addresses: addresses.clone(),
        };
        let applied = self.propose(command).await?;
        let gone = || DirectoryError::VotersRefused(format!("region {name:?} was not given an id"));
        applied.region.ok_or_else(gone)
    }

    /// Takes a region out of the directory and its voter out of the group, dead or alive. The state refuses while it is home or in an
    /// in-sync set.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn remove_region(&self, region: RegionId) -> Result<(), DirectoryError> {
        match self.propose(Command::RemoveRegion { region }).await {
            Ok(_) => {}
            Err(error @ DirectoryError::Rejected(_)) => {
                // An earlier attempt may have taken it out of the state.
                let state = self.state_linearizable().await?;
                if state.deployment.is_empty() || state.regions.contains_key(&region) || region > state.region_id_max {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        let changed = match &self.kind {
            Kind::Voter(node) => node.change_voters(&[], &[region]).await,
            Kind::Follower(follower) => follower.change_voters(&[], &[region]).await,
        };
        changed.map(drop)
    }

    /// Ends everything that this node has started of the directory, and waits for it.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Voter(node) => node.close().await,
            Kind::Follower(follower) => follower.close().await,
        }
    }
}
