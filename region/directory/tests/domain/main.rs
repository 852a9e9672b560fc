//! The directory's rules from outside: one deployment, commands, and what must hold after each.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod commands;
mod invariants;
mod lease;
mod lease_run;
mod min_in_sync;
mod planner;
mod properties;
mod size;
mod world;
