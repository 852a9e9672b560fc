//! The delivery worker of a region: the middle of the tree session → edge → delivery worker → home.
//!
//! However many edges of the region want a topic, it is followed once at its home; what comes is passed on as it is, its bytes
//! shared. A broken link follows everything again, and the home's `tail` for each topic tells the edges below what they missed.
//!
//! A link is one stream to one home region for all topics homed there.

#![forbid(unsafe_code)]

mod interest;
mod link;
mod worker;

pub use worker::{DeliveryOptions, DeliveryWorker};
