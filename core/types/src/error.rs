use std::fmt;

/// Why a request was refused, in the words a client sees. Stable: clients branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A field is missing, malformed or out of its limits.
    InvalidArgument,
    /// A frame could not be decoded.
    MalformedFrame,
    /// A frame or body is over its limit.
    TooLarge,
    /// No or unknown credentials.
    Unauthenticated,
    /// The access token has expired; refresh it.
    TokenExpired,
    /// The caller may not do this.
    Forbidden,
    /// The thing named does not exist, or the caller may not know that it does.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// The idempotency key was used before for another request.
    IdempotencyMismatch,
    /// A rate limit of the caller is used up; retry after the time given.
    RateLimited,
    /// A queue or bound of the server is full; retry after the time given.
    ResourceExhausted,
    /// The service cannot answer now; retry.
    Unavailable,
    /// The slot lives elsewhere.
    NotHome,
    /// The time for the request ran out; its outcome is unknown.
    DeadlineExceeded,
    /// The request came in a state that does not allow it (a frame before Hello, a second Hello).
    FailedPrecondition,
    /// A fault of the server.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::InvalidArgument,
        Self::MalformedFrame,
        Self::TooLarge,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::IdempotencyMismatch,
        Self::RateLimited,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::NotHome,
        Self::DeadlineExceeded,
        Self::FailedPrecondition,
        Self::Internal,
    ];

    /// The code on the wire, upper snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::MalformedFrame => "MALFORMED_FRAME",
            Self::TooLarge => "TOO_LARGE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::IdempotencyMismatch => "IDEMPOTENCY_MISMATCH",
            Self::RateLimited => "RATE_LIMITED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::NotHome => "NOT_HOME",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Internal => "INTERNAL",
        }
    }

    /// Reads a code from the wire; an unknown one is [`ErrorCode::Internal`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .unwrap_or(Self::Internal)
    }

    /// Whether the same request may succeed later without change.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::ResourceExhausted | Self::Unavailable | Self::NotHome | Self::DeadlineExceeded
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
