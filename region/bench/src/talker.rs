use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_client::{Connector, Tokens};
use antiphon_proto::client::{ClientFrame, Message, Read, Send, ServerFrame, Typing, client_frame, server_frame::Body};
use anyhow::Result;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    device::{Device, request},
    figures::histogram,
    follower::{Came, Follower},
    rules::{Agreed, Broken, judge},
    times::{Shape, Times},
};

/// Of a day: messages that are announced, and looks at new messages that are followed by one at old ones.
const ANNOUNCED: f64 = 0.3;
const LOOKS_BACK: f64 = 0.02;
/// Of a day: between two losses of a device's connection, in the mean, and until it comes back, at most.
const LOST_EVERY: Duration = Duration::from_secs(60);
const AWAY_MAX: Duration = Duration::from_secs(5);
/// How long after something came a device acknowledges what it has, as the SDK does.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Requests that go with one write.
const AT_ONCE_MAX: usize = 64;
/// How often it looks whether it has everything, once nothing is sent any more.
const LAST_LOOKS_EVERY: Duration = Duration::from_secs(1);

/// What all devices have seen of what counts.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Of these, those that were not told when to try again.
    pub(crate) refused_for_good: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Until a message has come to one of its receivers; in this second, and in all.
    pub(crate) latest: Mutex<Histogram<u64>>,
    pub(crate) latencies: Mutex<Histogram<u64>>,
    /// Until it has come to the last of them.
    pub(crate) to_all: Mutex<Histogram<u64>>,
    /// What came otherwise than it was sent.
    pub(crate) broken: Broken,
}

/// One conversation, as its devices share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) members: usize,
    /// The highest seq that anybody has seen.
    pub(crate) tail_seq: AtomicU64,
    /// Requests that are not answered.
    pub(crate) asked: AtomicU64,
    /// Requests that were answered with a seq.
    pub(crate) sent: AtomicU64,
    /// By seq: how many have a message, while somebody lacks it.
    pub(crate) spreading: Mutex<HashMap<u64, usize>>,
    pub(crate) agreed: Agreed,
    /// Members who have something to send yet, before the end.
    pub(crate) speaking: AtomicUsize,
}

/// One user.
pub(crate) struct Talker {
    pub(crate) connector: Connector,
    pub(crate) url: String,
    pub(crate) user: Tokens,
    /// It writes to one after the other.
    pub(crate) conversations: Vec<Arc<Shared>>,
    pub(crate) follower: Follower,
    pub(crate) text_bytes: usize,
    /// When its next message is due, if it sends; and when it would be if all hours were the same.
    pub(crate) due: Option<Instant>,
    pub(crate) even: Duration,
    /// The number of its last message, which is its request's id.
    pub(crate) number: u64,
    pub(crate) first_that_counts: u64,
    /// What is not answered, and has to be sent again after an absence.
    pub(crate) pending: BTreeMap<u64, Send>,
}

/// Why a session ended.
enum Ended {
    /// Everybody has everything, or it took too long: so many messages are missing.
    Done(u64),
    /// Its connection was lost.
    Lost,
}

impl Shared {
    /// One that holds messages up to this seq.
    pub(crate) fn new(id: String, members: usize, tail_seq: u64) -> Self {
        Self {
            id,
            members,
            tail_seq: AtomicU64::new(tail_seq),
            asked: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            spreading: Mutex::new(HashMap::new()),
            agreed: Agreed::default(),
            speaking: AtomicUsize::new(0),
        }
    }
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_for_good: AtomicU64::new(0),
            received: AtomicU64::new(0),
            latest: Mutex::new(histogram()),
            latencies: Mutex::new(histogram()),
            to_all: Mutex::new(histogram()),
            broken: Broken::default(),
        }
    }
}

impl Talker {
    /// Talks until everybody has everything, or it takes too long. How many messages are missing.
    pub(crate) async fn talk(mut self, mut device: Device, times: Times, seen: &Seen) -> Result<u64> {
        loop {
            if let Ended::Done(missing) = self.session(&mut device, times, seen).await? {
                device.close().await;
                return Ok(missing);
            }
            drop(device);
            sleep(AWAY_MAX.mul_f64(rand::random())).await;
            let ids: Vec<String> = self.conversations.iter().map(|of| of.id.clone()).collect();
            let cursors = self.follower.cursors(&ids);
            let token = &self.user.access_token;
            let reopening = Device::reopen(&mut self.connector, &self.url, token, &cursors, times.given_up);
            let (reopened, refused) = reopening.await?;
            seen.refused.fetch_add(refused, Ordering::Relaxed);
            device = reopened;
            // Nobody has asked for pages in this session yet.
            self.follower.reconnected();
            for (number, send) in &self.pending {
                device.send(*number, client_frame::Body::Send(send.clone())).await?;
            }
        }
    }

    /// Sends what is due and takes what comes.
    async fn session(&mut self, device: &mut Device, times: Times, seen: &Seen) -> Result<Ended> {
        let mut pings = device.pings();
        // Timers of those to whom nothing comes would be most of what the load of many does.
        let mut look_at = None;
        let is_day = times.shape == Shape::Day;
        let lost_at = is_day.then(|| Instant::now() + LOST_EVERY.mul_f64(-rand::random::<f64>().max(1e-9).ln()));
        let mut read_seqs = vec![0; self.conversations.len()];
        // Where the edge was told to go on.
        let mut pushed_seqs: Vec<u64> = self
            .conversations
            .iter()
            .map(|of| self.follower.whole(&of.id))
            .collect();
        loop {
            tokio::select! {
                frame = device.receive() => {
                    let frame = frame?;
                    judge(&frame, &self.conversations, &mut pushed_seqs, &seen.broken);
                    match self.follower.take(device, frame).await? {
                        Came::Messages(messages) => messages.iter().for_each(|message| self.has(message, times, seen)),
                        Came::Frame(frame) => self.answered(&frame, seen),
                    }
                    look_at = look_at.or_else(|| Some(Instant::now() + LOOK_AFTER));
                }
                _ = pings.tick() => device.ping().await?,
                _ = moment(self.due), if self.due.is_some_and(|due| due < times.ends) => {
                    let requests = self.requests_due(times);
                    device.send_all(&requests).await?;
                }
                _ = moment(lost_at), if lost_at.is_some_and(|at| at < times.ends) => return Ok(Ended::Lost),
                _ = moment(look_at.or(Some(times.ends))) => {
                    let now = Instant::now();
                    look_at = (now >= times.ends).then(|| now + LAST_LOOKS_EVERY);
                    self.follower.acknowledge(device).await?;
                    self.follower.fetch_again(device).await?;
                    if is_day {
                        self.read(device, &mut read_seqs).await?;
                    }
                    if now >= times.ends {
                        if self.due.is_some_and(|due| due >= times.ends) {
                            self.due = None;
                            for of in &self.conversations {
                                of.speaking.fetch_sub(1, Ordering::Release);
                            }
                        }
                        // Before it looks for what is missing: an answer tells the last seq first.
                        let is_quiet = self.conversations.iter().all(|of| {
                            of.speaking.load(Ordering::Acquire) == 0 && of.asked.load(Ordering::Acquire) == 0
                        });
                        let missing = self.missing();
                        if missing == 0 && is_quiet {
                            return Ok(Ended::Done(0));
                        }
                        if now >= times.given_up {
                            // What it has not sent is as good as lost.
                            return Ok(Ended::Done(missing + u64::from(self.due.is_some())));
                        }
                    }
                }
            }
        }
    }

    /// What is due by now, which is more than one message where the load is late.
    fn requests_due(&mut self, times: Times) -> Vec<ClientFrame> {
        let now = Instant::now();
        let is_day = times.shape == Shape::Day;
        let mut requests = Vec::new();
        while let Some(due) = self.due.filter(|due| *due <= now && *due < times.ends)
            && requests.len() < AT_ONCE_MAX
        {
            self.number += 1;
            self.even += times.pause;
            self.due = Some(times.due(self.even));
            let Some(conversation) = self.conversation_of(self.number) else {
                continue;
            };
            if is_day && rand::random_bool(ANNOUNCED) {
                let conversation_id = conversation.id.clone();
                requests.push(request(0, client_frame::Body::Typing(Typing { conversation_id })));
            }
            if due >= times.counts {
                self.first_that_counts = self.first_that_counts.min(self.number);
            }
            let send = self.message(conversation.id.clone(), due, times.began);
            self.pending.insert(self.number, send.clone());
            conversation.asked.fetch_add(1, Ordering::Relaxed);
            requests.push(request(self.number, client_frame::Body::Send(send)));
        }
        requests
    }

    /// What its user does who has new messages; `read_seqs` is how far, in each conversation.
    async fn read(&mut self, device: &mut Device, read_seqs: &mut [u64]) -> Result<()> {
        for (conversation, read_seq) in self.conversations.iter().zip(read_seqs) {
            let whole_seq = self.follower.whole(&conversation.id);
            if whole_seq <= *read_seq {
                continue;
            }
            *read_seq = whole_seq;
            let read = Read {
                conversation_id: conversation.id.clone(),
                seq: whole_seq,
            };
            device.send(0, client_frame::Body::Read(read)).await?;
            if rand::random_bool(LOOKS_BACK) {
                self.follower.look_back(device, &conversation.id).await?;
            }
        }
        Ok(())
    }

    /// How many messages it lacks.
    fn missing(&self) -> u64 {
        let conversations = self.conversations.iter();
        let missing = conversations.map(|of| self.follower.missing(&of.id, of.tail_seq.load(Ordering::Relaxed)));
        missing.sum()
    }

    /// Where its message of this number goes.
    fn conversation_of(&self, number: u64) -> Option<Arc<Shared>> {
        let at = usize::try_from(number).ok()?.checked_rem(self.conversations.len())?;
        self.conversations.get(at).cloned()
    }

    /// A message of its own was answered.
    fn answered(&mut self, frame: &ServerFrame, seen: &Seen) {
        let Some(number) = frame.id.parse().ok().filter(|number| *number <= self.number) else {
            return;
        };
        let Some(conversation) = self.conversation_of(number) else {
            return;
        };
        let counts = u64::from(number >= self.first_that_counts);
        match &frame.body {
            Some(Body::Sent(sent)) => {
                let of = self.pending.get(&number);
                if of.is_none_or(|of| {
                    !conversation
                        .agreed
                        .on(sent.seq, &self.user.user_id, &of.client_msg_id, &of.text)
                }) {
                    seen.broken.tell(&format!(
                        "{}: {} is not what was acknowledged",
                        conversation.id, sent.seq
                    ));
                }
                conversation.tail_seq.fetch_max(sent.seq, Ordering::Relaxed);
                self.follower.hold(&conversation.id, sent.seq);
                conversation.sent.fetch_add(1, Ordering::Relaxed);
                seen.acknowledged.fetch_add(counts, Ordering::Relaxed);
            }
            Some(Body::Error(error)) => {
                seen.refused.fetch_add(counts, Ordering::Relaxed);
                let for_good = counts * u64::from(error.retry_after_ms.is_none());
                seen.refused_for_good.fetch_add(for_good, Ordering::Relaxed);
            }
            _ => return,
        }
        self.pending.remove(&number);
        conversation.asked.fetch_sub(1, Ordering::Release);
    }

    /// A message has come that the device had not.
    fn has(&self, message: &Message, times: Times, seen: &Seen) {
        let Some(conversation) = self.conversations.iter().find(|of| of.id == message.conversation_id) else {
            return;
        };
        conversation.tail_seq.fetch_max(message.seq, Ordering::Relaxed);
        if message.sender_id == self.user.user_id {
            return;
        }
        let Some(latency) = latency(message, times) else {
            return;
        };
        seen.received.fetch_add(1, Ordering::Relaxed);
        seen.latencies.lock().saturating_record(latency);
        seen.latest.lock().saturating_record(latency);
        let receivers = conversation.members - 1;
        if receivers > 1 {
            let mut spreading = conversation.spreading.lock();
            let have = spreading.entry(message.seq).or_default();
            *have += 1;
            if *have == receivers {
                spreading.remove(&message.seq);
                seen.to_all.lock().saturating_record(latency);
            }
        }
    }

    /// A message that says when it was due, in microseconds after the run began.
    fn message(&self, conversation_id: String, due: Instant, began: Instant) -> Send {
        let due_us = due.saturating_duration_since(began).as_micros();
        Send {
            conversation_id,
            client_msg_id: self.number.to_string(),
            text: format!("{due_us:<width$}", width = self.text_bytes),
        }
    }
}

/// When it has come; never without one.
async fn moment(due: Option<Instant>) -> Instant {
    let Some(due) = due else {
        return std::future::pending().await;
    };
    sleep_until(due).await;
    due
}

/// Microseconds from when a message was due until now, if it counts.
fn latency(message: &Message, times: Times) -> Option<u64> {
    let due_us = message.text.trim_end().parse().ok()?;
    let due = times.began + Duration::from_micros(due_us);
    let counts = due >= times.counts && due < times.ends;
    counts.then(|| u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use antiphon_client::{Codec, Transport};

    use super::*;
    use crate::connectors;

    #[tokio::test]
    async fn a_late_load_sends_all_that_is_due_at_once_and_nothing_that_is_not() {
        let now = Instant::now();
        let pause = Duration::from_secs(1);
        let times = |late: u32| Times {
            began: now - pause * late,
            counts: now - pause * late,
            ends: now + pause * 2,
            given_up: now + pause * 3,
            pause,
            shape: Shape::Even,
        };
        for (late, expected) in [(0, 1), (5, 6), (1_000, AT_ONCE_MAX)] {
            let (mut talker, times) = (talker(), times(late));
            talker.due = Some(times.began);
            let requests = talker.requests_due(times);
            assert_eq!(requests.len(), expected, "{late} s late");
            let numbers: Vec<u64> = requests.iter().map(|of| of.id.parse().unwrap()).collect();
            assert_eq!(numbers, Vec::from_iter(1..=u64::try_from(expected).unwrap()));
            let asked = talker.conversations[0].asked.load(Ordering::Relaxed);
            assert_eq!(asked, u64::try_from(expected).unwrap());
        }
    }

    #[tokio::test]
    async fn nothing_is_due_after_the_end() {
        let now = Instant::now();
        let pause = Duration::from_secs(1);
        let times = Times {
            began: now - pause * 5,
            counts: now - pause * 5,
            ends: now - pause * 2,
            given_up: now + pause,
            pause,
            shape: Shape::Even,
        };
        let mut talker = talker();
        talker.due = Some(times.began);
        // Five, four and three seconds ago; the next is at the end.
        assert_eq!(talker.requests_due(times).len(), 3);
        assert_eq!(talker.requests_due(times).len(), 0);
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_what_others_have_under_that_seq() {
        let (mut talker, seen) = (talker(), Seen::new());
        let now = Instant::now();
        for (number, text_of_others) in [(1, None), (2, Some("another"))] {
            let send = talker.message("chat".to_owned(), now, now);
            talker.number = number;
            talker.pending.insert(number, send);
            talker.conversations[0].asked.fetch_add(1, Ordering::Relaxed);
            if let Some(text) = text_of_others {
                talker.conversations[0].agreed.on(number, "alice", "1", text);
            }
            let sent = antiphon_proto::client::Sent {
                seq: number,
                ..Default::default()
            };
            let frame = ServerFrame {
                id: number.to_string(),
                body: Some(Body::Sent(sent)),
            };
            talker.answered(&frame, &seen);
            assert_eq!(seen.broken.count(), usize::from(text_of_others.is_some()));
        }
    }

    fn talker() -> Talker {
        Talker {
            connector: connectors::first(Transport::WebSocket, Codec::Binary, None),
            url: String::new(),
            user: Tokens {
                access_token: String::new(),
                refresh_token: String::new(),
                expires_in_s: 0,
                user_id: "alice".to_owned(),
            },
            conversations: vec![Arc::new(Shared::new("chat".to_owned(), 2, 0))],
            follower: Follower::default(),
            text_bytes: 16,
            due: None,
            even: Duration::ZERO,
            number: 0,
            first_that_counts: u64::MAX,
            pending: BTreeMap::new(),
        }
    }
}
