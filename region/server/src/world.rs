//! A world of regions on one machine: a real process for each node of a region, mostly one, and between them links that can be slowed and cut.
//!
//! `supervisor` runs it: `plan` says who is in it and on which ports, `link` is the network, `region` the life of one
//! region and `process` its process, `members` who comes and goes, `api` the admin port, `control` what speaks to that. `node` is the other side: a
//! region as the process that was started.

mod api;
mod control;
mod greeting;
mod link;
mod members;
pub(crate) mod node;
mod places;
mod plan;
mod process;
mod reached;
mod region;
mod supervisor;

#[cfg(test)]
mod tests;

pub(crate) use api::WorldView;
pub(crate) use control::Control;
pub(crate) use link::{LinkChange, LinkSettings, LinkState, LinkView};
pub(crate) use node::Place;
pub(crate) use plan::{NODES_MAX, REGIONS_MAX, loopback, names_in, nodes_in, none_in, ports_end};
pub(crate) use reached::edge_url;
pub(crate) use region::{Action, RegionState};
pub(crate) use supervisor::{in_words, run};
