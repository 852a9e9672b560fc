//! One hop of the delivery tree: topics, and the bounded queues of those who follow them.
//!
//! The home of a conversation and the delivery worker of a region are such hops: what comes in for a topic goes out to everyone
//! subscribed to it, encoded once, its bytes shared.
//!
//! Invariants:
//! - A queue is bounded in items and bytes (I9). A message that finds it full is left out, and its topic is marked with the
//!   seq: once there is room a `tail` says what was missed, so that nothing is lost in silence.
//! - Order per topic is kept; a mark comes after what was queued before it.
//! - A change of membership or a revoked login is never left out (I7): it may exceed the bound, and if even the reserve is
//!   full the stream ends, and whoever followed it subscribes and checks anew.

#![forbid(unsafe_code)]

mod follow;
mod queue;
mod topic;
mod topics;

pub use follow::{Followed, Hop, INTEREST_LEN_MAX, follow};
pub use queue::FeedOptions;
pub use topic::{Topic, TopicError};
pub use topics::{FeedError, FeedStream, Subscriber, Topics};
