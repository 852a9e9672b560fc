//! The configuration: one tree of typed sections, each key with its default and its words in one place.
//!
//! A value comes from the last of these that sets it: the default, the file, the environment, the command line.

mod check;
mod deployment;
mod edge;
mod identity;
mod load;
mod reference;
mod sections;
mod services;
mod show;

pub(crate) use deployment::{DurabilityName, PlacementSection};
pub(crate) use load::{ConfigError, Effective, Sources, load};
pub(crate) use reference::reference;
pub(crate) use sections::{Config, FIRST_NODE, LogFormat, StoreEngine, TelemetrySection, folder_name};
pub(crate) use show::show;

#[cfg(test)]
mod tests;
