use std::io;

/// Why a transaction failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KvError {
    /// Something that was read has changed; run the transaction again.
    #[error("the transaction conflicts with another one")]
    Conflict,
    /// The commit may or may not have happened; look for what it wrote. Where it was cut off by time it may even still happen, so
    /// look in a transaction that writes what the commit has read: one of the two fails.
    #[error("the result of the commit is unknown")]
    CommitUnknown,
    /// A key, value or transaction is over the port's limit.
    #[error("{what} of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit it breaks.
        limit: usize,
    },
    /// The transaction is older than the port allows; run it again.
    #[error("the transaction is older than {limit_ms} ms")]
    TooOld {
        /// The limit.
        limit_ms: u64,
    },
    /// Conflicts did not end within the bound on attempts and time.
    #[error("gave up after {attempts} attempts: {last}")]
    RetriesExhausted {
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        last: Box<KvError>,
    },
    /// The store cannot answer now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store is shut.
    #[error("the store is closed")]
    Closed,
    /// The disk or the engine failed.
    #[error("the store failed: {0}")]
    Io(String),
}

impl KvError {
    /// Whether the same transaction, run again as a whole, may succeed. Never true for an unknown commit.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict | Self::TooOld { .. } | Self::Unavailable(_))
    }

    /// Whether the store does not answer, be it after many attempts.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::RetriesExhausted { last, .. } => last.is_unavailable(),
            Self::Conflict
            | Self::CommitUnknown
            | Self::TooLarge { .. }
            | Self::TooOld { .. }
            | Self::Closed
            | Self::Io(_) => false,
        }
    }
}

impl From<io::Error> for KvError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
