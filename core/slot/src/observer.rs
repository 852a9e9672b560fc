use std::sync::Arc;

use antiphon_proto::log::{Event, Write};
use antiphon_types::{Epoch, LogIndex, Slot};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::protocol::LogState;

/// A committed entry, at or below the high watermark, as observers see it.
#[derive(Debug, Clone)]
pub struct CommittedEntry {
    /// The slot.
    pub slot: Slot,
    /// The leader epoch that wrote it.
    pub epoch: Epoch,
    /// Its place in the slot's log.
    pub index: LogIndex,
    /// The write set, in ascending order of keys, each key once.
    pub writes: Arc<[Write]>,
    /// What happened, in the order of the commands.
    pub events: Arc<[Event]>,
    /// The entry as it is stored.
    pub encoded: Bytes,
}

impl CommittedEntry {
    /// The value that this entry wrote under `key`, if it did.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<&Bytes> {
        let at = self.writes.binary_search_by(|write| write.key.as_ref().cmp(key)).ok()?;
        self.writes.get(at)?.value.as_ref()
    }
}

/// Follows every slot's log live: called once per entry, in order per slot, after the entry is at or below the high
/// watermark. Must not block; what is missed across a restart is read from the state.
pub trait CommitObserver: Send + Sync + 'static {
    /// Takes note of an entry.
    fn committed(&self, entry: &CommittedEntry);
}

/// Ships slot logs to the regions that keep copies. Called in order per slot; must not block.
pub trait Shipping: Send + Sync + 'static {
    /// An entry is durable at home; it may be above the high watermark.
    fn appended(&self, entry: &CommittedEntry);

    /// The log's bounds have moved, the high watermark above all, without an entry.
    fn moved(&self, slot: Slot, state: &LogState);
}

/// Carries events of a slot's log to other slots, at least once, by the slot's durable cursor.
pub trait Carrier: Send + Sync + 'static {
    /// Whether this event concerns another slot. Cheap: called for every event.
    fn wants(&self, event: &Event) -> bool;

    /// Carries one event. Idempotent at the receiver; an error is retried with backoff and jitter.
    fn carry(&self, event: Event) -> BoxFuture<'static, Result<(), CarryError>>;
}

/// Why an event could not be carried yet.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CarryError(pub String);
