//! One stream to one process of a home region, kept up.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use antiphon_directory::{Owner, Route};
use antiphon_proto::rpc::{FollowerHello, HomeFrame, HomeFrames, home_frame, replication_client::ReplicationClient};
use antiphon_slot::{ReplicaLog, SlotError};
use antiphon_types::{
    Epoch, Slot,
    sabotage::{self, Rule},
};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    Wanted,
    outgoing::Outgoing,
    salvage::Salvage,
    slot::{FollowedSlot, Says},
};
use crate::ReplicationOptions;

/// Slots whose frames are stored at once; their commits share fsyncs.
const SLOTS_AT_ONCE: usize = 128;
/// How long to wait before a slot is asked for again that the home refused, or that could not be stored.
const RETRY: Duration = Duration::from_millis(200);
/// A stream that lived this long starts its pauses from the shortest again.
const HEALTHY: Duration = Duration::from_secs(10);

pub(crate) struct Link {
    pub(crate) region: u64,
    pub(crate) home: Owner,
    pub(crate) route: Route,
    pub(crate) log: ReplicaLog,
    pub(crate) salvage: Salvage,
    pub(crate) options: ReplicationOptions,
    pub(crate) wanted: watch::Receiver<Wanted>,
}

/// A piece of work on one slot; the slot is lent to it.
enum Work {
    Fetch,
    Frame(home_frame::Body),
}

/// What a piece of work has come to, and the slot back.
struct Done {
    slot: FollowedSlot,
    result: Result<Option<Says>, SlotError>,
    /// Whether what was put aside here may be proposed again now: after a start, a cut or a copy.
    may_salvage: bool,
    /// Bytes that the home may send again.
    credit: u64,
}

impl Link {
    pub(crate) async fn run(mut self) {
        let mut attempt = 0;
        loop {
            if self.wanted.borrow().is_empty() && self.wanted.changed().await.is_err() {
                return;
            }
            let started = Instant::now();
            let status = self.follow().await;
            debug!(home = %self.home, %status, "the stream to the home broke; following again");
            metrics::counter!("antiphon_replication_reconnects_total").increment(1);
            attempt = if started.elapsed() > HEALTHY { 0 } else { attempt + 1 };
            let bound = self.options.reconnect_base * (1_u32 << attempt.min(10));
            sleep(
                bound
                    .min(self.options.reconnect_max)
                    .mul_f64(rand::random_range(0.0..1.0)),
            )
            .await;
        }
    }

    /// Follows until the stream ends; returns why.
    async fn follow(&mut self) -> Status {
        let hello = FollowerHello {
            region_id: self.region,
            credit_bytes: self.options.credit_bytes,
        };
        let outgoing = Outgoing::new(hello);
        let mut client =
            ReplicationClient::new(self.route.to_owner(&self.home)).max_decoding_message_size(crate::MESSAGE_BYTES_MAX);
        let frames = match client.follow(outgoing.clone().messages()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        info!(home = %self.home, "following");
        let mut followed = Followed {
            log: self.log.clone(),
            salvage: self.salvage.clone(),
            outgoing: outgoing.clone(),
            slots: HashMap::new(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            retries: Vec::new(),
            running: FuturesUnordered::new(),
        };
        let status = followed.run(&mut self.wanted, frames).await;
        outgoing.end();
        status
    }
}

/// The slots of one stream.
struct Followed {
    log: ReplicaLog,
    salvage: Salvage,
    outgoing: Arc<Outgoing>,
    /// `None` while a piece of work has it.
    slots: HashMap<Slot, (Epoch, Option<FollowedSlot>)>,
    waiting: HashMap<Slot, VecDeque<Work>>,
    /// Slots that wait for their turn.
    ready: VecDeque<Slot>,
    retries: Vec<(Instant, Slot)>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Followed {
    async fn run(&mut self, wanted: &mut watch::Receiver<Wanted>, mut frames: Streaming<HomeFrames>) -> Status {
        wanted.mark_changed();
        let mut retry = tokio::time::interval(RETRY);
        loop {
            self.start();
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return Status::cancelled("this region follows no more");
                    }
                    let now = wanted.borrow_and_update().clone();
                    self.want(&now);
                }
                frame = frames.message() => match frame {
                    Ok(Some(message)) => message.frames.into_iter().for_each(|frame| self.take(frame)),
                    Ok(None) => return Status::unavailable("the home ended the stream"),
                    Err(status) => return status,
                },
                Some(done) = self.running.next(), if !self.running.is_empty() => self.finish(done),
                _ = retry.tick() => self.retry(),
            }
        }
    }

    /// Follows what is wanted, under the epochs that are wanted.
    fn want(&mut self, wanted: &Wanted) {
        let gone: HashSet<Slot> = self
            .slots
            .keys()
            .filter(|slot| !wanted.contains_key(slot) && !sabotage::is_broken(Rule::OlderEpochsAreRefused))
            .copied()
            .collect();
        for slot in gone {
            self.slots.remove(&slot);
            self.forget_waiting(slot);
            self.outgoing.leave(slot.number().into());
        }
        for (slot, epoch) in wanted {
            if self.slots.get(slot).is_some_and(|(known, _)| known == epoch) {
                continue;
            }
            let followed = FollowedSlot::new(*slot, *epoch, self.log.clone());
            self.slots.insert(*slot, (*epoch, Some(followed)));
            self.forget_waiting(*slot);
            self.queue(*slot, Work::Fetch);
        }
    }

    /// Drops what came for a slot and is of no use any more; the home may send as much again.
    fn forget_waiting(&mut self, slot: Slot) {
        for work in self.waiting.remove(&slot).into_iter().flatten() {
            if let Work::Frame(body) = work {
                self.outgoing.credit(size(&body));
            }
        }
    }

    fn take(&mut self, frame: HomeFrame) {
        let Some(body) = frame.body else { return };
        let number = match &body {
            home_frame::Body::Append(append) => append.slot,
            home_frame::Body::Cut(cut) => cut.slot,
            home_frame::Body::CopyPage(page) => page.slot,
            home_frame::Body::Refused(refused) => refused.slot,
            home_frame::Body::Ping(number) => return self.outgoing.pong(*number),
        };
        let Some(slot) = u16::try_from(number).ok().and_then(Slot::new) else {
            return;
        };
        if let home_frame::Body::Refused(_) = body {
            self.retries.push((Instant::now() + RETRY, slot));
        } else if self.slots.contains_key(&slot) {
            self.queue(slot, Work::Frame(body));
        } else {
            self.outgoing.credit(size(&body));
        }
    }

    fn queue(&mut self, slot: Slot, work: Work) {
        let waiting = self.waiting.entry(slot).or_default();
        if waiting.is_empty() {
            self.ready.push_back(slot);
        }
        waiting.push_back(work);
    }

    /// Starts what is ready, one piece of work a slot.
    fn start(&mut self) {
        let mut busy = Vec::new();
        while self.running.len() < SLOTS_AT_ONCE
            && let Some(slot) = self.ready.pop_front()
        {
            let Some((_, lent)) = self.slots.get_mut(&slot) else {
                continue;
            };
            let Some(followed) = lent.take() else {
                busy.push(slot);
                continue;
            };
            let Some(work) = self.waiting.get_mut(&slot).and_then(VecDeque::pop_front) else {
                *lent = Some(followed);
                continue;
            };
            self.running.push(Box::pin(carry_out(followed, work)));
        }
        self.ready.extend(busy);
    }

    fn finish(&mut self, done: Done) {
        let slot = done.slot.slot;
        self.outgoing.credit(done.credit);
        let Some((epoch, lent)) = self.slots.get_mut(&slot) else {
            return;
        };
        // Under another epoch it is followed anew.
        if *epoch != done.slot.epoch {
            return;
        }
        *lent = Some(done.slot);
        if done.may_salvage && done.result.is_ok() {
            self.salvage.begin(slot, *epoch);
        }
        match done.result {
            Ok(Some(Says::Fetch(fetch))) => self.outgoing.fetch(fetch),
            Ok(Some(Says::Held(held))) => self.outgoing.held(held),
            Ok(None) => {}
            Err(error) => {
                warn!(slot = slot.number(), %error, "what the home sent could not be stored; asking again");
                self.retries.push((Instant::now() + RETRY, slot));
            }
        }
        if self.waiting.get(&slot).is_some_and(|waiting| !waiting.is_empty()) {
            self.ready.push_back(slot);
        }
    }

    fn retry(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = self.retries.drain(..).partition(|(at, _)| *at <= now);
        self.retries = later;
        for slot in due.into_iter().map(|(_, slot)| slot).collect::<HashSet<_>>() {
            if self.slots.contains_key(&slot) {
                self.queue(slot, Work::Fetch);
            }
        }
    }
}

async fn carry_out(mut slot: FollowedSlot, work: Work) -> Done {
    let (mut credit, mut copied) = (0, false);
    let result = match work {
        Work::Fetch => slot.fetch().await.map(Some),
        Work::Frame(body) => {
            credit = size(&body);
            match body {
                home_frame::Body::Append(append) => slot.append(append).await,
                home_frame::Body::Cut(cut) => slot.cut(cut).await,
                home_frame::Body::CopyPage(page) => {
                    copied = page.end.is_some();
                    slot.copy(page).await
                }
                home_frame::Body::Refused(_) | home_frame::Body::Ping(_) => Ok(None),
            }
        }
    };
    let may_salvage = copied || matches!(result, Ok(Some(Says::Fetch(_))));
    Done {
        slot,
        result,
        may_salvage,
        credit,
    }
}

/// What a frame has cost its home in credit.
fn size(body: &home_frame::Body) -> u64 {
    match body {
        home_frame::Body::Append(append) => append.entries.iter().map(|entry| entry.len() as u64).sum(),
        home_frame::Body::CopyPage(page) => page.encoded_len() as u64,
        home_frame::Body::Cut(_) | home_frame::Body::Refused(_) | home_frame::Body::Ping(_) => 0,
    }
}
