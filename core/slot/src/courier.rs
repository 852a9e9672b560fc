//! Carries what a slot's log holds for other slots, at least once, in the order of the log.

use std::{sync::Arc, time::Duration};

use antiphon_kv::{KvError, RangeRead};
use antiphon_proto::log::{Entry, Event};
use antiphon_types::{LogIndex, Slot, trace};
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, debug_span, warn};

use crate::{Carrier, SlotError, keys, node::Node};

/// Entries read from the log at once.
const PAGE_LEN: usize = 16;

/// Events of one entry that are under way at once.
const CONCURRENT_MAX: usize = 16;

/// The longest pause before an event is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Courier {
    slot: Slot,
    node: Node,
    to_carry: watch::Receiver<LogIndex>,
    carried: watch::Sender<LogIndex>,
    /// A courier that panicked must not leave a slot behind that never carries: its end is the writer's.
    _ended: DropGuard,
}

impl Courier {
    pub(crate) const fn new(
        slot: Slot,
        node: Node,
        to_carry: watch::Receiver<LogIndex>,
        carried: watch::Sender<LogIndex>,
        ended: DropGuard,
    ) -> Self {
        Self {
            slot,
            node,
            to_carry,
            carried,
            _ended: ended,
        }
    }

    pub(crate) async fn run(mut self, ended: CancellationToken) {
        loop {
            let up_to = *self.to_carry.borrow_and_update();
            let carry = self.carry_up_to(up_to);
            tokio::select! {
                () = ended.cancelled() => return,
                () = carry => {}
            }
            tokio::select! {
                () = ended.cancelled() => return,
                changed = self.to_carry.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn carry_up_to(&self, up_to: LogIndex) {
        let mut pause = Duration::from_millis(50);
        loop {
            let from = *self.carried.borrow() + 1;
            if from > up_to {
                return;
            }
            match self.page(from, up_to).await {
                Ok(entries) if entries.is_empty() => {
                    // Trimmed below the cursor cannot be: nothing above the cursor is ever trimmed.
                    warn!(
                        slot = self.slot.number(),
                        from, up_to, "the log ends before what is to be carried"
                    );
                    return;
                }
                Ok(entries) => {
                    for entry in entries {
                        self.carry_entry(&entry).await;
                        self.carried.send_replace(entry.index);
                    }
                }
                Err(error) => {
                    warn!(slot = self.slot.number(), %error, "the log could not be read; trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn page(&self, from: LogIndex, up_to: LogIndex) -> Result<Vec<Entry>, SlotError> {
        let (start, end) = (keys::log(self.slot, from), keys::log(self.slot, up_to + 1));
        let read = self.node.kv.transact(|txn| {
            let range = RangeRead {
                start: start.clone(),
                end: end.clone(),
                limit: PAGE_LEN,
                reverse: false,
            };
            async move { Ok::<_, KvError>(txn.snapshot_range(range).await?.pairs) }
        });
        let decode = |value| {
            Entry::decode(value).map_err(|error| SlotError::corrupt(format!("the log of {:?}", self.slot), &error))
        };
        read.await?.into_iter().map(|pair| decode(pair.value)).collect()
    }

    async fn carry_entry(&self, entry: &Entry) {
        let errands = entry.events.iter().flat_map(|event| {
            let wanting = self.node.carriers.iter().filter(|carrier| carrier.wants(event));
            wanting.map(move |carrier| (carrier.clone(), event.clone()))
        });
        let errands: Vec<_> = errands.collect();
        stream::iter(errands)
            .for_each_concurrent(CONCURRENT_MAX, |(carrier, event)| self.carry_event(carrier, event))
            .await;
    }

    async fn carry_event(&self, carrier: Arc<dyn Carrier>, event: Event) {
        let span = debug_span!("slot.carry", slot = self.slot.number());
        trace::continue_from(&span, &event.traceparent);
        let mut pause = Duration::from_millis(50);
        while let Err(error) = carrier.carry(event.clone()).instrument(span.clone()).await {
            warn!(slot = self.slot.number(), %error, "an event could not be carried; trying again");
            metrics::counter!("antiphon_carry_retries_total").increment(1);
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        metrics::counter!("antiphon_carried_total").increment(1);
    }
}
