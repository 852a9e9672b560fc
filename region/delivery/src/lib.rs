//! The delivery worker of a region (of each of its nodes, where it has several): the middle of the tree session → edge → delivery worker → home.
//!
//! However many edges of the region want a topic, it is followed once at its home; what comes is passed on as it is, its bytes
//! shared. A broken link follows everything again, and the home's `tail` for each topic tells the edges below what they missed.
//!
//! A link is one stream to one home region for all topics homed there; to one node of it, where a home has several. A topic goes from link
//! to link with its slot.

#![forbid(unsafe_code)]

mod interest;
mod link;
mod worker;

pub use worker::{DeliveryOptions, DeliveryWorker};
