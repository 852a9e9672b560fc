//! Messages of a conversation: written once, numbered without gaps, read in one order, and how far each member is.
//!
//! Invariants:
//! - I1, I2: a message's seq is the conversation's last seq + 1, read and written in the commit that stores the message.
//! - I3: history, tails and the feed end at the high watermark: a message keeps its log index and is filtered by it.
//! - I5: `(conversation, sender, clientMsgId)` → seq is written beside the message and lives as long as it does; sending again
//!   returns the first answer, even to a sender who is no member any more.
//! - I6: `delivered` and `read` only grow, and `read` ≤ `delivered` ≤ last seq. Sending moves both of the sender: a conversation
//!   counts its own messages as read.
//! - I7: whoever is not a member at that point of the log is refused.
//!
//! All keys live in the conversation's slot.
//!
//! | key | value |
//! |---|---|
//! | `(slot, TAIL, conversation id)` | [`antiphon_proto::log::Tail`]: last and first seq, log index of the last message |
//! | `(slot, MESSAGE, conversation id, seq)` | [`antiphon_proto::log::StoredMessage`] |
//! | `(slot, IDEMPOTENCY, conversation id, sender id, client message id)` | [`antiphon_proto::log::Idempotency`] |
//! | `(slot, INBOX, conversation id, user id)` | [`antiphon_proto::log::Inbox`]: delivered and read seq |

#![forbid(unsafe_code)]

mod adapters;
mod app;
mod domain;
mod error;
mod options;

pub use adapters::{FeedHome, MessageService, Salvager};
pub use domain::Rejection;
pub use error::MessageError;
pub use options::MessageOptions;
