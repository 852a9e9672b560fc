//! The directory's Raft group, on openraft: one voter per region.
//!
//! # Why this release
//! `=0.10.0-alpha.37`, the newest that the registry has (0.10.0 is announced and not there yet). 0.9 has neither Pre-Vote nor leader
//! transfer. Of the defects that were found in 2026 and bear on votes, durability and liveness, this release has the repairs:
//!
//! - a leader took its own log for flushed at the moment of its election, though appends could be under way (openraft issue 2118): the
//!   flush is now a condition that is waited for. This store makes it moot as well: it flushes before it returns;
//! - appends that complete out of order could drop the newest completion and strand a leader (1960). Here they complete in order;
//! - a commit could be counted on a quorum that was none, since progress was kept unsorted (1802), and a membership that a snapshot
//!   had replaced lived on at a follower (1808): both are alpha.26 and 0.9.25;
//! - a peer whose call hangs froze the leader's loop when it was removed (1810); every call here has a deadline besides;
//! - Pre-Vote could deadlock an election for good, since a refusal's higher term was not taken up (1796);
//! - a leader who reaches only a minority could hold the others off with its heartbeats (2080): `quorum_loss_probe_interval` answers
//!   that and is off unless set, so it is set here;
//! - the one voter that holds the newest log could not stand for election when its removal was not yet committed (2091);
//! - a transfer of leadership to one who is behind could stop writes for good (1747, 1805): the target now has to have the log.
//!
//! What is known and open: after a transfer that fails, nobody leads until the next election (2088). So leadership is handed over only to
//! a voter that is level.
//!
//! # Parts
//! [`store`] keeps vote, log and state in an embedded store of their own; [`network`] calls the other voters and [`service`] answers
//! them; [`options`] holds the times.

pub(crate) mod codec;
pub(crate) mod dialer;
pub(crate) mod network;
mod options;
pub(crate) mod service;
pub(crate) mod store;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::{Addresses, Command};

pub use dialer::Dial;
pub use options::{OptionsError, RaftOptions};
pub use service::RaftService;

openraft::declare_raft_types!(
    /// The types of the directory's group. A voter's id is its region's.
    pub(crate) Types:
        D = Proposal,
        R = store::Answer,
        NodeId = u64,
        Node = Addresses,
);

pub(crate) type Raft = openraft::Raft<Types, store::Machine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// What is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The command itself can be long: openraft writes entries into its traces.
        let name = match &self.0 {
            Command::Found { .. } => "found",
            Command::AddRegion { .. } => "add region",
            Command::RemoveRegion { .. } => "remove region",
            Command::SetAddresses { .. } => "set addresses",
            Command::SetStatus { .. } => "set status",
            Command::ChangeInSync { .. } => "change in-sync sets",
            Command::MoveHome { .. } => "move homes",
            Command::FailOver { .. } => "fail over",
            Command::ForceHome { .. } => "force homes",
            Command::Plan { .. } => "plan",
            Command::SetPolicy { .. } => "set policy",
            Command::SetNodes { .. } => "set nodes",
        };
        f.write_str(name)
    }
}
