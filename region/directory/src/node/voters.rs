//! Who votes. The state says which regions there are and the Raft group who votes; a change of both begins with the state, and the
//! leader brings the voters after it if whoever asked has died in between.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use antiphon_proto::rpc::ChangeVotersRequest;
use futures_util::FutureExt as _;
use openraft::{ChangeMembers, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver as _};

use super::{
    DirectoryNode, Shared,
    ask::{Attempt, Reach},
};
use crate::{
    DirectoryError,
    domain::RegionId,
    raft::{StoredMembership, Types},
};

impl DirectoryNode {
    /// Makes regions voters and takes the votes of others, in one change. A new voter first follows as a learner until it is level.
    /// Returns who votes now.
    ///
    /// # Errors
    /// [`DirectoryError`], within `voters_timeout_ms`. After [`DirectoryError::Timeout`] the same change may be asked for again.
    pub async fn change_voters(
        &self,
        add: &[RegionId],
        remove: &[RegionId],
    ) -> Result<BTreeSet<RegionId>, DirectoryError> {
        let change = VoterChange {
            add: add.iter().copied().collect(),
            remove: remove.iter().copied().collect(),
        };
        self.shared.change_voters(Reach::Anywhere, &change).await
    }

    /// Hands leadership over, to `to` or to a voter that is level; does nothing unless this node leads. Returns who leads then, if
    /// anybody takes over in time.
    pub async fn hand_over(&self, to: Option<RegionId>) -> Option<RegionId> {
        let shared = &self.shared;
        let metrics = shared.raft.metrics().borrow_watched().clone();
        let replication = metrics.replication.as_ref()?;
        let level = |id: &u64| {
            replication
                .get(id)
                .is_some_and(|matched| matched.map(|log_id| log_id.index()) == metrics.last_log_index)
        };
        let voters = metrics.membership_config.voter_ids();
        let mut others = voters.filter(|id| *id != shared.region.0 && to.is_none_or(|to| to.0 == *id));
        let target = others.find(level)?;
        shared.raft.trigger().transfer_leader(target).await.ok()?;
        let taken = shared.raft.wait(Some(shared.options.raft.leaderless_max()));
        let me = shared.region.0;
        let taken = taken.metrics(
            |metrics| metrics.current_leader.is_some_and(|leader| leader != me),
            "handed over",
        );
        taken.await.ok()?.current_leader.map(RegionId)
    }
}

/// A change of the voters.
#[derive(Debug, Clone)]
pub(crate) struct VoterChange {
    pub(crate) add: BTreeSet<RegionId>,
    pub(crate) remove: BTreeSet<RegionId>,
}

impl Shared {
    pub(super) async fn change_voters<'a>(
        &'a self,
        reach: Reach,
        change: &'a VoterChange,
    ) -> Result<BTreeSet<RegionId>, DirectoryError> {
        self.at_leader(
            reach,
            Duration::from_millis(self.options.voters_timeout_ms),
            || self.change_voters_here(change).boxed(),
            |client| self.caller().change_voters(client, change).boxed(),
        )
        .await
    }

    pub(super) async fn change_voters_here(&self, change: &VoterChange) -> Result<BTreeSet<RegionId>, Attempt> {
        // The state that the change is judged by has to be the newest.
        let index = self.read_index_here().await?;
        self.applied_at_least(index).await;
        let state = self.state();
        let mut changes = Vec::new();
        for id in &change.add {
            let Some(region) = state.regions.get(id) else {
                let message = format!("region {} is not in the directory", id.0);
                return Err(Attempt::Final(DirectoryError::VotersRefused(message)));
            };
            if !self.membership().voter_ids().any(|voter| voter == id.0) {
                self.raft.add_learner(id.0, region.addresses.clone(), true).await?;
                changes.push(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])));
            }
        }
        let members = self.membership();
        let (voters, learners): (BTreeSet<u64>, BTreeSet<u64>) = (
            members.voter_ids().collect(),
            members.membership().learner_ids().collect(),
        );
        let remove: BTreeSet<u64> = change.remove.iter().map(|id| id.0).collect();
        if !voters.is_disjoint(&remove) {
            // Those leave the members as well once the change is through.
            changes.push(ChangeMembers::RemoveVoters(&voters & &remove));
        }
        if !learners.is_disjoint(&remove) {
            changes.push(ChangeMembers::RemoveNodes(&learners & &remove));
        }
        if !changes.is_empty() || self.membership().get_joint_config().len() > 1 {
            self.raft
                .change_membership(ChangeMembers::Batch(changes), false)
                .await?;
        }
        let members = self.membership_committed().await?;
        let voters: BTreeSet<RegionId> = members.voter_ids().map(RegionId).collect();
        // What was found changed may have been taken back with its leader, or by a change that came between.
        match change.is_made(&voters) {
            true => Ok(voters),
            false => Err(Attempt::Unknown),
        }
    }

    /// The members once they are committed. What this node finds changed already may be what another request, or the leader's own
    /// look at the state, is just changing: it is not to be answered before it holds.
    async fn membership_committed(&self) -> Result<Arc<StoredMembership>, Attempt> {
        let is_committed = |metrics: &RaftMetrics<Types>| {
            metrics.committed_membership_config.log_id() == metrics.membership_config.log_id()
        };
        let news = self.raft.wait(None);
        let told = news.metrics(
            |metrics| is_committed(metrics) || metrics.state != ServerState::Leader,
            "the members are committed",
        );
        let metrics = told.await.map_err(|_| Attempt::Unknown)?;
        if is_committed(&metrics) {
            Ok(metrics.membership_config)
        } else {
            Err(Attempt::Unknown)
        }
    }

    /// The members as this node knows them; a change that is not committed counts.
    pub(super) fn membership(&self) -> Arc<StoredMembership> {
        self.raft.metrics().borrow_watched().membership_config.clone()
    }
}

impl VoterChange {
    /// Whether these are the voters after it.
    fn is_made(&self, voters: &BTreeSet<RegionId>) -> bool {
        self.add.is_subset(voters) && self.remove.is_disjoint(voters)
    }

    pub(super) fn of_request(request: ChangeVotersRequest) -> Self {
        Self {
            add: request.add.into_iter().map(RegionId).collect(),
            remove: request.remove.into_iter().map(RegionId).collect(),
        }
    }
}
