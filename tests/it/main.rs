//! Behaviour of the real binary, from outside.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what it expects by failing"
)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod bad_input;
mod chat;
mod checker_tests;
mod complaints;
mod operations;
mod races;
mod sdk;
mod tracing;
