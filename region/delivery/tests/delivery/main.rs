//! The delivery worker between edges and a home that a test can hold, break and publish at.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod nodes;
mod rules;
mod support;
