//! The client SDK: an account over REST, and a session that survives the network.
//!
//! What the app can rely on:
//! - Messages of a conversation arrive in order, each once, without a hole: what a push left out is fetched, what came twice is
//!   dropped, and what retention has taken is said ([`Event::Truncated`]).
//! - A message that was taken by [`Client::send`] is sent until the server has answered, across reconnects, always under the same
//!   client message id: it is stored once.
//! - A read mark taken by [`Client::read`] is kept the same way, one a conversation: the highest counts.
//! - The outbox and every queue are bounded; a full outbox is an error of the call ([`OutboxFull`]), a slow app slows down reading.
//! - A lost connection is found by heartbeats and by what is not answered, and opened again with full jitter; the server's word on when
//!   to come back counts.
//! - It is opened over whichever transport gets through first, QUIC with a head start; a session over QUIC survives a change of the
//!   network ([`Client::network_changed`]).

#![forbid(unsafe_code)]

mod account;
mod backoff;
mod client;
mod connection;
mod core;
mod driver;
mod edges;
mod intake;
mod quiet;
mod tls;
mod tokens;

pub use antiphon_proto::Codec;

pub use account::{Account, AccountError, ConversationView, MemberView, MessageView, Tokens};
pub use backoff::Backoff;

pub use connection::{Connection, Connector, Transport};

pub use client::{Client, ClientError, ClientOptions, Marking, Sending, Sent};
pub use tls::{http_client, https};

pub use core::{Core, CoreOptions, Event, OutboxFull, Output, Request, SendError};
