//! Real nodes of the directory over loopback TCP, in one process.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod links;
mod world;

mod election;
mod followers;
mod input;
mod leases;
mod members;
mod partition;
mod recovery;
