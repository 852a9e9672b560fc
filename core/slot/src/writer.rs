//! The one task that writes a slot: the shell around [`crate::protocol`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

use antiphon_kv::KvError;
use antiphon_proto::log::Header;
use antiphon_types::{Epoch, LogIndex, Slot};
use parking_lot::Mutex;
use prost::Message as _;
use rand::random;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Span, debug, debug_span, info, warn};

use crate::{
    CommittedEntry, SlotError,
    batch::{Attempt, BatchError, Outcome, attempt, read_header},
    command::Command,
    courier::Courier,
    keys,
    node::Node,
    opening::open,
    protocol::{Fenced, Grant, InSync, LogState, Proposal, Protocol, Verdict},
    runtime::Phase,
    signals::{HandOver, Progress, Signals},
};

pub(crate) struct Writer {
    slot: Slot,
    grant: Grant,
    node: Node,
    queue: mpsc::Receiver<Arc<dyn Command>>,
    tells: Tells,
    signals: Arc<Signals>,
    carried: watch::Sender<LogIndex>,
    /// Up to where the courier is asked to carry.
    to_carry: watch::Sender<LogIndex>,
    /// Commands taken from the queue and not in a batch yet.
    taken: VecDeque<Arc<dyn Command>>,
    /// When they are committed at the latest, while none of them is in a hurry.
    waits_until: Option<Instant>,
    /// Answers that wait for the high watermark.
    held: VecDeque<Held>,
    /// Set while the slot is about to get another home: who is to be told when all is committed.
    handing_over: Option<Option<oneshot::Sender<()>>>,
    closing: CancellationToken,
}

/// Where the writer tells what it does.
pub(crate) struct Tells {
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) log: watch::Sender<LogState>,
}

/// A committed batch above the high watermark.
struct Held {
    index: LogIndex,
    entry: Option<CommittedEntry>,
    commands: Vec<Arc<dyn Command>>,
}

/// The first and the longest pause between attempts at a store that does not answer.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Batches that may wait for the in-sync set; with more, commands wait in the queue.
const HELD_MAX: usize = 256;

/// Under this target each entry whose commands are answered is logged at `debug`.
const ACKNOWLEDGES: &str = "antiphon_slot::acknowledges";

impl Writer {
    pub(crate) fn new(
        slot: Slot,
        grant: Grant,
        node: Node,
        queue: mpsc::Receiver<Arc<dyn Command>>,
        (tells, signals): (Tells, Arc<Signals>),
        carried: watch::Sender<LogIndex>,
        closing: CancellationToken,
    ) -> Self {
        let (to_carry, taken, held) = (watch::Sender::new(0), VecDeque::new(), VecDeque::new());
        Self {
            slot,
            grant,
            node,
            queue,
            tells,
            signals,
            carried,
            to_carry,
            taken,
            waits_until: None,
            held,
            handing_over: None,
            closing,
        }
    }

    /// Serves the slot until it is closed, fenced or cannot be opened. Then calls `put_away` with the epoch that fenced it, and refuses who
    /// waits after that: whoever is refused and asks again finds another opening.
    pub(crate) async fn run(mut self, in_sync: InSync, tasks: TaskTracker, put_away: impl FnOnce(Option<Epoch>)) {
        let error = match self.open_and_serve(&in_sync, &tasks).await {
            Ok(()) => BatchError::Slot(SlotError::Closed { slot: self.slot }),
            Err(error) => error,
        };
        put_away(fenced_by(&error));
        self.end(error);
    }

    async fn open_and_serve(&mut self, in_sync: &InSync, tasks: &TaskTracker) -> Result<(), BatchError> {
        let mut protocol = open(&self.node, self.slot, self.grant, in_sync).await?;
        self.carried.send_replace(protocol.carried_index());
        let ended = CancellationToken::new();
        if !self.node.carriers.is_empty() {
            let courier = Courier::new(
                self.slot,
                self.node.clone(),
                self.to_carry.subscribe(),
                self.carried.clone(),
                ended.clone().drop_guard(),
            );
            tasks.spawn(courier.run(ended.clone()));
        }
        self.release(&mut protocol);
        let result = self.serve(&mut protocol).await;
        ended.cancel();
        result
    }

    async fn serve(&mut self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let mut carried = self.carried.subscribe();
        let mut lease = self.node.lease.watch();
        let mut moved_at = Instant::now();
        loop {
            self.heed(protocol)?;
            let takes = self.handing_over.is_none() && self.held.len() < HELD_MAX;
            if takes {
                self.refill();
            }
            if self.is_batch_due() {
                self.waits_until = None;
                self.commit_batch(protocol).await?;
                moved_at = Instant::now();
                continue;
            }
            self.hand_over(protocol).await?;
            let flush_at = moved_at + self.node.options.flush_idle;
            let commit_at = self.waits_until.unwrap_or(flush_at);
            tokio::select! {
                biased;
                () = self.signals.changed() => {}
                command = self.queue.recv(), if takes || self.queue.is_closed() && self.handing_over.is_none() => match command {
                    Some(command) => self.taken.push_back(command),
                    None => break,
                },
                Ok(()) = lease.changed(), if !self.held.is_empty() => self.release(protocol),
                Ok(()) = carried.changed() => {
                    protocol.carried(*carried.borrow_and_update());
                }
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                // Another region may be home already: what is queued was not begun, and is not.
                () = std::future::ready(()), if self.queue.is_closed() && self.handing_over.is_some() => break,
                () = tokio::time::sleep_until(commit_at), if self.waits_until.is_some() => {}
                () = tokio::time::sleep_until(flush_at), if protocol.flush().is_some() => {
                    self.flush(protocol).await?;
                    moved_at = Instant::now();
                }
            }
        }
        protocol.carried(*carried.borrow_and_update());
        self.flush(protocol).await
    }

    /// Whether what was taken is to be committed now. What is in no hurry goes with the next that is, or when it has waited enough.
    fn is_batch_due(&mut self) -> bool {
        if self.taken.is_empty() {
            self.waits_until = None;
            return false;
        }
        let may_wait = self.taken.len() < self.node.options.batch_len_max
            && !self.queue.is_closed()
            && self.handing_over.is_none()
            && self.taken.iter().all(|command| command.is_patient());
        if !may_wait {
            return true;
        }
        let waits_until = *self
            .waits_until
            .get_or_insert_with(|| Instant::now() + self.node.options.patience);
        Instant::now() >= waits_until
    }

    /// Takes in what others have told.
    fn heed(&mut self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let untold = self.signals.take();
        if let Some(epoch) = untold.withdrawn {
            return Err(BatchError::Fenced(Fenced { epoch }));
        }
        let shown = |protocol: &Protocol| (protocol.high_watermark(), protocol.level(), protocol.is_settled());
        let before = shown(protocol);
        if let Some(in_sync) = untold.in_sync {
            protocol.set_in_sync(in_sync);
        }
        for (replica, held) in untold.replicas {
            match held {
                Progress::Holds(index) => {
                    protocol.replicated(replica, index);
                }
                Progress::Follows(index) => protocol.follows(replica, index),
                Progress::Left => protocol.left(replica),
            }
        }
        if shown(protocol) != before {
            self.release(protocol);
        }
        match untold.hand_over {
            Some(HandOver::Begin(done)) => self.handing_over = Some(Some(done)),
            Some(HandOver::Resume) if self.handing_over.take().is_some() => self.tell_phase(protocol),
            Some(HandOver::Resume) | None => {}
        }
        Ok(())
    }

    /// Once everything that was begun is committed: stops serving, and says so to who asked.
    async fn hand_over(&mut self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let is_done = self.held.is_empty() && protocol.high_watermark() == protocol.last_index();
        if let Some(done) = &mut self.handing_over
            && is_done
            && let Some(done) = done.take()
        {
            self.flush(protocol).await?;
            self.tells.phase.send_replace(Phase::HandedOver);
            self.ship(&self.tell_log(protocol));
            let _ = done.send(());
        }
        Ok(())
    }

    fn refill(&mut self) {
        while self.taken.len() < self.node.options.batch_len_max {
            let Ok(command) = self.queue.try_recv() else {
                return;
            };
            self.taken.push_back(command);
        }
    }

    async fn commit_batch(&mut self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let mut commands: Vec<_> = self.taken.drain(..).collect();
        if !protocol.accepts_writes() {
            let in_sync = protocol.in_sync();
            let (in_sync, min_in_sync) = (in_sync.confirmed, in_sync.min_in_sync);
            let slot = self.slot;
            refuse(
                &commands,
                &SlotError::TooFewInSync {
                    slot,
                    in_sync,
                    min_in_sync,
                },
            );
            return Ok(());
        }
        let spans: Vec<Span> = sampled(&commands, self.slot);
        let started = Instant::now();
        let proposal = protocol.propose(random());
        let done = match self.settle(protocol, &proposal, &commands).await {
            Ok(done) => done,
            Err(BatchError::Fenced(fenced)) => {
                self.taken.extend(commands);
                return Err(BatchError::Fenced(fenced));
            }
            Err(BatchError::Slot(error @ SlotError::Unsettled { epoch, .. })) => {
                refuse(&commands, &error);
                return Err(BatchError::Fenced(Fenced { epoch }));
            }
            Err(BatchError::Kv(error)) => {
                protocol.not_committed();
                self.refuse_waiting(&error);
                refuse(&commands, &SlotError::Kv(error));
                return Ok(());
            }
            Err(BatchError::Slot(error)) => {
                protocol.not_committed();
                refuse(&commands, &error);
                return Ok(());
            }
        };
        drop(spans);
        metrics::histogram!("antiphon_commit_seconds").record(started.elapsed().as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "a batch is short")]
        metrics::histogram!("antiphon_commit_batch_messages").record(done.taken as f64);

        for left in commands.drain(done.taken..).rev() {
            self.taken.push_front(left);
        }
        if let Some(entry) = &done.entry {
            protocol.committed();
            if let Some(shipping) = &self.node.shipping {
                shipping.appended(entry);
            }
        } else {
            protocol.not_committed();
        }
        self.held.push_back(Held {
            index: protocol.last_index(),
            entry: done.entry,
            commands,
        });
        self.release(protocol);
        Ok(())
    }

    /// Commits the proposal, and does not rest before it is known whether that happened.
    async fn settle(
        &mut self,
        protocol: &Protocol,
        proposal: &Proposal,
        commands: &[Arc<dyn Command>],
    ) -> Result<Attempt, BatchError> {
        let last_attempt = Mutex::new(Attempt::default());
        let mut pause = RETRY_PAUSE.0;
        let mut unknown = false;
        loop {
            let outcome = self.node.kv.transact(|txn| async {
                let bytes_max = self.node.options.entry_bytes_max;
                match attempt(self.slot, txn, protocol, proposal, commands, bytes_max).await? {
                    Outcome::AlreadyCommitted => Ok(()),
                    Outcome::Committed(attempt) => {
                        *last_attempt.lock() = attempt;
                        Ok(())
                    }
                }
            });
            match outcome.await {
                Ok(()) => return Ok(last_attempt.into_inner()),
                Err(BatchError::Kv(KvError::CommitUnknown)) => unknown = true,
                // Whoever has the slot now may have found it committed.
                Err(BatchError::Fenced(Fenced { epoch })) if unknown => {
                    return Err(BatchError::Slot(SlotError::Unsettled { slot: self.slot, epoch }));
                }
                // Once a commit is unknown, no other failure settles it.
                Err(BatchError::Kv(error)) if unknown && !matches!(error, KvError::Closed) => {
                    self.refuse_waiting(&error);
                }
                Err(error) => return Err(error),
            }
            warn!(
                slot = self.slot.number(),
                index = proposal.index,
                "the commit's result is unknown; looking it up"
            );
            metrics::counter!("antiphon_commit_unknown_total").increment(1);
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(RETRY_PAUSE.1),
                // The store may never answer again; whoever opens the slot next finds what became of it.
                () = self.closing.cancelled() => return Err(BatchError::Slot(SlotError::Closed { slot: self.slot })),
            }
        }
    }

    /// When the store does not answer: tells those who wait now, and not after a wait of their own. Nothing of theirs was begun.
    fn refuse_waiting(&mut self, error: &KvError) {
        if !error.is_unavailable() {
            return;
        }
        while let Ok(command) = self.queue.try_recv() {
            self.taken.push_back(command);
        }
        for command in self.taken.drain(..) {
            command.fail(SlotError::Kv(error.clone()));
        }
    }

    /// Shows and answers what the high watermark has reached, as long as the region may.
    fn release(&mut self, protocol: &mut Protocol) {
        let state = self.tell_log(protocol);
        self.tell_phase(protocol);
        self.ship(&state);
        let high_watermark = protocol.high_watermark();
        // What the log held when it was opened has no command here that waits; its events may not have been carried.
        let found = high_watermark.min(protocol.opened_at());
        self.to_carry.send_if_modified(|to_carry| {
            let is_news = *to_carry < found;
            *to_carry = found.max(*to_carry);
            is_news
        });
        while self.held.front().is_some_and(|held| held.index <= high_watermark) && self.node.lease.is_valid() {
            let Some(held) = self.held.pop_front() else {
                return;
            };
            if let Some(entry) = &held.entry {
                let (epoch, slot, index) = (entry.epoch, self.slot.number(), held.index);
                // Who judges I4 from outside reads these lines of all regions.
                debug!(target: ACKNOWLEDGES, slot, epoch, index, "the commands of an entry are answered");
            }
            for command in &held.commands {
                command.answer(held.index);
            }
            if let Some(entry) = held.entry {
                for observer in self.node.observers.iter() {
                    observer.committed(&entry);
                }
                self.pass_to_courier(protocol, &entry);
            }
        }
    }

    fn tell_log(&self, protocol: &Protocol) -> LogState {
        let state = LogState {
            is_handed_over: matches!(*self.tells.phase.borrow(), Phase::HandedOver),
            ..protocol.log_state()
        };
        self.tells.log.send_replace(state.clone());
        state
    }

    /// When all is told: whoever ships looks at once, and is not told again when it has seen too little.
    fn ship(&self, state: &LogState) {
        if let Some(shipping) = &self.node.shipping {
            shipping.moved(self.slot, state);
        }
    }

    fn tell_phase(&self, protocol: &Protocol) {
        if !protocol.is_open() || matches!(self.handing_over, Some(None)) {
            return;
        }
        let high_watermark = protocol.high_watermark();
        self.tells.phase.send_if_modified(|phase| {
            let moved = !matches!(phase, Phase::Serving(shown) if *shown == high_watermark);
            *phase = Phase::Serving(high_watermark);
            moved
        });
    }

    fn pass_to_courier(&self, protocol: &mut Protocol, entry: &CommittedEntry) {
        let wanted = || {
            let wants = |event| self.node.carriers.iter().any(|carrier| carrier.wants(event));
            entry.events.iter().any(wants)
        };
        let is_idle = *self.carried.borrow() + 1 == entry.index;
        if is_idle && !wanted() {
            self.carried.send_replace(entry.index);
            protocol.carried(entry.index);
        } else {
            self.to_carry.send_replace(entry.index);
        }
    }

    /// Stores cursors that moved since the last commit.
    async fn flush(&self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let Some(header) = protocol.flush() else {
            return Ok(());
        };
        let (judge, new_header): (&Protocol, &Header) = (protocol, &header);
        let stored = self.node.kv.transact(|txn| async move {
            match judge.verdict(read_header(&txn, self.slot).await?.as_ref()) {
                Verdict::Proceed | Verdict::AlreadyCommitted => {}
                Verdict::Fenced(fenced) => return Err(BatchError::Fenced(fenced)),
            }
            txn.set(keys::header(self.slot), new_header.encode_to_vec());
            Ok(())
        });
        match stored.await {
            Ok(()) => protocol.flushed(&header),
            Err(BatchError::Fenced(fenced)) => return Err(BatchError::Fenced(fenced)),
            // The cursor is a hint of where to start again; the next commit carries it too.
            Err(error) => {
                warn!(slot = self.slot.number(), %error, "the cursor could not be stored");
            }
        }
        Ok(())
    }

    /// Refuses everybody who waits and says why the slot is gone.
    fn end(&mut self, error: BatchError) {
        let slot = self.slot;
        let fenced_by = fenced_by(&error);
        let error = match error {
            BatchError::Fenced(Fenced { epoch }) => {
                info!(slot = slot.number(), epoch, "another owner has the slot");
                SlotError::NotHome { slot, epoch }
            }
            BatchError::Kv(error) => SlotError::Kv(error),
            BatchError::Slot(error) => error,
        };
        self.tells.phase.send_replace(match fenced_by {
            Some(epoch) => Phase::Fenced(epoch),
            None => Phase::Ended(error.clone()),
        });
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.taken.push_back(command);
        }
        // What is held is stored, and perhaps with those who take over.
        let held_error = match fenced_by {
            Some(epoch) => SlotError::Unsettled { slot, epoch },
            None => error.clone(),
        };
        for held in self.held.drain(..) {
            refuse(&held.commands, &held_error);
        }
        for command in self.taken.drain(..) {
            command.fail(error.clone());
        }
    }
}

const fn fenced_by(error: &BatchError) -> Option<Epoch> {
    match error {
        BatchError::Fenced(Fenced { epoch }) => Some(*epoch),
        BatchError::Kv(_) | BatchError::Slot(_) => None,
    }
}

fn refuse(commands: &[Arc<dyn Command>], error: &SlotError) {
    for command in commands {
        command.fail(error.clone());
    }
}

/// A span under each sampled request, for the time that its batch takes to commit.
fn sampled(commands: &[Arc<dyn Command>], slot: Slot) -> Vec<Span> {
    let batch_len = commands.len();
    let sampled = commands.iter().filter(|command| !command.traceparent().is_empty());
    sampled
        .map(|command| debug_span!(parent: command.span(), "log.commit", slot = slot.number(), batch_len))
        .collect()
}
