//! Presence: who is online, and when somebody was seen last. Soft state at the user's home, written down lazily.
//!
//! Rules:
//! - A user is online while at least one session is, and for a grace period after the last one went, so that a restart of an
//!   edge does not show connected users as offline.
//! - A session is leased: an edge reports it again before [`PresenceOptions::lease_ms`] has passed, or it has gone.
//! - The sessions known before a restart of this node stay for [`PresenceOptions::restored_ms`], in which edges report them again.
//! - Who watches a user is told each change once, on the user's topic of the home's feed.
//! - The presence of a user is shown to those alone who may see it; to nobody as long as nothing says who.
//! - Memory holds those who are online, or whose last change is not written yet; the others are read when they are asked for.
//!
//! What is lost with a crash is at most the last few seconds of changes; edges report again what is true.
//!
//! | key | value |
//! |---|---|
//! | `(slot, PRESENCE, user id)` | [`antiphon_proto::log::StoredPresence`]: sessions and last seen, some seconds late |

#![forbid(unsafe_code)]

mod adapters;
mod app;
mod domain;
mod error;
mod options;
mod roster;

pub use adapters::grpc::PresenceService;
pub use app::MaySee;
pub use domain::Rejection;
pub use error::PresenceError;
pub use options::PresenceOptions;
