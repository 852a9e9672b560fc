//! The words every other crate speaks: ids, slots, seqs, epochs, error codes, the clock. No IO.

#![forbid(unsafe_code)]

mod clock;
mod error;
mod id;
mod key;
pub mod kind;
mod name;
pub mod sabotage;
pub mod trace;

pub use clock::{Clock, TimestampMs};
pub use error::ErrorCode;
pub use id::{ConversationId, Epoch, IdError, LogIndex, SLOT_COUNT, Seq, Slot, UserId};
pub use key::{PackedKey, pack_key, packed_key};
pub use name::{ClientMsgId, DeviceId, NameError, Title, Username};
