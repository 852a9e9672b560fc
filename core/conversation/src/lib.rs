//! Conversations: who talks with whom, in which role, and each user's own list of conversations.
//!
//! A conversation and its members live in the conversation's slot. The index of direct conversations by pair of users
//! lives in the slot of the smaller user id, and a user's own list in the user's slot; both are reached by events of the
//! slot log, carried at least once and applied idempotently by version.
//!
//! Rules that never bend:
//! - Two users have at most one direct conversation, whatever races (I8).
//! - A group that has members has an owner.
//! - Each change of members bumps the conversation's version; whoever follows keeps the highest, so that a change carried
//!   late or twice undoes nothing (a removal stays in the user's list as a tombstone with its version).
//! - Somebody else's conversation cannot be told from one that does not exist ([`Rejection::NotAMember`]).
//!
//! A group is bounded ([`ConversationOptions::members_max`]); the number of conversations of one user is not: the user's slot
//! learns of a membership after the conversation's slot has committed it, and can no longer refuse.
//!
//! An answer waits, for a bounded time, until the members' own lists hold the change. Only a request waits so, never a
//! courier: a courier that waits for another slot's courier can wait for itself.
//!
//! | key | value |
//! |---|---|
//! | `(slot, CONVERSATION, conversation id)` | [`antiphon_proto::log::Conversation`] |
//! | `(slot, MEMBER, conversation id, user id)` | [`antiphon_proto::log::Member`]; absent: not a member |
//! | `(slot, PAIR, smaller user id, larger user id)` | [`antiphon_proto::log::Pair`], in the slot of the smaller user id |
//! | `(slot, MEMBERSHIP, user id, conversation id)` | [`antiphon_proto::log::Membership`], in the user's slot; role NONE: a tombstone |

#![forbid(unsafe_code)]

mod adapters;
mod app;
mod domain;
mod error;
pub mod membership;
mod new_id;
mod options;

pub use adapters::{carrier::carrier, grpc::ConversationService};
pub use domain::Rejection;
pub use error::ConversationError;
pub use new_id::new_conversation_id;
pub use options::ConversationOptions;
