use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_kv::{Kv, KvError};
use antiphon_types::{
    Epoch, LogIndex, Slot,
    sabotage::{self, Rule},
};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Committed, Hooks, SlotError, SlotOptions, SlotRead, SlotTxn,
    batch::decode_header,
    command::command,
    keys,
    node::Node,
    protocol::{Grant, InSync, LogState, OwnerToken, Replica},
    runtime::{Phase, Runtime},
    signals::{HandOver, Progress, Signals, Untold},
    writer::{Tells, Writer},
};

/// When to try again where a node has too much to do, milliseconds: about what it needs for what waits.
const NODE_RETRY_MS: u64 = 500;
/// Headers that are read in one transaction when a node starts.
const RECOVERED_AT_ONCE: usize = 256;

/// The slots of one node. Cheap to clone.
#[derive(Clone)]
pub struct Slots {
    pub(crate) inner: Arc<Inner>,
}

/// The way into one opening of a slot. Of what is asked for through it one after the other, nothing is done behind what was refused because
/// the slot is not here, also where it has come back in between.
pub struct Opening {
    inner: Arc<Inner>,
    runtime: Arc<Runtime>,
}

pub(crate) struct Inner {
    owner: OwnerToken,
    openings: AtomicU64,
    pub(crate) node: Node,
    places: Box<[Mutex<Place>]>,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// A permit for each command that may wait.
    room: Semaphore,
}

/// What this node knows of one slot.
pub(crate) enum Place {
    /// Not ours, as far as we know.
    Elsewhere { epoch: Epoch },
    /// Ours, and not used yet.
    Granted { epoch: Epoch, in_sync: InSync },
    /// Its writer runs.
    Open(Open),
}

pub(crate) struct Open {
    epoch: Epoch,
    /// The latest that was granted.
    in_sync: InSync,
    pub(crate) runtime: Arc<Runtime>,
}

impl Place {
    /// The highest epoch this node has heard of.
    const fn epoch(&self) -> Epoch {
        match self {
            Self::Elsewhere { epoch } | Self::Granted { epoch, .. } | Self::Open(Open { epoch, .. }) => *epoch,
        }
    }
}

impl Slots {
    /// Starts serving slots of `kv`. `owner` is this process's fencing token, new and random at each start.
    #[must_use]
    pub fn start(kv: Kv, options: SlotOptions, owner: OwnerToken, hooks: Hooks) -> Self {
        let places = Slot::all().map(|_| Mutex::new(Place::Elsewhere { epoch: 0 })).collect();
        let waiting_max = options.waiting_max;
        let inner = Inner {
            owner,
            openings: AtomicU64::new(0),
            node: Node::new(kv, options, hooks),
            places,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            room: Semaphore::new(waiting_max.min(Semaphore::MAX_PERMITS)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes this node the owner of `slot` under `epoch` with this in-sync set; it is opened at first use. Under the epoch that the
    /// node serves already only the in-sync set changes; a lower one changes nothing.
    pub fn grant(&self, slot: Slot, epoch: Epoch, in_sync: InSync) {
        let mut place = self.inner.place(slot).lock();
        if epoch < place.epoch() {
            return;
        }
        if let Place::Open(open) = &mut *place {
            if epoch == open.epoch {
                open.in_sync = in_sync.clone();
                return open.runtime.signals.tell(|untold| untold.in_sync = Some(in_sync));
            }
            open.runtime.signals.tell(|untold| untold.withdrawn = Some(epoch));
        }
        *place = Place::Granted { epoch, in_sync };
    }

    /// Another is to serve `slot` under `epoch`, another region or another node of this one: whoever waits here is sent there. It may be
    /// granted again under the same epoch.
    pub fn withdraw(&self, slot: Slot, epoch: Epoch) {
        let mut place = self.inner.place(slot).lock();
        if epoch < place.epoch() {
            return;
        }
        if let Place::Open(open) = &*place {
            open.runtime.signals.tell(|untold| untold.withdrawn = Some(epoch));
        }
        *place = Place::Elsewhere { epoch };
    }

    /// A replica that follows `slot` under `epoch` holds everything up to `index`. Older news, of a fetch that was under way, takes
    /// nothing back.
    pub fn held(&self, slot: Slot, epoch: Epoch, replica: Replica, index: LogIndex) {
        self.tell(slot, epoch, |untold| {
            let known = match untold.replicas.get(&replica) {
                Some(Progress::Holds(known)) => *known,
                Some(Progress::Follows(_) | Progress::Left) | None => 0,
            };
            untold.replicas.insert(replica, Progress::Holds(known.max(index)));
        });
    }

    /// A replica is going to take the log of `slot` from `index` on.
    pub fn follows(&self, slot: Slot, epoch: Epoch, replica: Replica, index: LogIndex) {
        self.tell(slot, epoch, |untold| {
            untold.replicas.entry(replica).or_insert(Progress::Follows(index));
        });
    }

    /// A replica follows `slot` no more.
    pub fn left(&self, slot: Slot, epoch: Epoch, replica: Replica) {
        self.tell(slot, epoch, |untold| {
            untold.replicas.insert(replica, Progress::Left);
        });
    }

    /// Finishes what is begun and takes nothing new; true once everything that the log holds is committed. Commands wait, until
    /// the slot is withdrawn or resumed.
    pub async fn hand_over(&self, slot: Slot, epoch: Epoch) -> bool {
        let (done, is_done) = oneshot::channel();
        if self.runtime(slot).is_err() {
            return false;
        }
        self.tell(slot, epoch, |untold| untold.hand_over = Some(HandOver::Begin(done)));
        is_done.await.is_ok()
    }

    /// The slot stays here after all.
    pub fn resume(&self, slot: Slot, epoch: Epoch) {
        self.tell(slot, epoch, |untold| untold.hand_over = Some(HandOver::Resume));
    }

    /// What of the slot's log is where, for as long as this node is its home; opens it.
    ///
    /// # Errors
    /// [`SlotError::NotHome`] when this node does not own it.
    pub fn log_state(&self, slot: Slot) -> Result<watch::Receiver<LogState>, SlotError> {
        Ok(self.runtime(slot)?.log.clone())
    }

    fn tell(&self, slot: Slot, epoch: Epoch, tell: impl FnOnce(&mut Untold)) {
        if let Place::Open(open) = &*self.inner.place(slot).lock()
            && open.epoch == epoch
        {
            open.runtime.signals.tell(tell);
        }
    }

    /// Opens the granted slots whose log holds what has not been carried to other slots yet (after a crash). Returns how many.
    ///
    /// # Errors
    /// [`SlotError`] when the store fails.
    pub async fn recover(&self) -> Result<usize, SlotError> {
        let is_granted = |slot: &Slot| matches!(&*self.inner.place(*slot).lock(), Place::Granted { .. });
        let granted: Vec<Slot> = Slot::all().filter(is_granted).collect();
        // All are looked at before one is opened: what that one carries at once would be found again in others.
        let mut unfinished = Vec::new();
        for slots in granted.chunks(RECOVERED_AT_ONCE) {
            // At once: where the store is far, each read of its own would be a round trip.
            let stored = self.inner.node.kv.transact(|txn| async move {
                let reads = slots.iter().map(|slot| {
                    let (txn, key) = (txn.clone(), keys::header(*slot));
                    async move { txn.snapshot_get(&key).await }
                });
                try_join_all(reads).await
            });
            for (slot, value) in slots.iter().zip(stored.await?) {
                let Some(value) = value else { continue };
                let header = decode_header(*slot, &value)?;
                if header.carried_index < header.last_index {
                    unfinished.push(*slot);
                }
            }
        }
        for slot in &unfinished {
            self.runtime(*slot)?;
        }
        Ok(unfinished.len())
    }

    /// Runs `body` as one command of the slot's writer. An error leaves no trace of the command. The answer comes when the
    /// entry is at or below the high watermark. `body` may run more than once and must not act outside of the transaction.
    ///
    /// # Errors
    /// What `body` returns, or a [`SlotError`]: not home, overloaded, too large, timed out, the store.
    pub async fn write<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<SlotError> + Send + 'static,
        F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.opening(slot)?.write(body).await
    }

    /// The way into the slot as it is open here now; opens it.
    ///
    /// # Errors
    /// [`SlotError::NotHome`] when this node does not own it.
    pub fn opening(&self, slot: Slot) -> Result<Opening, SlotError> {
        let runtime = self.runtime(slot)?;
        Ok(Opening {
            inner: self.inner.clone(),
            runtime,
        })
    }

    /// As [`Slots::write`], for what is in no hurry: waits up to [`SlotOptions::patience`] for other commands to be
    /// committed with, and leaves them half of each queue.
    ///
    /// # Errors
    /// As [`Slots::write`].
    pub async fn write_patiently<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<SlotError> + Send + 'static,
        F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.opening(slot)?.enqueue(body, true).await
    }

    /// Reads the slot in one snapshot; answers once the high watermark has passed the last entry that the snapshot holds.
    ///
    /// # Errors
    /// What `body` returns, or a [`SlotError`]: not home, timed out, the store.
    pub async fn read<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<SlotError> + Send,
        F: Fn(SlotRead) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let runtime = self.runtime(slot)?;
        let (value, last_index) = self.snapshot(slot, &runtime, body).await?;
        runtime
            .reached(last_index, self.inner.node.options.write_timeout)
            .await?;
        Ok(value)
    }

    /// As [`Slots::read`] without the wait: `body` itself leaves out what [`SlotRead::high_watermark`] has not passed.
    ///
    /// # Errors
    /// As [`Slots::read`].
    pub async fn read_filtered<T, E, F, Fut>(&self, slot: Slot, body: F) -> Result<T, E>
    where
        T: Send,
        E: From<SlotError> + Send,
        F: Fn(SlotRead) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let runtime = self.runtime(slot)?;
        let (value, _) = self.snapshot(slot, &runtime, body).await?;
        Ok(value)
    }

    async fn snapshot<T, E, F, Fut>(&self, slot: Slot, runtime: &Runtime, body: F) -> Result<(T, LogIndex), E>
    where
        T: Send,
        E: From<SlotError> + Send,
        F: Fn(SlotRead) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        // Taken before the snapshot: whatever it covers is in the snapshot too.
        let mut high_watermark = runtime.reached(0, self.inner.node.options.write_timeout).await?;
        if sabotage::is_broken(Rule::ReadsStopAtTheHighWatermark) {
            high_watermark = LogIndex::MAX;
        }
        let owner = runtime.owner;
        let header_key = keys::header(slot);
        let result = self
            .inner
            .node
            .kv
            .transact(|txn| {
                let value = body(SlotRead::new(txn.clone(), high_watermark));
                let header_key = &header_key;
                async move {
                    let header = match txn.snapshot_get(header_key).await? {
                        Some(header) => decode_header(slot, &header).map_err(|error| ReadError(error.into()))?,
                        None => {
                            return Err(ReadError(SlotError::NotHome { slot, epoch: 0 }.into()));
                        }
                    };
                    if header.owner != owner.as_slice() {
                        return Ok((None, header.epoch));
                    }
                    let value = value.await.map_err(ReadError)?;
                    Ok((Some((value, header.last_index)), header.epoch))
                }
            })
            .await;
        let (answer, fenced_by) = result.map_err(|ReadError(error)| error)?;
        let Some(answer) = answer else {
            // Its writer hears of it now, and not with its next batch.
            runtime.signals.tell(|untold| untold.withdrawn = Some(fenced_by));
            return Err(SlotError::NotHome { slot, epoch: fenced_by }.into());
        };
        if !self.inner.node.lease.is_valid() {
            return Err(SlotError::NoLease { slot, epoch: fenced_by }.into());
        }
        Ok(answer)
    }

    /// Waits until everything up to `index` has been carried to the other slots; false when `timeout` came first.
    pub async fn carried(&self, slot: Slot, index: LogIndex, timeout: Duration) -> bool {
        let Ok(runtime) = self.runtime(slot) else {
            return false;
        };
        let mut carried = runtime.carried.clone();
        let arrived = carried.wait_for(|carried| *carried >= index);
        matches!(time::timeout(timeout, arrived).await, Ok(Ok(_)))
    }

    /// How many slots are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.inner
            .places
            .iter()
            .filter(|place| matches!(&*place.lock(), Place::Open(_)))
            .count()
    }

    /// Stops taking commands, finishes what is queued, writes the cursors and ends every task.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    pub(crate) fn runtime(&self, slot: Slot) -> Result<Arc<Runtime>, SlotError> {
        if self.inner.closing.is_cancelled() {
            return Err(SlotError::Closed { slot });
        }
        let mut place = self.inner.place(slot).lock();
        match &*place {
            Place::Elsewhere { epoch } => Err(SlotError::NotHome { slot, epoch: *epoch }),
            Place::Open(open) => Ok(open.runtime.clone()),
            Place::Granted { epoch, in_sync } => {
                let (epoch, in_sync) = (*epoch, in_sync.clone());
                let runtime = self.open(slot, epoch, in_sync.clone());
                *place = Place::Open(Open {
                    epoch,
                    in_sync,
                    runtime: runtime.clone(),
                });
                Ok(runtime)
            }
        }
    }

    fn open(&self, slot: Slot, epoch: Epoch, in_sync: InSync) -> Arc<Runtime> {
        let (queue_sender, queue) = mpsc::channel(self.inner.node.options.queue_len_max);
        let (phase_sender, phase) = watch::channel(Phase::Opening);
        let (log_sender, log) = watch::channel(LogState::default());
        let (carried_sender, carried) = watch::channel(0);
        let signals = Arc::new(Signals::default());
        let owner = self.inner.opening();
        let grant = Grant { epoch, owner };
        let tells = Tells {
            phase: phase_sender,
            log: log_sender,
        };
        let writer = Writer::new(
            slot,
            grant,
            self.inner.node.clone(),
            queue,
            (tells, signals.clone()),
            carried_sender,
            self.inner.closing.clone(),
        );
        let tasks = self.inner.tasks.clone();
        let inner = Arc::downgrade(&self.inner);
        self.inner.tasks.spawn(async move {
            let put_away = |fenced_by| {
                if let Some(inner) = inner.upgrade() {
                    inner.left(slot, owner, fenced_by);
                }
            };
            writer.run(in_sync, tasks, put_away).await;
        });
        Arc::new(Runtime {
            slot,
            owner,
            queue: queue_sender,
            phase,
            carried,
            log,
            signals,
        })
    }
}

impl Opening {
    /// As [`Slots::write`].
    ///
    /// # Errors
    /// As [`Slots::write`].
    pub async fn write<T, E, F, Fut>(&self, body: F) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<SlotError> + Send + 'static,
        F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.enqueue(body, false).await
    }

    #[tracing::instrument(name = "slot.write", level = "debug", skip_all, fields(slot = self.runtime.slot.number()))]
    async fn enqueue<T, E, F, Fut>(&self, body: F, is_patient: bool) -> Result<Committed<T>, E>
    where
        T: Send + 'static,
        E: From<SlotError> + Send + 'static,
        F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (options, slot) = (&self.inner.node.options, self.runtime.slot);
        let overloaded = || {
            metrics::counter!("antiphon_slot_overloaded_total").increment(1);
            SlotError::Overloaded {
                slot,
                queue_len_max: options.queue_len_max,
                retry_after_ms: 100,
            }
        };
        if is_patient && self.runtime.queue.capacity() < options.queue_len_max / 2 {
            return Err(overloaded().into());
        }
        let leaves_room = !is_patient || self.inner.room.available_permits() > options.waiting_max / 2;
        let Some(_waits) = self.inner.room.try_acquire().ok().filter(|_| leaves_room) else {
            metrics::counter!("antiphon_slot_overloaded_total").increment(1);
            let (waiting_max, retry_after_ms) = (options.waiting_max, NODE_RETRY_MS);
            return Err(SlotError::NodeOverloaded {
                waiting_max,
                retry_after_ms,
            }
            .into());
        };
        let (command, answer) = command(body, is_patient);
        self.runtime.queue.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => self.runtime.gone(),
        })?;
        match time::timeout(options.write_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(SlotError::Closed { slot }.into()),
            Err(_) => {
                let timeout_ms = u64::try_from(options.write_timeout.as_millis()).unwrap_or(u64::MAX);
                Err(SlotError::Timeout { slot, timeout_ms }.into())
            }
        }
    }
}

impl Inner {
    #[allow(clippy::indexing_slicing, reason = "one place for each slot")]
    pub(crate) fn place(&self, slot: Slot) -> &Mutex<Place> {
        &self.places[usize::from(slot.number())]
    }

    /// The token of the next opening. One that opens a slot again, which was taken from it and given back, fences its own earlier
    /// opening too: that may have a commit under way.
    fn opening(&self) -> OwnerToken {
        let number = self.openings.fetch_add(1, Ordering::Relaxed);
        let token = u128::from_be_bytes(self.owner).wrapping_add(number.into());
        token.to_be_bytes()
    }

    /// The writer of an opening of `slot` has ended: fenced by another owner, or to be opened again at the next use.
    fn left(&self, slot: Slot, owner: OwnerToken, fenced_by: Option<Epoch>) {
        let mut place = self.place(slot).lock();
        if let Place::Open(open) = &*place
            && open.runtime.owner == owner
        {
            *place = match fenced_by {
                Some(epoch) => Place::Elsewhere { epoch },
                None => Place::Granted {
                    epoch: open.epoch,
                    in_sync: open.in_sync.clone(),
                },
            };
        }
    }
}

/// Lets a body's own error pass through a transaction whose errors must hold the store's.
struct ReadError<E>(E);

impl<E: From<SlotError>> From<KvError> for ReadError<E> {
    fn from(error: KvError) -> Self {
        Self(SlotError::from(error).into())
    }
}
