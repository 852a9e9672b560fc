use antiphon_proto::client::{self, Resumed, Unavailable, server_frame};
use antiphon_types::{ConversationId, DeviceId, ErrorCode, Seq, TimestampMs, UserId};
use bytes::Bytes;

use crate::{Request, Send};

/// What the shell is to do next.
#[derive(Debug)]
pub enum Output {
    /// Write this frame; text or binary is the codec's.
    Frame(Bytes),
    /// Write this frame too, where the transport can as a datagram: it may be lost or overtake.
    Fleeting(Bytes),
    /// Check the token and make the session known, then call [`crate::Session::accept`] or [`crate::Session::refuse`].
    Hello(Ticket, Box<HelloRequest>),
    /// Check the token, then call [`crate::Session::reauthenticated`] or [`crate::Session::reply`] with a refusal.
    Reauth {
        /// Hands the answer back.
        ticket: Ticket,
        /// The new token.
        access_token: String,
    },
    /// Store this message behind those that came before it, then call [`crate::Session::reply`].
    Send {
        /// Hands the answer back.
        ticket: Ticket,
        /// What is sent.
        send: Send,
    },
    /// Carry this out, then call [`crate::Session::reply`].
    Request {
        /// Hands the answer back.
        ticket: Ticket,
        /// What is asked.
        request: Request,
    },
    /// Close the connection; nothing comes after it.
    Close(CloseReason),
}

/// Hello with its fields read.
#[derive(Debug)]
pub struct HelloRequest {
    /// The token to check.
    pub access_token: String,
    /// The device that says it has.
    pub device_id: DeviceId,
    /// What the device holds, one entry a conversation.
    pub cursors: Vec<(ConversationId, Seq)>,
}

/// What became of Hello.
#[derive(Debug)]
pub struct Accepted {
    /// Whose session it is.
    pub user_id: UserId,
    /// When the access token expires.
    pub token_expires_at_ms: TimestampMs,
    /// The session's id.
    pub session_id: String,
    /// The region of this edge.
    pub region: String,
    /// How each cursor resumes.
    pub resumed: Vec<Resumed>,
    /// Conversations of which nothing can be told now.
    pub unavailable: Vec<Unavailable>,
    /// Base URLs of edges in other regions.
    pub edges: Vec<String>,
}

/// A refusal as the device reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: String,
    /// When the same request may succeed.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal without a time to retry.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// The same, to be retried after `retry_after_ms`.
    #[must_use]
    pub fn retry_after(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    pub(crate) fn into_body(self) -> server_frame::Body {
        server_frame::Body::Error(client::Error {
            code: self.code.as_str().to_owned(),
            message: self.message,
            retry_after_ms: self.retry_after_ms,
        })
    }
}

/// The claim of one request on its reply. It cannot be copied, so a request is answered at most once.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) id: Box<str>,
}

impl Ticket {
    /// The id that the device gave its request.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// No Hello came in time.
    HelloTimeout,
    /// The first frame was something else than Hello.
    HelloExpected,
    /// Hello was refused.
    Refused,
    /// Nothing came for two heartbeats.
    Silent,
    /// Nothing but Ping came for the idle limit.
    Idle,
    /// The access token expired and no Reauth came.
    TokenExpired,
    /// Too many malformed frames in a row.
    Malformed,
    /// A message was over the transport's limit.
    TooLarge,
    /// The device does not read what it is sent.
    SlowReader,
    /// The edge is going away.
    Draining,
    /// Another session of the device or user took its place.
    Replaced,
    /// The login was revoked.
    Revoked,
    /// The connection ended.
    Disconnected,
}

impl CloseReason {
    /// The WebSocket close code (RFC 6455 section 7.4.1, the private range above 4000).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Disconnected => 1000,
            Self::Draining => 1001,
            Self::Malformed => 1007,
            Self::HelloExpected => 1008,
            Self::TooLarge => 1009,
            Self::SlowReader => 1013,
            Self::HelloTimeout | Self::Silent => 4408,
            Self::Refused | Self::TokenExpired => 4401,
            Self::Revoked => 4403,
            Self::Replaced => 4409,
            Self::Idle => 4410,
        }
    }

    /// A stable word, as it stands in Goaway and in the close frame.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HelloTimeout => "hello_timeout",
            Self::HelloExpected => "hello_expected",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::TokenExpired => "token_expired",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::SlowReader => "slow_reader",
            Self::Draining => "draining",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Disconnected => "disconnected",
        }
    }
}
