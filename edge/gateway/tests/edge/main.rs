//! Sessions over real sockets, in front of a home in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test expects and does not find ends it"
)]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

mod delivery;
mod limits;
mod support;
