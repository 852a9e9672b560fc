//! The one task that writes a slot: the shell around [`crate::protocol`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

use antiphon_kv::{Kv, KvError};
use antiphon_proto::log::Header;
use antiphon_types::{Epoch, LogIndex, Slot};
use parking_lot::Mutex;
use prost::Message as _;
use rand::random;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Span, debug_span, info, warn};

use crate::{
    Carrier, CommitObserver, CommittedEntry, SlotError, SlotOptions,
    batch::{Attempt, BatchError, Outcome, attempt, read_header},
    command::Command,
    courier::Courier,
    keys,
    protocol::{Fenced, Grant, Proposal, Protocol, Verdict},
    runtime::Phase,
};

/// What all slots of a node share.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) kv: Kv,
    pub(crate) options: SlotOptions,
    pub(crate) observers: Arc<[Arc<dyn CommitObserver>]>,
    pub(crate) carriers: Arc<[Arc<dyn Carrier>]>,
}

pub(crate) struct Writer {
    slot: Slot,
    grant: Grant,
    node: Node,
    queue: mpsc::Receiver<Arc<dyn Command>>,
    phase: watch::Sender<Phase>,
    carried: watch::Sender<LogIndex>,
    /// Up to where the courier is asked to carry.
    to_carry: watch::Sender<LogIndex>,
    /// Commands taken from the queue and not in a batch yet.
    taken: VecDeque<Arc<dyn Command>>,
    /// Answers that wait for the high watermark.
    held: VecDeque<Held>,
    closing: CancellationToken,
}

/// A committed batch above the high watermark.
struct Held {
    index: LogIndex,
    entry: Option<CommittedEntry>,
    commands: Vec<Arc<dyn Command>>,
}

/// The first and the longest pause between attempts at a store that does not answer.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Attempts to open a slot before its waiting commands are refused.
const OPEN_ATTEMPTS: u32 = 5;

impl Writer {
    pub(crate) fn new(
        slot: Slot,
        grant: Grant,
        node: Node,
        queue: mpsc::Receiver<Arc<dyn Command>>,
        phase: watch::Sender<Phase>,
        carried: watch::Sender<LogIndex>,
        closing: CancellationToken,
    ) -> Self {
        let (to_carry, taken, held) = (watch::Sender::new(0), VecDeque::new(), VecDeque::new());
        Self {
            slot,
            grant,
            node,
            queue,
            phase,
            carried,
            to_carry,
            taken,
            held,
            closing,
        }
    }

    /// Serves the slot until it is closed, fenced (returns the epoch that fenced it) or cannot be opened.
    pub(crate) async fn run(mut self, tasks: TaskTracker) -> Option<Epoch> {
        let mut protocol = match self.open().await {
            Ok(protocol) => protocol,
            Err(error) => return self.end(error),
        };
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
        self.to_carry.send_replace(protocol.high_watermark());
        self.phase.send_replace(Phase::Serving(protocol.high_watermark()));
        let result = self.serve(&mut protocol).await;
        ended.cancel();
        match result {
            Ok(()) => self.end(BatchError::Slot(SlotError::Closed { slot: self.slot })),
            Err(error) => self.end(error),
        }
    }

    async fn open(&self) -> Result<Protocol, BatchError> {
        let mut pause = RETRY_PAUSE.0;
        let mut attempts = 1;
        loop {
            let opened = self.node.kv.transact(|txn| async move {
                let stored = read_header(&txn, self.slot).await?;
                let (protocol, header) =
                    Protocol::open(stored.as_ref(), self.grant, [], self.node.options.log_entries_kept)
                        .map_err(BatchError::Fenced)?;
                txn.set(keys::header(self.slot), header.encode_to_vec());
                Ok(protocol)
            });
            match opened.await {
                // An opening of unknown result may simply be done again: it moves nothing.
                Err(BatchError::Kv(error)) if attempts < OPEN_ATTEMPTS => {
                    warn!(slot = self.slot.number(), %error, attempts, "opening the slot failed; trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE.1);
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    async fn serve(&mut self, protocol: &mut Protocol) -> Result<(), BatchError> {
        let mut carried = self.carried.subscribe();
        let mut moved_at = Instant::now();
        loop {
            self.refill();
            if !self.taken.is_empty() {
                self.commit_batch(protocol).await?;
                moved_at = Instant::now();
                continue;
            }
            let flush_at = moved_at + self.node.options.flush_idle;
            tokio::select! {
                biased;
                command = self.queue.recv() => match command {
                    Some(command) => self.taken.push_back(command),
                    None => break,
                },
                Ok(()) = carried.changed() => {
                    protocol.carried(*carried.borrow_and_update());
                }
                () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                () = tokio::time::sleep_until(flush_at), if protocol.flush().is_some() => {
                    self.flush(protocol).await?;
                    moved_at = Instant::now();
                }
            }
        }
        protocol.carried(*carried.borrow_and_update());
        self.flush(protocol).await
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
        let spans: Vec<Span> = sampled(&commands, self.slot);
        let started = Instant::now();
        let proposal = protocol.propose(random());
        let done = match self.settle(protocol, &proposal, &commands).await {
            Ok(done) => done,
            Err(BatchError::Fenced(fenced)) => {
                self.taken.extend(commands);
                return Err(BatchError::Fenced(fenced));
            }
            Err(BatchError::Kv(error)) => {
                protocol.not_committed();
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
        if done.entry.is_some() {
            protocol.committed();
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
        &self,
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
                // Once a commit is unknown, no other failure settles it.
                Err(BatchError::Kv(error)) if unknown && !matches!(error, KvError::Closed) => {}
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

    /// Shows and answers what the high watermark has reached.
    fn release(&mut self, protocol: &mut Protocol) {
        let high_watermark = protocol.high_watermark();
        self.phase.send_if_modified(|phase| {
            let moved = !matches!(phase, Phase::Serving(shown) if *shown == high_watermark);
            *phase = Phase::Serving(high_watermark);
            moved
        });
        while self.held.front().is_some_and(|held| held.index <= high_watermark) {
            let Some(held) = self.held.pop_front() else {
                return;
            };
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
    fn end(&mut self, error: BatchError) -> Option<Epoch> {
        let slot = self.slot;
        let (error, fenced_by) = match error {
            BatchError::Fenced(Fenced { epoch }) => {
                info!(slot = slot.number(), epoch, "another owner has the slot");
                (SlotError::NotHome { slot, epoch }, Some(epoch))
            }
            BatchError::Kv(error) => (SlotError::Kv(error), None),
            BatchError::Slot(error) => (error, None),
        };
        self.phase.send_replace(match fenced_by {
            Some(epoch) => Phase::Fenced(epoch),
            None => Phase::Ended(error.clone()),
        });
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.taken.push_back(command);
        }
        for held in self.held.drain(..) {
            self.taken.extend(held.commands);
        }
        for command in self.taken.drain(..) {
            command.fail(error.clone());
        }
        fenced_by
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
