//! One stream to one follower: takes what it asks for and holds, ships what it lacks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use antiphon_proto::{
    log::Write,
    rpc::{
        Append, CopyEnd, CopyPage, Cut, Fetch, FollowerFrame, FollowerFrames, FollowerHello, HomeFrame, HomeFrames,
        Refused, follower_frame, home_frame,
    },
};
use antiphon_slot::{SlotError, Slots, protocol::LogState};
use antiphon_types::{
    LogIndex, Slot,
    sabotage::{self, Rule},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::{Status, Streaming};
use tracing::{debug, info};

use super::{
    Dirty, Inner, StreamId,
    pages::{Answer, NextPage, Pages},
    watermarks::Watermarks,
};
use crate::parting::parts_behind;

/// Bytes of entries in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes of entries of one slot before it is another's turn, about.
const TURN_BYTES: usize = 64 << 10;
/// How often the distance to the follower is measured.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a high watermark waits for the next entry of its slot to tell it, at the least; at the most twice as long. The follower then
/// applies what it has passed in the commit that stores the entry (Kafka's followers hear it in the same way, with the next fetch).
/// Until then it does not know that it holds nothing more than was acknowledged: as the next home it shows the slot a little later.
const WATERMARK_DELAY: Duration = Duration::from_millis(100);
/// Frames of the follower that wait while a message is being made.
const INCOMING_MAX: usize = 64;

pub(crate) struct Follower {
    inner: Arc<Inner>,
    slots: Slots,
    region: u64,
    stream: StreamId,
    dirty: Arc<Dirty>,
    outgoing: mpsc::Sender<Result<HomeFrames, Status>>,
    followed: HashMap<Slot, Followed>,
    pages: Pages,
    credit: u64,
    /// Goes out with the next message; at most one for each frame of the follower.
    pending: Vec<home_frame::Body>,
    watermarks: Watermarks,
    /// Pings hold microseconds since then.
    began: Instant,
}

/// One slot as this follower has it.
struct Followed {
    epoch: u64,
    log: watch::Receiver<LogState>,
    sends: Sends,
    /// The high watermark that it was told last.
    told: LogIndex,
    /// Whether it is told the high watermark now, without an entry.
    is_due: bool,
}

/// What is sent of a slot.
enum Sends {
    /// Nothing before the slot is open here, under the follower's epoch.
    Waits(Box<Fetch>),
    /// Nothing before the follower has cut its log and fetches again.
    Cut,
    /// Entries from here on.
    Entries { next: LogIndex },
    /// A copy of the slot, because its log begins later than the follower's ends.
    Copy { after: Bytes, end: CopyEnd, page: NextPage },
}

impl Follower {
    pub(crate) fn new(
        inner: Arc<Inner>,
        slots: Slots,
        (hello, stream): (&FollowerHello, StreamId),
        dirty: Arc<Dirty>,
        outgoing: mpsc::Sender<Result<HomeFrames, Status>>,
    ) -> Self {
        Self {
            inner,
            slots,
            region: hello.region_id,
            stream,
            dirty,
            outgoing,
            followed: HashMap::new(),
            pages: Pages::default(),
            credit: hello.credit_bytes,
            pending: Vec::new(),
            watermarks: Watermarks::default(),
            began: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self, first: Vec<FollowerFrame>, incoming: Streaming<FollowerFrames>) {
        info!(region = self.region, "a region follows");
        let (frames, mut received) = mpsc::channel(INCOMING_MAX);
        let reading = read(incoming, frames);
        let mut ping = interval(PING_INTERVAL);
        let mut untold = interval(WATERMARK_DELAY);
        untold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let serving = async {
            for frame in first {
                if self.take(frame).is_err() {
                    return;
                }
            }
            loop {
                let has_work = !self.pending.is_empty() || self.credit > 0 && !self.dirty.is_empty();
                tokio::select! {
                    biased;
                    frame = received.recv() => match frame {
                        Some(frame) => if self.take(frame).is_err() { return },
                        None => return,
                    },
                    Some(asked) = self.pages.next() => self.page(asked),
                    _ = ping.tick() => {
                        let ping = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
                        self.pending.push(home_frame::Body::Ping(ping));
                        let copied = self.followed.iter().filter(|(_, followed)| matches!(followed.sends, Sends::Copy { .. }));
                        copied.for_each(|(slot, _)| self.dirty.mark(*slot));
                    }
                    _ = untold.tick(), if !self.watermarks.is_empty() => self.tell_watermarks(),
                    () = std::future::ready(()), if has_work => if self.ship().await.is_none() { return },
                    () = self.dirty.changed() => {}
                    () = self.outgoing.closed() => return,
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = serving => {}
        }
        info!(region = self.region, "a region follows no more");
        for slot in self.inner.progress.ended(self.stream) {
            if let Some(followed) = self.followed.get(&slot) {
                self.slots.left(slot, followed.epoch, self.region);
            }
        }
    }

    /// Takes one frame; an error ends the stream.
    fn take(&mut self, frame: FollowerFrame) -> Result<(), ()> {
        match frame.body.ok_or(())? {
            follower_frame::Body::Hello(_) => return Err(()),
            follower_frame::Body::Fetch(fetch) => {
                let slot = slot(fetch.slot)?;
                self.fetch(slot, fetch);
            }
            follower_frame::Body::Held(held) => {
                let slot = slot(held.slot)?;
                self.slots.held(slot, held.epoch, self.region, held.index);
                self.inner.progress.holds(slot, self.region, held.epoch, held.index);
            }
            follower_frame::Body::Leave(leave) => {
                let slot = slot(leave.slot)?;
                self.dirty.leave(slot);
                let has_left = self.inner.progress.left(slot, (self.region, self.stream));
                if let Some(followed) = self.followed.remove(&slot).filter(|_| has_left) {
                    self.slots.left(slot, followed.epoch, self.region);
                }
            }
            follower_frame::Body::Credit(credit) => self.credit = self.credit.saturating_add(credit.bytes),
            follower_frame::Body::Pong(ping) => {
                let round_trip = self.began.elapsed().saturating_sub(Duration::from_micros(ping));
                self.inner.progress.answered(self.region, round_trip);
            }
        }
        Ok(())
    }

    fn fetch(&mut self, slot: Slot, fetch: Fetch) {
        let Ok(log) = self.slots.log_state(slot) else {
            self.followed.remove(&slot);
            let refused = Refused {
                slot: slot.number().into(),
                epoch: 0,
            };
            self.pending.push(home_frame::Body::Refused(refused));
            return;
        };
        let followed = Followed {
            epoch: fetch.epoch,
            log,
            sends: Sends::Waits(Box::new(fetch)),
            told: 0,
            is_due: false,
        };
        self.followed.insert(slot, followed);
        self.dirty.follow(slot);
    }

    /// The high watermarks that no entry has told meanwhile go out now.
    fn tell_watermarks(&mut self) {
        for slot in self.watermarks.due() {
            if let Some(followed) = self.followed.get_mut(&slot) {
                followed.is_due = true;
                self.dirty.mark(slot);
            }
        }
    }

    /// Sends one message with what a few slots lack; `None` when the stream is gone.
    async fn ship(&mut self) -> Option<()> {
        let (mut frames, mut bytes) = (std::mem::take(&mut self.pending), 0);
        while bytes < MESSAGE_BYTES
            && self.credit > 0
            && let Some(slot) = self.dirty.next()
        {
            let Some(mut followed) = self.followed.remove(&slot) else {
                continue;
            };
            match self.step(slot, &mut followed).await {
                Ok(Step::Nothing) => {
                    self.followed.insert(slot, followed);
                }
                Ok(Step::Frame(frame, size, has_more)) => {
                    bytes += size;
                    self.credit = self.credit.saturating_sub(size as u64);
                    frames.push(frame);
                    self.followed.insert(slot, followed);
                    if has_more {
                        self.dirty.mark(slot);
                    }
                }
                Err(error) => {
                    debug!(slot = slot.number(), %error, "a slot cannot be followed here");
                    if self.inner.progress.is_followed_by(slot, (self.region, self.stream)) {
                        self.slots.left(slot, followed.epoch, self.region);
                    }
                    self.dirty.leave(slot);
                    let epoch = if let SlotError::NotHome { epoch, .. } = error {
                        epoch
                    } else {
                        0
                    };
                    let slot = slot.number().into();
                    frames.push(home_frame::Body::Refused(Refused { slot, epoch }));
                }
            }
        }
        if frames.is_empty() {
            return Some(());
        }
        metrics::counter!("antiphon_replication_shipped_bytes_total").increment(bytes as u64);
        self.outgoing.send(Ok(message(frames))).await.ok()
    }

    /// A page of a copy is there, or cannot be had now: then it is asked for again with the next ping.
    fn page(&mut self, ((slot, epoch, behind), result): Answer) {
        let Some(followed) = self.followed.get_mut(&slot).filter(|followed| followed.epoch == epoch) else {
            return;
        };
        let Sends::Copy { after, page, .. } = &mut followed.sends else {
            return;
        };
        if *after != behind {
            return;
        }
        *page = match result {
            Ok(Some(here)) => {
                self.dirty.mark(slot);
                NextPage::Here(here)
            }
            Ok(None) => NextPage::Wanted,
            Err(error) => {
                debug!(slot = slot.number(), %error, "a page of a copy cannot be read; trying again");
                NextPage::Wanted
            }
        };
    }

    async fn step(&mut self, slot: Slot, followed: &mut Followed) -> Result<Step, SlotError> {
        let log = followed.log.borrow_and_update().clone();
        if followed.log.has_changed().is_err() {
            return Err(SlotError::NotHome { slot, epoch: log.epoch });
        }
        if log.epoch == 0 {
            return Ok(Step::Nothing);
        }
        if log.epoch != followed.epoch {
            return Err(SlotError::NotHome { slot, epoch: log.epoch });
        }
        match &mut followed.sends {
            Sends::Waits(fetch) => {
                let (frame, sends) = self.begin(slot, fetch, &log);
                followed.sends = sends;
                let has_more = frame.is_none();
                if has_more {
                    self.dirty.mark(slot);
                }
                Ok(frame.map_or(Step::Nothing, |frame| Step::Frame(frame, 0, false)))
            }
            Sends::Cut => Ok(Step::Nothing),
            Sends::Entries { next } => {
                let (from, told) = (*next, followed.told);
                if from < log.first_index {
                    followed.sends = self.copy(slot, &log);
                    self.dirty.mark(slot);
                    return Ok(Step::Nothing);
                }
                if from > log.last_index && told >= log.high_watermark {
                    return Ok(Step::Nothing);
                }
                if from > log.last_index && !followed.is_due && !log.is_handed_over {
                    self.watermarks.moved(slot);
                    return Ok(Step::Nothing);
                }
                let entries = self.entries((slot, log.epoch), from, log.last_index).await?;
                *next += entries.len() as u64;
                (followed.told, followed.is_due) = (log.high_watermark, false);
                self.watermarks.told(slot);
                let has_more = *next <= log.last_index;
                let size = entries.iter().map(Bytes::len).sum();
                let append = Append {
                    slot: slot.number().into(),
                    epoch: log.epoch,
                    prev_index: from - 1,
                    entries,
                    first_index: log.first_index,
                    carried_index: log.carried_index,
                    high_watermark: log.high_watermark,
                };
                Ok(Step::Frame(home_frame::Body::Append(append), size, has_more))
            }
            Sends::Copy { after, end, page } => {
                let page = match std::mem::replace(page, NextPage::Asked) {
                    NextPage::Here(read) => read.page,
                    NextPage::Asked => return Ok(Step::Nothing),
                    NextPage::Wanted => {
                        self.pages
                            .read(&self.slots, (slot, log.epoch, after.clone()), end.last_index);
                        return Ok(Step::Nothing);
                    }
                };
                let is_last = !page.more;
                let pairs = page.pairs.into_iter().map(|pair| Write {
                    key: pair.key,
                    value: Some(pair.value),
                });
                let copy = CopyPage {
                    slot: slot.number().into(),
                    epoch: log.epoch,
                    begins: after.is_empty(),
                    end: is_last.then(|| end.clone()),
                    pairs: pairs.collect(),
                };
                match copy.pairs.last() {
                    Some(last) if !is_last => {
                        let (after, end) = (last.key.clone(), end.clone());
                        followed.sends = Sends::Copy {
                            after,
                            end,
                            page: NextPage::Wanted,
                        };
                    }
                    _ => {
                        followed.sends = Sends::Entries {
                            next: end.last_index + 1,
                        }
                    }
                }
                let size = copy.encoded_len();
                Ok(Step::Frame(home_frame::Body::CopyPage(copy), size, true))
            }
        }
    }

    /// Finds where to begin: with a cut, with entries, or with a copy.
    fn begin(&self, slot: Slot, fetch: &Fetch, log: &LogState) -> (Option<home_frame::Body>, Sends) {
        let follower = (self.region, self.stream);
        self.inner.progress.begins(slot, follower, log.epoch, Instant::now());
        let parts = parts_behind((&log.epochs, log.last_index), (&fetch.epochs, fetch.last_index));
        let keep = match sabotage::is_broken(Rule::LogsAreCut) {
            true => fetch.last_index.min(log.last_index),
            false => parts.unwrap_or(0),
        };
        if keep + 1 < log.first_index {
            return (None, self.copy(slot, log));
        }
        self.slots.follows(slot, log.epoch, self.region, keep + 1);
        if keep < fetch.last_index && !sabotage::is_broken(Rule::LogsAreCut) {
            let cut = Cut {
                slot: slot.number().into(),
                epoch: log.epoch,
                keep,
            };
            // The follower fetches again when it has cut.
            return (Some(home_frame::Body::Cut(cut)), Sends::Cut);
        }
        // It has promised this epoch, and what it has is the home's.
        self.slots.held(slot, log.epoch, self.region, keep);
        self.inner.progress.holds(slot, self.region, log.epoch, keep);
        (None, Sends::Entries { next: keep + 1 })
    }

    /// What a copy begins with: entries after the high watermark of now are sent on top of it.
    fn copy(&self, slot: Slot, log: &LogState) -> Sends {
        let last_index = self.slots.copy_end(slot, log);
        let mut epochs = log.epochs.clone();
        epochs.retain(|started| started.first_index <= last_index);
        Sends::Copy {
            after: Bytes::new(),
            end: CopyEnd {
                last_index,
                carried_index: log.carried_index.min(last_index),
                epochs,
            },
            page: NextPage::Wanted,
        }
    }

    async fn entries(
        &mut self,
        (slot, epoch): (Slot, u64),
        from: LogIndex,
        to: LogIndex,
    ) -> Result<Vec<Bytes>, SlotError> {
        if from > to {
            return Ok(Vec::new());
        }
        let recent = self.inner.recent.entries((slot, epoch), from, to, TURN_BYTES);
        if !recent.is_empty() {
            return Ok(recent);
        }
        self.inner.log.entries(slot, from, to, TURN_BYTES).await
    }
}

/// What one turn of a slot has come to: nothing, or a frame, its bytes, and whether there is more.
enum Step {
    Nothing,
    Frame(home_frame::Body, usize, bool),
}

/// Reads on whatever the stream is doing, so that what the follower holds is heard at once.
async fn read(mut incoming: Streaming<FollowerFrames>, frames: mpsc::Sender<FollowerFrame>) {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                for frame in message.frames {
                    if frames.send(frame).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => return,
            Err(status) => {
                debug!(code = ?status.code(), "a follower's stream broke");
                return;
            }
        }
    }
}

fn slot(number: u32) -> Result<Slot, ()> {
    u16::try_from(number).ok().and_then(Slot::new).ok_or(())
}

fn message(frames: Vec<home_frame::Body>) -> HomeFrames {
    HomeFrames {
        frames: frames.into_iter().map(|body| HomeFrame { body: Some(body) }).collect(),
    }
}
