//! The words every other crate speaks: ids, slots, seqs, epochs, error codes, the clock. No IO.

#![forbid(unsafe_code)]

mod clock;
mod error;
mod id;
mod name;
pub mod kind;
pub mod trace;

pub use clock::{Clock, TimestampMs};
pub use error::ErrorCode;
pub use id::{ConversationId, Epoch, IdError, LogIndex, Seq, Slot, UserId, SLOT_COUNT};
pub use name::{ClientMsgId, DeviceId, NameError, Title, Username};
