//! Loads that measure a server: what it does in a second, what that costs, how long who is served waits.
//!
//! - The server is a process of its own ([`Server`]), started for the run with an empty store, so that its costs are its own.
//! - Arrival times are fixed before the run: a server that stalls is charged with all that would have come meanwhile
//!   (no coordinated omission).
//! - Each scenario yields [`Figures`]; what a scenario does not measure is absent.

#![forbid(unsafe_code)]

mod absence;
mod connect;
mod connectors;
mod crowd;
mod delay;
mod device;
mod devices;
mod disk;
mod figures;
mod find;
mod follower;
mod history;
mod idle;
mod inbox;
mod people;
mod plot;
mod rules;
mod server;
mod spread;
mod talk;
mod talker;
mod times;
mod usage;
mod witnesses;
mod write;
mod yardstick;

pub use absence::{AbsenceOptions, absence};
pub use connect::{ConnectOptions, connect};
pub use crowd::connections_of_process;
pub use delay::DelayedPath;
pub use devices::devices;
pub use figures::{Figures, Second};
pub use find::{Highest, find_max};
pub use history::{HistoryOptions, history};
pub use idle::{IdleOptions, idle};
pub use plot::plot_runs;
pub use server::{Server, ServerOptions};
pub use spread::Spread;
pub use talk::{Friends, Size, TalkOptions, talk};
pub use times::Shape;
pub use yardstick::{Ratio, Yardstick};

/// Tells people how far a run has come.
pub type Say = fn(&str);
