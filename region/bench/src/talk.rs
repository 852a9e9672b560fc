use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_client::{Connector, Tokens, Transport};
use antiphon_proto::client::{Message, Read, Send, ServerFrame, Typing, client_frame, server_frame::Body};
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until},
};

use crate::{
    Figures, Say, Second, Server,
    device::Device,
    figures::{float, histogram, ms},
    follower::{Came, Follower},
    people::{self, Conversation, Progress},
    server::Watched,
    times::{Shape, Times},
    usage::Usage,
    write::fill,
};

/// Handshakes under way at once.
const AT_ONCE: usize = 32;
/// Between the last handshake and the first message.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long the last messages are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a day: messages that are announced, and looks at new messages that are followed by one at old ones.
const ANNOUNCED: f64 = 0.3;
const LOOKS_BACK: f64 = 0.02;
/// Of a day: between two losses of a device's connection, in the mean, and until it comes back, at most.
const LOST_EVERY: Duration = Duration::from_secs(60);
const AWAY_MAX: Duration = Duration::from_secs(5);
/// How often a device looks whether it has everything and acknowledges what it has, as the SDK does.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Conversations of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of each; every one of them is a user with one device, which is connected.
    pub members: usize,
    /// How many of them.
    pub conversations: usize,
}

/// Users who talk.
#[derive(Debug, Clone)]
pub struct TalkOptions {
    /// As the figures call it.
    pub scenario: &'static str,
    /// What they are connected over.
    pub transport: Transport,
    /// Their conversations.
    pub sizes: Vec<Size>,
    /// Who has them; each user has one of them alone otherwise.
    pub friends: Option<Friends>,
    /// How many members of each send; the others listen.
    pub speakers: usize,
    /// How the rate changes. In a day users do what else users do: they announce messages and read them, look back in their histories, lose
    /// their connections and return.
    pub shape: Shape,
    /// Messages a second, all of them together; of a day, in the mean; of an overload, at its height.
    pub rate_per_s: f64,
    /// Messages that all conversations together hold already, as many each.
    pub stored: u64,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How long messages are sent before anything counts.
    pub warm_up: Duration,
    /// How long what is sent counts.
    pub measured: Duration,
}

/// Users who have many direct conversations, in place of [`TalkOptions::sizes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Friends {
    /// How many users.
    pub users: usize,
    /// How many conversations among them, as many with each as can be.
    pub pairs: usize,
}

/// What all devices have seen of what counts.
#[derive(Debug)]
struct Seen {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// Of these, those that were not told when to try again.
    refused_for_good: AtomicU64,
    received: AtomicU64,
    /// Until a message has come to one of its receivers; in this second, and in all.
    latest: Mutex<Histogram<u64>>,
    latencies: Mutex<Histogram<u64>>,
    /// Until it has come to the last of them.
    to_all: Mutex<Histogram<u64>>,
}

/// One conversation, as its devices share it.
#[derive(Debug)]
struct Shared {
    id: String,
    members: usize,
    /// The highest seq that anybody has seen.
    tail_seq: AtomicU64,
    /// Requests that are not answered.
    asked: AtomicU64,
    /// Requests that were, with a message's seq or a refusal.
    answered: AtomicU64,
    /// By seq: how many have a message, while somebody lacks it.
    spreading: Mutex<HashMap<u64, usize>>,
}

/// One user.
struct Talker {
    connector: Connector,
    url: String,
    user: Tokens,
    /// It writes to one after the other.
    conversations: Vec<Arc<Shared>>,
    follower: Follower,
    text_bytes: usize,
    /// When its next message is due, if it sends; and when it would be if all hours were the same.
    due: Option<Instant>,
    even: Duration,
    /// The number of its last message, which is its request's id.
    number: u64,
    first_that_counts: u64,
    /// What is not answered and has to be sent again after an absence: of a day alone.
    pending: BTreeMap<u64, Send>,
}

impl TalkOptions {
    /// Messages that each conversation holds already.
    fn stored_each(&self) -> Result<u64> {
        let conversations = match self.friends {
            Some(friends) => friends.pairs,
            None => self.sizes.iter().map(|size| size.conversations).sum(),
        };
        Ok(self.stored / u64::try_from(conversations)?.max(1))
    }
}

/// Why a session ended.
enum Ended {
    /// Everybody has everything, or it took too long: so many messages are missing.
    Done(u64),
    /// Its connection was lost.
    Lost,
}

/// Users who send at fixed times, whatever becomes of it.
///
/// # Errors
/// When the conversations cannot be made, or a connection is lost.
pub async fn talk(server: &Server, options: &TalkOptions, say: Say) -> Result<Figures> {
    let mut talkers = talkers(server, options, say).await?;
    let of_talkers = talkers.iter().flat_map(|(_, talker)| &talker.conversations);
    let mut conversations: Vec<Arc<Shared>> = of_talkers.cloned().collect();
    conversations.sort_by(|a, b| a.id.cmp(&b.id));
    conversations.dedup_by(|a, b| a.id == b.id);
    let count = talkers.len();
    let began = Instant::now() + HEAD_START;
    let counts = began + options.warm_up;
    let ends = counts + options.measured;
    let speakers = talkers.iter().filter(|(_, talker)| talker.due.is_some()).count();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let pause = Duration::from_secs_f64(speakers as f64 / options.rate_per_s);
    let times = Times {
        began,
        counts,
        ends,
        given_up: ends + PATIENCE,
        pause,
        shape: options.shape,
    };
    let seen = Arc::new(Seen::new());
    let mut talking = JoinSet::new();
    for (at, (device, mut talker)) in talkers.drain(..).enumerate() {
        // Spread over the pause.
        talker.even = times.pause.mul_f64(rand::random::<f64>());
        talker.due = talker.due.map(|_| times.due(talker.even));
        let seen = seen.clone();
        talking.spawn(async move {
            talker
                .talk(device, times, &seen)
                .await
                .with_context(|| format!("user {at}"))
        });
    }
    let seconds = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn(watch(server.watched(), times, seen.clone(), seconds.clone(), say));
    sleep_until(counts).await;
    let (server_before, load_before) = (server.usage()?, Usage::of(std::process::id())?);
    sleep_until(ends).await;
    let (server_after, load_after) = (server.usage()?, Usage::of(std::process::id())?);

    let mut lost = 0;
    while let Some(missing) = talking.join_next().await {
        lost += missing??;
    }
    watching.abort();
    // What nobody has answered may be anywhere.
    lost += conversations
        .iter()
        .map(|of| of.asked.load(Ordering::Relaxed))
        .sum::<u64>();
    // Every seq is somebody's answer: what is over was stored twice.
    let stored = options.stored_each()?;
    let twice = |of: &Arc<Shared>| {
        let answered = of.answered.load(Ordering::Relaxed);
        of.tail_seq.load(Ordering::Relaxed).saturating_sub(answered + stored)
    };
    let measured = options.measured.as_secs_f64();
    let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
    let mut figures = Figures {
        scenario: options.scenario,
        transport: options.transport.name(),
        offered_per_s: Some(options.rate_per_s),
        messages_per_s: Some(float(acknowledged) / measured),
        deliveries_per_s: Some(float(seen.received.load(Ordering::Relaxed)) / measured),
        connections: Some(count),
        conversations: Some(conversations.len()),
        stored: Some(options.stored),
        refused: Some(seen.refused.load(Ordering::Relaxed)),
        refused_for_good: Some(seen.refused_for_good.load(Ordering::Relaxed)),
        lost: Some(lost),
        duplicated: Some(conversations.iter().map(twice).sum()),
        ..Figures::default()
    };
    figures.set_latencies(&seen.latencies.lock());
    let to_all = seen.to_all.lock();
    if !to_all.is_empty() {
        figures.to_all_p50_ms = Some(ms(&to_all, 0.5));
        figures.to_all_p99_ms = Some(ms(&to_all, 0.99));
    }
    figures.set_costs(acknowledged, server_after - server_before, load_after - load_before);
    let seconds = std::mem::take(&mut *seconds.lock());
    figures.server_rss_bytes_max = seconds.iter().map(|second| second.server_rss_bytes).max();
    figures.back_to_normal_ms = times.back_to_normal_ms(&seconds);
    figures.seconds = seconds;
    Ok(figures)
}

/// Tells each second what came in it.
async fn watch(
    server: Watched,
    times: Times,
    seen: Arc<Seen>,
    seconds: Arc<Mutex<Vec<Second>>>,
    say: Say,
) -> Result<()> {
    let mut ticks = interval_at(times.counts, Duration::from_secs(1));
    let (mut acknowledged_before, mut refused_before) = (0, 0);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
        let refused = seen.refused.load(Ordering::Relaxed);
        let latest = std::mem::replace(&mut *seen.latest.lock(), histogram());
        let usage = server.usage()?;
        let second = Second {
            at_s: times.counts.elapsed().as_secs_f64(),
            acknowledged: acknowledged - acknowledged_before,
            p99_ms: ms(&latest, 0.99),
            refused: refused - refused_before,
            server_rss_bytes: usage.rss_bytes,
            server_open_files: usage.open_files,
        };
        (acknowledged_before, refused_before) = (acknowledged, refused);
        say(&format!(
            "{:>5.0} s  {:>7} messages  p99 {:.1} ms  {} refused  server {} MiB, {} open files",
            second.at_s,
            second.acknowledged,
            second.p99_ms,
            second.refused,
            second.server_rss_bytes >> 20,
            second.server_open_files
        ));
        seconds.lock().push(second);
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_for_good: AtomicU64::new(0),
            received: AtomicU64::new(0),
            latest: Mutex::new(histogram()),
            latencies: Mutex::new(histogram()),
            to_all: Mutex::new(histogram()),
        }
    }
}

/// Makes the users and their conversations, and connects them.
async fn talkers(server: &Server, options: &TalkOptions, say: Say) -> Result<Vec<(Device, Talker)>> {
    let users: usize = match options.friends {
        Some(friends) => friends.users,
        None => options.sizes.iter().map(|size| size.members * size.conversations).sum(),
    };
    let is_rate = options.rate_per_s.is_finite() && options.rate_per_s > 0.0;
    if users == 0 || options.speakers == 0 || !is_rate {
        bail!(
            "{users} users, {} of each conversation speaking, cannot send {} messages a second",
            options.speakers,
            options.rate_per_s
        );
    }
    let conversations = match options.friends {
        Some(Friends { users, pairs }) => people::friends(server, users, pairs, say).await?,
        None => {
            let sizes = options.sizes.iter();
            let sizes = sizes.flat_map(|size| std::iter::repeat_n(size.members, size.conversations));
            people::conversations(server, sizes, say).await?
        }
    };
    let stored = options.stored_each()?;
    fill(server, &conversations, stored, options.text_bytes, say).await?;
    let mut talkers: Vec<Talker> = Vec::with_capacity(users);
    let mut known: HashMap<String, usize> = HashMap::with_capacity(users);
    for (number, conversation) in conversations.into_iter().enumerate() {
        let Conversation { id, members } = conversation;
        let shared = Arc::new(Shared {
            id,
            members: members.len(),
            tail_seq: AtomicU64::new(stored),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            spreading: Mutex::default(),
        });
        for (at, user) in members.into_iter().enumerate() {
            let place = *known.entry(user.user_id.clone()).or_insert(talkers.len());
            if place == talkers.len() {
                talkers.push(Talker {
                    connector: server.connector(options.transport)?,
                    // Members of one conversation are at different edges.
                    url: server.url(number + at).to_owned(),
                    user,
                    conversations: Vec::new(),
                    follower: Follower::default(),
                    text_bytes: options.text_bytes,
                    due: (at < options.speakers).then(Instant::now),
                    even: Duration::ZERO,
                    number: 0,
                    first_that_counts: u64::MAX,
                    pending: BTreeMap::new(),
                });
            }
            if let Some(talker) = talkers.get_mut(place) {
                talker.follower.holds(&shared.id, stored);
                talker.conversations.push(shared.clone());
            }
        }
    }
    connect(talkers, say).await
}

/// Connects all of them; none falls silent before the last is there.
async fn connect(talkers: Vec<Talker>, say: Say) -> Result<Vec<(Device, Talker)>> {
    let progress = Arc::new(Progress::new("devices connected", talkers.len(), say));
    let all_there = Arc::new(Barrier::new(talkers.len()));
    let handshakes = Arc::new(Semaphore::new(AT_ONCE));
    let mut connecting = JoinSet::new();
    for mut talker in talkers {
        let (progress, all_there, handshakes) = (progress.clone(), all_there.clone(), handshakes.clone());
        connecting.spawn(async move {
            let handshake = handshakes.acquire().await?;
            let token = &talker.user.access_token;
            let mut device = Device::open(&mut talker.connector, &talker.url, token, &[]).await?;
            drop(handshake);
            progress.step();
            device.stay(all_there.wait()).await?;
            Ok::<_, anyhow::Error>((device, talker))
        });
    }
    let mut connected = Vec::with_capacity(connecting.len());
    while let Some(device) = connecting.join_next().await {
        connected.push(device??);
    }
    Ok(connected)
}

impl Talker {
    /// Talks until everybody has everything, or it takes too long. How many messages are missing.
    async fn talk(mut self, mut device: Device, times: Times, seen: &Seen) -> Result<u64> {
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
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_day = times.shape == Shape::Day;
        let lost_at = is_day.then(|| Instant::now() + LOST_EVERY.mul_f64(-rand::random::<f64>().max(1e-9).ln()));
        let mut read_seqs = vec![0; self.conversations.len()];
        loop {
            tokio::select! {
                frame = device.receive() => match self.follower.take(device, frame?).await? {
                    Came::Messages(messages) => messages.iter().for_each(|message| self.has(message, times, seen)),
                    Came::Frame(frame) => self.answered(&frame, seen),
                },
                due = moment(self.due), if self.due.is_some_and(|due| due < times.ends) => {
                    self.number += 1;
                    let Some(conversation) = self.conversation_of(self.number) else { continue };
                    if is_day && rand::random_bool(ANNOUNCED) {
                        let typing = Typing { conversation_id: conversation.id.clone() };
                        device.send(0, client_frame::Body::Typing(typing)).await?;
                    }
                    if due >= times.counts {
                        self.first_that_counts = self.first_that_counts.min(self.number);
                    }
                    let send = self.message(conversation.id.clone(), due, times.began);
                    if is_day {
                        self.pending.insert(self.number, send.clone());
                    }
                    conversation.asked.fetch_add(1, Ordering::Relaxed);
                    device.send(self.number, client_frame::Body::Send(send)).await?;
                    self.even += times.pause;
                    self.due = Some(times.due(self.even));
                }
                _ = moment(lost_at), if lost_at.is_some_and(|at| at < times.ends) => return Ok(Ended::Lost),
                now = looks.tick() => {
                    self.follower.acknowledge(device).await?;
                    self.follower.fetch_again(device).await?;
                    if is_day {
                        self.read(device, &mut read_seqs).await?;
                    }
                    if now >= times.ends {
                        let missing = self.missing();
                        let is_all = missing == 0 && self.conversations.iter().all(|of| of.asked.load(Ordering::Relaxed) == 0);
                        if is_all || now >= times.given_up {
                            return Ok(Ended::Done(missing));
                        }
                    }
                }
            }
        }
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
                conversation.tail_seq.fetch_max(sent.seq, Ordering::Relaxed);
                self.follower.hold(&conversation.id, sent.seq);
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
        conversation.answered.fetch_add(1, Ordering::Relaxed);
        conversation.asked.fetch_sub(1, Ordering::Relaxed);
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
