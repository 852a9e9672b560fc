//! Loads that measure a server: what it does in a second, what that costs, how long who is served waits.
//!
//! - The server is a process of its own ([`Server`]), started for the run with an empty store, so that its costs are its own.
//! - Arrival times are fixed before the run: a server that stalls is charged with all that would have come meanwhile
//!   (no coordinated omission).
//! - Each scenario yields [`Figures`]; what a scenario does not measure is absent.

#![forbid(unsafe_code)]

mod connect;
mod delay;
mod device;
mod figures;
mod idle;
mod pairs;
mod people;
mod server;
mod usage;

pub use connect::{ConnectOptions, connect};
pub use delay::DelayedPath;
pub use figures::Figures;
pub use idle::{IdleOptions, idle};
pub use pairs::{PairsOptions, pairs};
pub use server::{Server, ServerOptions};
