use std::{future::Future, sync::Arc, time::Duration};

use antiphon_kv::{Kv, KvError, Page, RangeRead};
use antiphon_proto::log::{Event, Write, event};
use antiphon_types::{Epoch, LogIndex, Slot};
use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Why a slot refused. Converted to a gRPC status with [`SlotError::to_status`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum SlotError {
    /// This node does not own the slot.
    #[error("{slot:?} is not served here (epoch {epoch})")]
    NotHome { slot: Slot, epoch: Epoch },
    /// The slot's queue is full.
    #[error("the queue of {slot:?} is full ({queue_len_max} commands)")]
    Overloaded { slot: Slot, queue_len_max: usize, retry_after_ms: u64 },
    /// One command's writes do not fit into a log entry.
    #[error("a command's writes of {size} bytes are over the limit of {limit} bytes")]
    TooLarge { size: usize, limit: usize },
    /// The outcome did not become known in time.
    #[error("the write to {slot:?} was not confirmed within {timeout_ms} ms")]
    Timeout { slot: Slot, timeout_ms: u64 },
    /// The slot is shutting down.
    #[error("{slot:?} is closing")]
    Closed { slot: Slot },
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// What is stored cannot be read.
    #[error("{what} is corrupt: {reason}")]
    Corrupt { what: String, reason: String },
}

/// Settings of all slots of a node.
#[derive(Debug, Clone)]
pub struct SlotOptions {
    /// Commands that may wait for one slot.
    pub queue_len_max: usize,
    /// Commands in one batch.
    pub batch_len_max: usize,
    /// Bytes of one log entry.
    pub entry_bytes_max: usize,
    /// How long a write may wait for its answer.
    pub write_timeout: Duration,
    /// Log entries kept below what every cursor has passed.
    pub log_entries_kept: u64,
}

/// A value and the log position that made it so.
#[derive(Debug, Clone, Copy)]
pub struct Committed<T> {
    pub value: T,
    /// Index of the entry; of the last entry that was seen where nothing was written.
    pub index: LogIndex,
}

/// A committed entry, at or below the high watermark, as observers see it.
#[derive(Debug, Clone)]
pub struct CommittedEntry {
    pub slot: Slot,
    pub epoch: Epoch,
    pub index: LogIndex,
    pub writes: Arc<[Write]>,
    pub events: Arc<[Event]>,
}

/// Follows every slot's log live: called once per entry, in order per slot, after the entry is at or below the high
/// watermark. Must not block; what is missed across a restart is read from the state.
pub trait CommitObserver: Send + Sync + 'static {
    fn committed(&self, entry: &CommittedEntry);
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

/// The slots of one node. Cheap to clone.
#[derive(Clone)]
pub struct Slots {}

impl Slots {
    /// Starts serving slots of `kv`. `owner` is this process's fencing token, new at each start.
    pub fn start(
        kv: Kv,
        options: SlotOptions,
        owner: [u8; 16],
        observers: Vec<Arc<dyn CommitObserver>>,
        carriers: Vec<Arc<dyn Carrier>>,
    ) -> Self {
        todo!()
    }

    /// Makes this node the owner of `slot` under `epoch`; it is opened at first use.
    pub fn grant(&self, slot: Slot, epoch: Epoch) {
        todo!()
    }

    /// Runs `body` as one command of the slot's writer. An error leaves no trace of the command. The answer comes when the
    /// entry is at or below the high watermark. `body` may run more than once and must not act outside of the transaction.
    pub async fn write<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<SlotError> + Send + 'static,
        F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        todo!()
    }

    /// Reads the slot in one snapshot; answers once the high watermark has passed the last entry that the snapshot holds.
    pub async fn read<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<SlotError> + Send,
        F: Fn(SlotRead) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        todo!()
    }

    /// As [`Slots::read`] without the wait: `body` itself leaves out what [`SlotRead::high_watermark`] has not passed.
    pub async fn read_filtered<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<SlotError> + Send,
        F: Fn(SlotRead) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        todo!()
    }

    /// Waits until everything up to `index` has been carried to the other slots; false when `timeout` came first.
    pub async fn carried(&self, slot: Slot, index: LogIndex, timeout: Duration) -> bool {
        todo!()
    }

    /// Stops taking commands, finishes what is queued, writes the cursors and ends every task.
    pub async fn close(&self) {
        todo!()
    }
}

/// The transaction of one command. Cheap to clone: clones are the same transaction. Sees what earlier commands of the
/// batch wrote.
#[derive(Clone)]
pub struct SlotTxn {}

impl SlotTxn {
    /// The slot.
    pub fn slot(&self) -> Slot {
        todo!()
    }
    /// The log index that this command's entry will have.
    pub fn index(&self) -> LogIndex {
        todo!()
    }
    /// Reads a key of the slot.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SlotError> {
        todo!()
    }
    /// Reads a page of a range of the slot.
    pub async fn range(&self, range: RangeRead) -> Result<Page, SlotError> {
        todo!()
    }
    /// Writes a key of the slot.
    pub fn set(&self, key: Bytes, value: Bytes) {
        todo!()
    }
    /// Clears a key of the slot.
    pub fn clear(&self, key: Bytes) {
        todo!()
    }
    /// Appends an event to the entry. Its trace context is filled in from the request's span.
    pub fn emit(&self, event: event::Body) {
        todo!()
    }
}

/// A read of one snapshot of the slot.
#[derive(Clone)]
pub struct SlotRead {}

impl SlotRead {
    /// The high watermark when the snapshot was taken.
    pub fn high_watermark(&self) -> LogIndex {
        todo!()
    }
    /// Reads a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SlotError> {
        todo!()
    }
    /// Reads a page of a range.
    pub async fn range(&self, range: RangeRead) -> Result<Page, SlotError> {
        todo!()
    }
}

impl SlotError {
    /// The refusal as it crosses the network.
    pub fn to_status(&self) -> tonic::Status {
        todo!()
    }
}
