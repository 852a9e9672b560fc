//! A world of regions on one machine.

mod link;
