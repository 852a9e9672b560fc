use antiphon_kv::KvError;
use antiphon_proto::refusal;
use antiphon_types::{Epoch, ErrorCode, LogIndex, Slot};
use tonic::Status;

/// Why a slot refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SlotError {
    /// This node does not own the slot.
    #[error("{slot:?} is not served here (epoch {epoch})")]
    NotHome {
        /// The slot.
        slot: Slot,
        /// The highest epoch this node has heard of.
        epoch: Epoch,
    },
    /// The slot's queue is full.
    #[error("the queue of {slot:?} is full ({queue_len_max} commands)")]
    Overloaded {
        /// The slot.
        slot: Slot,
        /// The bound of its queue.
        queue_len_max: usize,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// As many commands wait as a node takes.
    #[error("{waiting_max} commands wait for slots of this node, which is the limit")]
    NodeOverloaded {
        /// The bound.
        waiting_max: usize,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// One command's writes do not fit into a log entry.
    #[error("a command's writes of {size} bytes are over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of keys, values and events.
        size: usize,
        /// The bound of an entry.
        limit: usize,
    },
    /// The outcome did not become known in time; sending again with the same idempotency key tells.
    #[error("the write to {slot:?} was not confirmed within {timeout_ms} ms")]
    Timeout {
        /// The slot.
        slot: Slot,
        /// The bound.
        timeout_ms: u64,
    },
    /// The slot went to another owner while the write was stored and not confirmed: the other may have kept it.
    #[error("{slot:?} has another owner (epoch {epoch}), and whether it has kept the write is not known")]
    Unsettled {
        /// The slot.
        slot: Slot,
        /// The highest epoch this node has heard of.
        epoch: Epoch,
    },
    /// The slot is shutting down.
    #[error("{slot:?} is closing")]
    Closed {
        /// The slot.
        slot: Slot,
    },
    /// A command wrote a key of another slot or kind than its own.
    #[error("a command of {slot:?} wrote a key outside of it")]
    ForeignKey {
        /// The slot.
        slot: Slot,
    },
    /// Too few regions hold copies of the slot to commit anything.
    #[error("{slot:?} has {in_sync} in-sync copies and takes writes with {min_in_sync} or more")]
    TooFewInSync {
        /// The slot.
        slot: Slot,
        /// The in-sync copies there are, the home's included.
        in_sync: usize,
        /// The fewest with which writes are taken.
        min_in_sync: usize,
    },
    /// The region's lease has run out: another may be home.
    #[error("{slot:?} is not served: the region's lease has run out")]
    NoLease {
        /// The slot.
        slot: Slot,
        /// The epoch that it was served under.
        epoch: Epoch,
    },
    /// A log does not end where the caller believes it does.
    #[error("the log of {slot:?} ends at {found} and not at {expected}")]
    Stale {
        /// The slot.
        slot: Slot,
        /// Where the caller believes it ends.
        expected: LogIndex,
        /// Where it ends.
        found: LogIndex,
    },
    /// This node was to have a copy of the slot, and has a part of it.
    #[error("a copy of {slot:?} was begun here and did not end")]
    Unfinished {
        /// The slot.
        slot: Slot,
    },
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// What is stored cannot be read.
    #[error("{what} is corrupt: {reason}")]
    Corrupt {
        /// The thing.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl SlotError {
    /// The code a client sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotHome { .. } => ErrorCode::NotHome,
            Self::Overloaded { .. } | Self::NodeOverloaded { .. } => ErrorCode::ResourceExhausted,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Timeout { .. } | Self::Unsettled { .. } => ErrorCode::DeadlineExceeded,
            Self::Closed { .. }
            | Self::Stale { .. }
            | Self::TooFewInSync { .. }
            | Self::NoLease { .. }
            | Self::Unfinished { .. } => ErrorCode::Unavailable,
            Self::Kv(error) => match error {
                KvError::TooLarge { .. } => ErrorCode::Internal,
                // A node whose disk fails ends, and another takes its slots over.
                KvError::Io(_)
                | KvError::Conflict
                | KvError::CommitUnknown
                | KvError::TooOld { .. }
                | KvError::RetriesExhausted { .. }
                | KvError::Unavailable(_)
                | KvError::Closed => ErrorCode::Unavailable,
            },
            Self::ForeignKey { .. } | Self::Corrupt { .. } => ErrorCode::Internal,
        }
    }

    /// When the caller may try again, where it makes sense to.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Overloaded { retry_after_ms, .. } | Self::NodeOverloaded { retry_after_ms, .. } => {
                Some(*retry_after_ms)
            }
            Self::TooFewInSync { .. } | Self::NoLease { .. } => Some(500),
            Self::Closed { .. } | Self::Stale { .. } | Self::Unfinished { .. } | Self::Kv(_) => Some(1_000),
            Self::NotHome { .. }
            | Self::TooLarge { .. }
            | Self::Timeout { .. }
            | Self::Unsettled { .. }
            | Self::ForeignKey { .. }
            | Self::Corrupt { .. } => None,
        }
    }

    /// The refusal as it crosses the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::NotHome { epoch, .. } => refusal::not_home(self.to_string(), None, *epoch),
            Self::Unsettled { epoch, .. } | Self::NoLease { epoch, .. } => {
                refusal::unsettled(self.code().as_str(), self.to_string(), self.retry_after_ms(), *epoch)
            }
            Self::Overloaded { .. }
            | Self::NodeOverloaded { .. }
            | Self::TooLarge { .. }
            | Self::Timeout { .. }
            | Self::Closed { .. }
            | Self::ForeignKey { .. }
            | Self::Stale { .. }
            | Self::TooFewInSync { .. }
            | Self::Unfinished { .. }
            | Self::Kv(_)
            | Self::Corrupt { .. } => refusal::status(self.code().as_str(), self.to_string(), self.retry_after_ms()),
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: &dyn std::error::Error) -> Self {
        Self::Corrupt {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}
