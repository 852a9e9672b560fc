//! What goes in and out of the core besides frames.

use antiphon_proto::client::{self, ClientFrame, Error, Fetch, Message, server_frame::Body};

use crate::Transport;

/// What the app is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session is open.
    Connected {
        /// The region of the edge.
        region: String,
        /// What it is connected over.
        transport: Transport,
    },
    /// The session is gone; another is tried.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The next message of its conversation.
    Message(Message),
    /// Retention has taken the messages before `from_seq`: they cannot be had any more.
    Truncated {
        /// The conversation.
        conversation_id: String,
        /// The first seq there is.
        from_seq: u64,
    },
    /// The home of a conversation cannot be reached now: what is new there is not known. [`Event::Resumed`] follows, or another
    /// connection.
    Unavailable {
        /// The conversation.
        conversation_id: String,
        /// When a request about it may succeed.
        retry_after_ms: u64,
    },
    /// A conversation that was unavailable can be reached; what was missed follows.
    Resumed {
        /// The conversation.
        conversation_id: String,
    },
    /// A member's delivered and read seq.
    Receipt(client::Receipt),
    /// Somebody is typing.
    Typing(client::TypingEvent),
    /// A membership changed.
    Conversation(client::ConversationEvent),
    /// A watched user came or went.
    Presence(client::Presence),
    /// The access token was renewed: what to log in with after a restart.
    Tokens(crate::Tokens),
    /// The log-in is over (revoked, or the refresh token has expired); the client has stopped.
    LoggedOut {
        /// Why.
        reason: String,
    },
}

/// A request of the app's that has one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A page of history.
    Fetch(Fetch),
    /// A page of conversations.
    Sync(client::Sync),
    /// The presence of users, watched from then on.
    Presence(client::PresenceQuery),
    /// A new access token.
    Reauth(client::Reauth),
}

/// As many messages as the outbox holds wait for their answer: this one was not taken. There is room again when one is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full ({limit} messages wait)")]
pub struct OutboxFull {
    /// How many it holds.
    pub limit: usize,
}

/// Why a message that was taken was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server refused it.
    #[error("{code}: {message}")]
    Refused {
        /// Upper snake case code.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Transmit a frame.
    Frame(ClientFrame),
    /// Tell the app.
    Event(Event),
    /// A message is durable.
    Sent {
        /// The number that [`crate::Core::send`] gave it.
        number: u64,
        /// Where it is.
        sent: client::Sent,
        /// How often it was transmitted until this answer.
        attempts: u32,
    },
    /// A message was refused for good.
    NotSent {
        /// The number that [`crate::Core::send`] gave it.
        number: u64,
        /// Why.
        error: SendError,
    },
    /// Everything up to `seq` is marked as read.
    Marked {
        /// The conversation.
        conversation_id: String,
        /// How far.
        seq: u64,
    },
    /// A read mark was refused for good, and those below it that it had absorbed.
    NotMarked {
        /// The conversation.
        conversation_id: String,
        /// How far it would have marked.
        seq: u64,
        /// Why.
        error: Error,
    },
    /// A request of the app's is answered.
    Answer {
        /// The number that [`crate::Core::request`] gave it.
        number: u64,
        /// The answer, or the refusal.
        result: Result<Box<Body>, Error>,
    },
    /// The server asks to come back after this many milliseconds.
    Goaway(client::Goaway),
    /// The server does not take the access token (any more).
    Unauthenticated(Error),
}
