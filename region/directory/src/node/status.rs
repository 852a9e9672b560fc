use std::collections::BTreeSet;

use openraft::{Instant as _, ServerState, async_runtime::watch::WatchReceiver as _};

use super::DirectoryNode;
use crate::domain::RegionId;

/// What a node is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It stands for election.
    Candidate,
    /// It follows and does not vote.
    Learner,
    /// It is not in the group: it follows one who is.
    Outside,
    /// It has stopped.
    Stopped,
}

/// A node of the directory as an operator sees it. Positions are indices of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whose node.
    pub region: RegionId,
    /// What it is.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<RegionId>,
    /// Its term.
    pub term: u64,
    /// The end of its log.
    pub last_log: Option<u64>,
    /// Up to where it has applied the log.
    pub applied: Option<u64>,
    /// Up to where its last snapshot reaches.
    pub snapshot: Option<u64>,
    /// Up to where its log was purged.
    pub purged: Option<u64>,
    /// Version of its state.
    pub version: u64,
    /// Who votes.
    pub voters: BTreeSet<RegionId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<RegionId>,
    /// At the leader: the others.
    pub peers: Vec<PeerStatus>,
    /// Why it has stopped, if it has.
    pub failure: Option<String>,
}

/// Another node, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whose node.
    pub region: RegionId,
    /// Up to where its log is known to be the leader's.
    pub matched: Option<u64>,
    /// Entries that it lacks.
    pub lag: u64,
    /// Milliseconds since it answered.
    pub silent_ms: Option<u64>,
}

impl DirectoryNode {
    /// How this node is.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.shared.raft.metrics().borrow_watched().clone();
        let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        let end = metrics.last_log_index.map_or(0, |index| index + 1);
        let peers = metrics
            .replication
            .iter()
            .flatten()
            .filter(|(id, _)| **id != metrics.id)
            .map(|(id, matched)| {
                let matched = matched.map(|log_id| log_id.index());
                let heard = metrics
                    .heartbeat
                    .as_ref()
                    .and_then(|heartbeats| heartbeats.get(id).copied().flatten());
                PeerStatus {
                    region: RegionId(*id),
                    matched,
                    lag: end - matched.map_or(0, |index| index + 1).min(end),
                    silent_ms: heard.map(|at| u64::try_from(at.into_inner().elapsed().as_millis()).unwrap_or(u64::MAX)),
                }
            });
        let membership = metrics.membership_config.membership();
        Status {
            region: self.shared.region,
            role: if failure.is_some() { Role::Stopped } else { role },
            leader: metrics.current_leader.map(RegionId),
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|log_id| log_id.index()),
            snapshot: metrics.snapshot.map(|log_id| log_id.index()),
            purged: metrics.purged.map(|log_id| log_id.index()),
            version: self.state().version,
            voters: membership.voter_ids().map(RegionId).collect(),
            learners: membership.learner_ids().map(RegionId).collect(),
            peers: peers.collect(),
            failure,
        }
    }
}
