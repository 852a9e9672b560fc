//! Real nodes of the directory over loopback TCP, in one process.

mod world;

mod election;
mod input;
mod leases;
mod members;
mod recovery;
