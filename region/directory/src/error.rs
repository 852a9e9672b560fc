use antiphon_kv::KvError;

use crate::{
    domain::{LeaseTermsError, RegionId, Rejection},
    raft::{OptionsError, codec::CodecError},
};

/// Why the directory did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The state's rules say no. Final for this command.
    #[error("the directory refuses: {0}")]
    Rejected(#[from] Rejection),
    /// Who votes cannot be changed so. Final for this request.
    #[error("the voters stay as they are: {0}")]
    VotersRefused(String),
    /// The leader does not renew the lease now.
    #[error("the lease is not renewed: {0}")]
    LeaseRefused(String),
    /// The node does not lead and the request was not to be passed on. Ask the leader.
    #[error("this node does not lead; the leader is {leader:?}")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<RegionId>,
    },
    /// No leader that a majority follows was found in time. Nothing was changed; try again.
    #[error("no majority of the directory answered within {within_ms} ms")]
    NoQuorum {
        /// How long was waited.
        within_ms: u64,
    },
    /// A leader took the request and did not answer in time: whether it is done is unknown. To try again is safe.
    #[error("the directory's leader did not answer within {within_ms} ms; the result is unknown")]
    Timeout {
        /// How long was waited.
        within_ms: u64,
    },
    /// The command is larger than an entry may be. Final for this command.
    #[error("a command of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Who was asked does not accept or understand what this node says. Final: they belong to two deployments or releases.
    #[error("the directory does not accept this node: {0}")]
    NotAccepted(String),
    /// This node has stopped, by itself because its store has failed, or because it was closed.
    #[error("this node of the directory has stopped: {0}")]
    Stopped(String),
}

impl DirectoryError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. } | Self::NoQuorum { .. } | Self::Timeout { .. }
        )
    }
}

/// Why a node of the directory did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options do not fit together.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The leases' times do not fit together.
    #[error(transparent)]
    Lease(#[from] LeaseTermsError),
    /// The store belongs to somebody else.
    #[error(
        "the store is that of region {} of {deployment:?}, and this is region {} of {wanted_deployment:?}",
        region.0, wanted_region.0
    )]
    OtherStore {
        /// Whose deployment it is.
        deployment: String,
        /// Whose region it is.
        region: RegionId,
        /// The deployment of the node.
        wanted_deployment: String,
        /// The region of the node.
        wanted_region: RegionId,
    },
    /// The store cannot be opened or read.
    #[error("the directory's store: {0}")]
    Store(String),
}

impl From<KvError> for StartError {
    fn from(error: KvError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<CodecError> for StartError {
    fn from(error: CodecError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.to_string())
    }
}
