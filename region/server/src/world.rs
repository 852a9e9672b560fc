//! A world of regions on one machine.

mod link;
mod places;
mod plan;
