//! The behaviour of the real binary, seen by clients that are not the SDK.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod accounts;
mod bad_input;
mod bad_tokens;
mod bench;
#[path = "../browser/mod.rs"]
mod browser;
mod chat;
mod complaints;
mod counts;
mod crowd;
mod deployment;
mod drills;
mod groups;
mod https;
mod members;
mod operations;
mod operator;
mod outage;
mod presence;
mod quic_input;
mod races;
mod regions;
mod rest;
mod resume;
#[allow(clippy::wildcard_enum_match_arm, reason = "other events are passed over")]
mod sdk;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "not every target uses all of it")]
mod support;
mod tracing;
mod transports;
mod unavailable;
mod world;
