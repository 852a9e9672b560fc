//! One session of a device as a pure state machine: no socket, no clock, no task.
//!
//! A shell feeds it what came ([`Session::handle_frame`], [`Session::handle_timeout`]), what other parts answered
//! ([`Session::accept`], [`Session::reply`]) and what is to be pushed ([`Session::push`]), and takes from
//! [`Session::poll_output`] what is to be done: frames to write, tokens to check, requests to carry out, the close.
//!
//! ```text
//! AwaitHello ──hello──▶ Authenticating ──accept──▶ Live ──go_away──▶ Draining ──▶ Closed
//!     └── hello too late ─────┴── refused ──────────┴── silent, idle, token expired, too many faults ──▶ Closed
//! ```
//!
//! Invariants: nothing is emitted after the close; a reply carries its request's id and is never dropped; every queue is
//! bounded, and what does not fit is answered (I9): a push that is dropped becomes `lagged` as soon as there is room.

#![forbid(unsafe_code)]

mod handling;
mod incoming;
mod options;
mod outbox;
mod output;
mod request;
mod session;

pub use incoming::{FrameFault, Incoming};
pub use options::SessionOptions;
pub use outbox::Push;
pub use output::{Accepted, CloseReason, HelloRequest, Output, Refusal, Ticket};
pub use request::{Request, Send};
pub use session::{Counts, Session};
