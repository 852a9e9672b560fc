//! Where slots live, and the one way to reach them.
//!
//! [`Table`] holds the 4096 placements in memory; [`Route`] is a tower service that takes a request to the node that owns a slot,
//! in this process or over the network, with one client type for both.

#![forbid(unsafe_code)]

mod directory;
pub mod domain;
mod error;
mod follower;
mod node;
mod raft;
mod route;
mod table;

pub use directory::Directory;
pub use error::{DirectoryError, StartError};
pub use follower::DirectoryFollower;
pub use node::{DirectoryNode, DirectoryService, LeaseKeeper, LeaseOptions, NodeOptions, PeerStatus, Role, Status};
pub use raft::{Dial, OptionsError, RaftOptions, RaftService};
pub use route::{
    Connect, Detour, DevelopmentCa, Dialer, NodeTls, Owner, PeerRegion, Route, Seen, SlotRoute, TlsError, Wire,
    serve_nodes, serve_wires,
};
pub use table::{Placement, Table, TableRegion, TableWatch};
