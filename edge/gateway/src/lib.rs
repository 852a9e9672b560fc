//! The edge: REST, sessions over WebSocket, WebTransport and QUIC, and the fan-out of the feed to the sessions that are connected here.
//!
//! It keeps nothing that must last. What a device is told is in the services; a session that breaks off is resumed anywhere by the
//! seqs that its device holds.
//!
//! Invariants:
//! - Every queue is bounded (I9): frames of a session, requests in flight, connections, buckets. What is over is answered.
//! - A session gets the messages of a conversation in order without holes, or is told `lagged`.
//! - A member who was removed gets nothing that was sent after the removal (I7), whatever the feed has lost.

#![forbid(unsafe_code)]

mod acks;
mod auth;
mod calls;
mod connection;
mod gateway;
mod hub;
mod limits;
mod listing;
mod options;
mod presence;
mod problem;
mod rest;
mod serve;
mod shared;
mod transport;
mod turns;

pub use gateway::Gateway;
pub use options::{DevicePolicy, GatewayOptions, Rate};
pub use problem::Problem;
pub use transport::{CertificateError, Certificates, QUIC_PROTOCOL, QuicSockets, ResetKey};
