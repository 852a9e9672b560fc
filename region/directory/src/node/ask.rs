//! Finding the leader: a request is tried there until it is answered or its time is over.

use std::time::Duration;

use antiphon_proto::rpc::{NotLeader, directory_client::DirectoryClient};
use futures_util::future::BoxFuture;
use openraft::{
    async_runtime::watch::WatchReceiver as _,
    errors::{ChangeMembershipError, ClientWriteError, LinearizableReadError, RaftError},
};
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};

use super::{Shared, calls::Caller};
use crate::{
    DirectoryError,
    domain::{Addresses, RegionId},
    raft::{Types, network::MESSAGE_BYTES_MAX},
};

/// How one attempt ended that did not succeed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// To try again would bring the same.
    Final(DirectoryError),
    /// Whoever was asked does not lead, or leads nobody: nothing was done.
    NotLed(Option<RegionId>),
    /// It may be done or not.
    Unknown,
}

/// Whether a request may go to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It may.
    Anywhere,
    /// It came from another node: if this one does not lead, it says so.
    Here,
}

/// The longest wait between two attempts. News of a leader ends it.
const BACKOFF_MS_MAX: u64 = 250;

impl Shared {
    /// Runs `here` if this node leads, and else `there` with the leader, until one of them succeeds, for `timeout` at most.
    pub(super) async fn at_leader<'a, T>(
        &'a self,
        reach: Reach,
        timeout: Duration,
        here: impl Fn() -> BoxFuture<'a, Result<T, Attempt>> + Send,
        there: impl Fn(DirectoryClient<Channel>) -> BoxFuture<'a, Result<T, Attempt>> + Send,
    ) -> Result<T, DirectoryError> {
        let deadline = Instant::now() + timeout;
        let mut metrics = self.raft.metrics();
        let mut unknown = false;
        let mut backoff_ms = 10;
        while !self.closing.is_cancelled() && Instant::now() < deadline {
            let (leader, stopped) = {
                let metrics = metrics.borrow_watched();
                (metrics.current_leader, metrics.running_state.clone().err())
            };
            if let Some(stopped) = stopped {
                return Err(DirectoryError::Stopped(stopped.to_string()));
            }
            let attempt = match leader {
                Some(leader) if leader == self.region.0 => timed(deadline, here()).await,
                Some(leader) if reach == Reach::Here => Err(Attempt::NotLed(Some(RegionId(leader)))),
                Some(asked) => match self.client(asked) {
                    Some(client) => tokio::select! {
                        attempt = timed(deadline, there(client)) => attempt,
                        // Whoever was asked may hang for longer than the others need to elect another.
                        () = other_leader(&mut metrics, leader) => Err(Attempt::Unknown),
                    },
                    None => Err(Attempt::NotLed(None)),
                },
                None => Err(Attempt::NotLed(None)),
            };
            match attempt {
                Ok(done) => return Ok(done),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::NotLed(leader)) if reach == Reach::Here => {
                    return Err(DirectoryError::NotLeader { leader });
                }
                Err(Attempt::NotLed(_)) => {}
                Err(Attempt::Unknown) => unknown = true,
            }
            let wait = Duration::from_millis(backoff_ms / 2 + rand::random_range(0..=backoff_ms / 2));
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + wait)) => {}
                () = other_leader(&mut metrics, leader) => {}
            }
        }
        if self.closing.is_cancelled() {
            return Err(DirectoryError::Stopped("it is closed".to_owned()));
        }
        let within_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        if unknown {
            return Err(DirectoryError::Timeout { within_ms });
        }
        Err(DirectoryError::NoQuorum { within_ms })
    }

    /// The directory's client of a region, at its addresses in the state, else among the voters; none when it is in neither.
    fn client(&self, region: u64) -> Option<DirectoryClient<Channel>> {
        let listed = self
            .state()
            .regions
            .get(&RegionId(region))
            .map(|region| region.addresses.clone());
        let addresses = listed.or_else(|| self.membership().membership().get_node(&region).cloned())?;
        Some(self.client_at(region, &addresses))
    }

    pub(super) fn client_at(&self, region: u64, addresses: &Addresses) -> DirectoryClient<Channel> {
        DirectoryClient::new(self.peers.channel(region, addresses))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What a node asks that passes a request on.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller {
            deployment: &self.options.deployment,
            passed_on: true,
        }
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.options.request_timeout_ms)
    }
}

async fn timed<T>(deadline: Instant, attempt: impl Future<Output = Result<T, Attempt>>) -> Result<T, Attempt> {
    tokio::time::timeout_at(deadline, attempt)
        .await
        .unwrap_or(Err(Attempt::Unknown))
}

/// Resolves when somebody else than `leader` is known to lead.
async fn other_leader(
    metrics: &mut openraft::type_config::alias::WatchReceiverOf<Types, openraft::RaftMetrics<Types>>,
    leader: Option<u64>,
) {
    loop {
        if metrics.changed().await.is_err() {
            // The node ends; the caller sees that by itself.
            return std::future::pending().await;
        }
        let now = metrics.borrow_watched().current_leader;
        if now.is_some() && now != leader {
            return;
        }
    }
}

impl From<RaftError<Types, ClientWriteError<Types>>> for Attempt {
    fn from(error: RaftError<Types, ClientWriteError<Types>>) -> Self {
        let error = match error {
            RaftError::APIError(error) => error,
            RaftError::Fatal(fatal) => return Self::Final(DirectoryError::Stopped(fatal.to_string())),
        };
        match error {
            ClientWriteError::ForwardToLeader(forward) => Self::NotLed(forward.leader_id.map(RegionId)),
            ClientWriteError::LogEntryDiscarded(_) => Self::Unknown,
            // Another change is under way, or this leader has not settled yet.
            ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            )
            | ClientWriteError::PreconditionFailed(_) => Self::NotLed(None),
            ClientWriteError::ChangeMembershipError(
                error @ (ChangeMembershipError::EmptyMembership(_)
                | ChangeMembershipError::LearnerNotFound(_)
                | ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::NodeMetadataChanged(_)),
            ) => Self::Final(DirectoryError::VotersRefused(error.to_string())),
        }
    }
}

impl From<RaftError<Types, LinearizableReadError<Types>>> for Attempt {
    fn from(error: RaftError<Types, LinearizableReadError<Types>>) -> Self {
        match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                Self::NotLed(forward.leader_id.map(RegionId))
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Self::NotLed(None),
            RaftError::Fatal(fatal) => Self::Final(DirectoryError::Stopped(fatal.to_string())),
        }
    }
}

impl From<NotLeader> for Attempt {
    fn from(answer: NotLeader) -> Self {
        Self::NotLed(answer.leader.map(RegionId))
    }
}

impl From<Status> for Attempt {
    fn from(status: Status) -> Self {
        if not_connected(&status) {
            return Self::NotLed(None);
        }
        match status.code() {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::OutOfRange => Self::Final(DirectoryError::Stopped(status.to_string())),
            // The connection may have broken after the request was taken.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => Self::Unknown,
        }
    }
}

/// Whether a call failed before it left this node.
fn not_connected(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    let mut causes = std::iter::successors(first, |error| error.source());
    causes.any(<dyn std::error::Error + 'static>::is::<tonic::ConnectError>)
}
