//! The slot: one writer, one log.
//!
//! The node that owns a slot runs one task for it. The task drains its queue, runs the commands one after another inside
//! one KV transaction, appends one log entry with the write set and the typed events, commits, and answers all of them.
//! Nothing is answered before the entry is at or below the high watermark.
//!
//! | key | value |
//! |---|---|
//! | `(slot, HEADER)` | [`antiphon_proto::log::Header`]: epoch, last index, owner's fencing token, last batch id, trim point, cursors |
//! | `(slot, LOG, index)` | [`antiphon_proto::log::Entry`] |

#![forbid(unsafe_code)]

mod api;

pub use api::{
    CarryError, Carrier, CommitObserver, Committed, CommittedEntry, SlotError, SlotOptions, SlotRead, SlotTxn, Slots,
};
