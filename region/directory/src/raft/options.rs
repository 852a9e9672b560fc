use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

/// The times and bounds of the group; the same at every voter.
///
/// The defaults suit voters that are up to 300 ms (there and back) apart. openraft gives a heartbeat one heartbeat interval to be
/// answered, so the interval has to be longer than the way. A follower waits out the leader's lease, which openraft sets to
/// `election_timeout_ms_max`, *and then* a random time from `election_timeout_ms_min` to `election_timeout_ms_max` before it stands:
/// with the defaults that is 2,100 to 2,400 ms after the last heartbeat (five of them missed), and two journeys (Pre-Vote, vote) later
/// there is a leader. Much shorter would take a lost packet, which TCP needs most of a second to send again over such a way, for a
/// dead leader. Longer would let the regions' leases lapse when a leader dies, and break the promise of fail-over, since a new leader
/// still has to wait out the lease of the region that died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftOptions {
    /// Milliseconds between heartbeats, and how long one may take.
    pub heartbeat_ms: u64,
    /// Shortest random part of an election timeout; also how long a vote may take.
    pub election_timeout_ms_min: u64,
    /// Longest random part of an election timeout; also the leader's lease.
    pub election_timeout_ms_max: u64,
    /// How long entries may take to a follower and to its disk.
    pub append_timeout_ms: u64,
    /// How long a snapshot may take to a follower and to its disk.
    pub snapshot_timeout_ms: u64,
    /// A snapshot is built, and the log before it purged, after this many entries. A new leader finds out where its followers' logs part
    /// from its own by halves of the log, a journey each, and commits nothing before that.
    pub snapshot_entries: u64,
    /// This many entries before a snapshot stay, for followers that are a little behind.
    pub kept_entries: u64,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 400,
            election_timeout_ms_min: 900,
            election_timeout_ms_max: 1_200,
            append_timeout_ms: 3_000,
            snapshot_timeout_ms: 30_000,
            snapshot_entries: 500,
            kept_entries: 100,
        }
    }
}

/// Options that would not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Two values do not fit together.
    #[error("{name} is {value} and has to be at least {least}, because {why}")]
    TooSmall {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least that would work.
        least: u64,
        /// Why.
        why: &'static str,
    },
    /// What openraft says.
    #[error("{0}")]
    Refused(String),
}

impl RaftOptions {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), OptionsError> {
        OptionsError::at_least(
            "heartbeat_ms",
            self.heartbeat_ms,
            10,
            "a shorter one is all the node would do",
        )?;
        OptionsError::at_least(
            "election_timeout_ms_min",
            self.election_timeout_ms_min,
            2 * self.heartbeat_ms,
            "one lost heartbeat must not start an election",
        )?;
        OptionsError::at_least(
            "election_timeout_ms_max",
            self.election_timeout_ms_max,
            self.election_timeout_ms_min + self.election_timeout_ms_min / 4,
            "voters that wait equally long split the vote again and again",
        )?;
        OptionsError::at_least(
            "append_timeout_ms",
            self.append_timeout_ms,
            self.heartbeat_ms,
            "entries take longer than a heartbeat",
        )?;
        OptionsError::at_least(
            "snapshot_entries",
            self.snapshot_entries,
            1,
            "the log would grow for ever",
        )?;
        Ok(())
    }

    /// The longest that the group is without a leader while a majority lives and the network holds.
    #[must_use]
    pub fn leaderless_max(&self) -> Duration {
        // Lease, random time, Pre-Vote and vote.
        Duration::from_millis(2 * self.election_timeout_ms_max + 2 * self.heartbeat_ms)
    }

    pub(crate) fn to_openraft(&self, deployment: &str) -> Result<Config, OptionsError> {
        self.check()?;
        let config = Config {
            cluster_name: deployment.to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_timeout_ms_min,
            election_timeout_max: self.election_timeout_ms_max,
            install_snapshot_timeout: self.snapshot_timeout_ms,
            enable_pre_vote: Some(true),
            // A leader that no majority answers falls silent for so long, so that those whom it still reaches may elect another.
            quorum_loss_probe_interval: Some(2 * self.election_timeout_ms_max),
            // A restarted leader is elected like anyone else: it need not guess whether it was replaced.
            enable_leader_restore: Some(false),
            removed_leader_step_down: StepDownPolicy::After(self.heartbeat_ms),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.kept_entries,
            replication_lag_threshold: self.snapshot_entries + self.kept_entries + 1,
            max_payload_entries: 256,
            backoff: format!("{}ms ..2s", self.heartbeat_ms.min(200)),
            ..Config::default()
        };
        config
            .validate()
            .map_err(|error| OptionsError::Refused(error.to_string()))
    }
}

impl OptionsError {
    pub(crate) fn at_least(name: &'static str, value: u64, least: u64, why: &'static str) -> Result<(), Self> {
        if value < least {
            return Err(Self::TooSmall {
                name,
                value,
                least,
                why,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted() {
        RaftOptions::default().to_openraft("test").unwrap();
    }

    #[test]
    fn one_lost_heartbeat_must_not_start_an_election() {
        let options = RaftOptions {
            heartbeat_ms: 451,
            ..RaftOptions::default()
        };
        assert!(matches!(
            options.check(),
            Err(OptionsError::TooSmall {
                name: "election_timeout_ms_min",
                ..
            })
        ));
    }
}
