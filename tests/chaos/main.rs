//! Faults under load, judged by the checker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod client;
mod disk;
mod drill;
mod faults;
mod homes;
mod kill9;
mod operator;
mod rules;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "not every target uses all of it")]
mod support;
mod worlds;
