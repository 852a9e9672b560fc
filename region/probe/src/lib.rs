//! A live load, and the judge of what its clients saw.
//!
//! - [`Load`] is users in every region who talk in groups that span the regions, through the client SDK.
//! - [`Recorder`] keeps what they did and saw as a [`History`].
//! - [`check`] holds a history against the invariants: nothing that was acknowledged is lost, doubled, moved or reordered.
//!
//! A history is kept in memory as a whole, so a load is for drills and not for days.

#![forbid(unsafe_code)]

mod checker;
mod delays;
mod history;
mod load;
mod measure;
mod member;
mod reading;
mod report;
mod setup;

pub use checker::{Rule, Violation, check};
pub use delays::Delay;
pub use history::{Event, History, Record, Recorder, Seen};
pub use load::{Load, LoadOptions, ProbeError};
pub use report::{Report, percentile};
