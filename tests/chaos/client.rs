use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_probe::{Event, Recorder};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Person, RawSession, number, seen, session::hello, text};

/// Sends that may be unanswered at once.
const IN_FLIGHT: usize = 16;
/// An answer that takes longer is awaited no more: the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
const BACK_OFF: std::ops::Range<u64> = 10..60;
/// How long a refused message waits.
const REFUSED: std::ops::Range<u64> = 20..100;
/// Without a frame for so long a ping is sent.
const SILENCE: Duration = Duration::from_secs(1);

/// What all clients count together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// How long each message took from its first try to its acknowledgement.
    pub(crate) took_ms: Mutex<Vec<u64>>,
    /// What was refused: code, how often.
    pub(crate) refusals: Mutex<BTreeMap<String, u64>>,
}

/// What a device sends.
pub(crate) enum Load {
    /// So many messages as fast as they are taken; then it waits until its conversation has so many in all.
    Amount { messages: usize, in_all: u64 },
    /// One after each pause of so many milliseconds, until it is stopped.
    Paced {
        pause_ms: std::ops::Range<u64>,
        stop: CancellationToken,
    },
}

/// What is to be sent, or was sent and not acknowledged.
struct Message {
    client_msg_id: String,
    text: String,
    first_tried: Option<Instant>,
}

/// One device: it sends all it has to, resends what was not acknowledged, and comes back with its cursors.
pub(crate) struct Client {
    pub(crate) person: Person,
    pub(crate) conversation: String,
    /// The ports of the edges that it knows, the nearest one first.
    edges: Vec<u16>,
    pub(crate) recorder: Recorder,
    pub(crate) counts: Arc<Counts>,
    pub(crate) random: StdRng,
    load: Load,
    /// How many messages it has thought of.
    made: usize,
    next_at: Instant,
    /// What is still to be sent, and what was sent and not acknowledged, by clientMsgId.
    unsent: VecDeque<Message>,
    unanswered: BTreeMap<String, Message>,
    /// The last seq of what was pushed or fetched without a gap.
    held_seq: u64,
    /// The last seq that was heard of.
    tail_seq: u64,
    is_fetching: bool,
    next_frame: u64,
    session: u64,
}

impl Client {
    pub(crate) fn new(
        person: Person,
        conversation: String,
        edges: &[u16],
        load: Load,
        seed: u64,
        shared: (Recorder, Arc<Counts>),
    ) -> Self {
        let mut client = Self {
            person,
            conversation,
            edges: edges.to_vec(),
            recorder: shared.0,
            counts: shared.1,
            random: StdRng::seed_from_u64(seed),
            load,
            made: 0,
            next_at: Instant::now(),
            unsent: VecDeque::new(),
            unanswered: BTreeMap::new(),
            held_seq: 0,
            tail_seq: 0,
            is_fetching: false,
            next_frame: 0,
            session: 0,
        };
        if let Load::Amount { messages, .. } = client.load {
            (0..messages).for_each(|_| client.think_of_one());
        }
        client
    }

    /// Runs until everything is acknowledged and what there is to wait for has come.
    pub(crate) async fn run(mut self, deadline: Instant) {
        let mut edge = 0;
        while !self.is_done() {
            assert!(
                Instant::now() < deadline,
                "{}: {} unsent, {} unanswered, holds seq {} of {}",
                self.person.name,
                self.unsent.len(),
                self.unanswered.len(),
                self.held_seq,
                self.conversation
            );
            match self.connect(self.edges[edge]).await {
                // Whatever ended the session, the nearest edge is the first to be asked again.
                Some(mut connection) => {
                    self.converse(&mut connection).await;
                    edge = 0;
                }
                None => edge = (edge + 1) % self.edges.len(),
            }
            if !self.is_done() {
                sleep(Duration::from_millis(self.random.random_range(BACK_OFF))).await;
            }
        }
    }

    fn is_done(&self) -> bool {
        let has_all = match &self.load {
            Load::Amount { in_all, .. } => self.held_seq >= *in_all,
            Load::Paced { stop, .. } => stop.is_cancelled(),
        };
        has_all && self.unsent.is_empty() && self.unanswered.is_empty()
    }

    fn think_of_one(&mut self) {
        self.unsent.push_back(Message {
            client_msg_id: format!("{}-{}", self.person.name, self.made),
            text: format!("message {} of {}", self.made, self.person.name),
            first_tried: None,
        });
        self.made += 1;
    }

    /// What is to be sent now, if anything is.
    fn due(&mut self) -> Option<Message> {
        if Instant::now() < self.next_at {
            return None;
        }
        if let Load::Paced { pause_ms, stop } = &self.load
            && self.unsent.is_empty()
            && !stop.is_cancelled()
        {
            let pause = self.random.random_range(pause_ms.clone());
            self.next_at = Instant::now() + Duration::from_millis(pause);
            self.think_of_one();
        }
        self.unsent.pop_front()
    }

    /// A new session that resumes after what is held.
    async fn connect(&mut self, port: u16) -> Option<RawSession> {
        let mut connection = timeout(ANSWER, RawSession::try_connect(port)).await.ok()?.ok()?;
        (self.tail_seq, self.is_fetching) = (self.held_seq, false);
        self.session = self.counts.sessions.fetch_add(1, Ordering::Relaxed);
        let cursors = [(self.conversation.as_str(), self.held_seq)];
        let body = hello(&self.person.token, &self.person.device_id, &cursors);
        connection
            .wire
            .send(&json!({"id": "hello", "hello": body}))
            .await
            .ok()?;
        let welcome = connection.read(Instant::now() + ANSWER).await?;
        if !welcome["welcome"].is_object() {
            self.note_refusal("hello", &welcome);
            return None;
        }
        // One or the other, and never silence.
        let outcomes =
            ["resumed", "unavailable"].map(|outcome| welcome["welcome"][outcome].as_array().map_or(0, Vec::len));
        assert_eq!(
            outcomes.iter().sum::<usize>(),
            1,
            "a cursor without an answer: {welcome}"
        );
        self.recorder.note(Event::Resume {
            session: self.session,
            conversation: self.conversation.clone(),
            after_seq: self.held_seq,
        });
        Some(connection)
    }

    /// Talks until all is done or the connection ends.
    async fn converse(&mut self, connection: &mut RawSession) -> Option<()> {
        // What was not acknowledged goes first, under the same clientMsgId.
        let mut under_way: BTreeMap<String, String> = BTreeMap::new();
        let lost = std::mem::take(&mut self.unanswered);
        self.counts.resent.fetch_add(lost.len() as u64, Ordering::Relaxed);
        for message in lost.into_values().rev() {
            self.unsent.push_front(message);
        }
        let (mut last_heard, mut last_asked) = (Instant::now(), Instant::now());
        let mut held_at_ack = self.held_seq;
        while !self.is_done() {
            while under_way.len() < IN_FLIGHT
                && let Some(message) = self.due()
            {
                let id = self.next_id();
                self.note_send(&message.client_msg_id, &message.text);
                let body = json!({"conversationId": self.conversation, "clientMsgId": message.client_msg_id, "text": message.text});
                under_way.insert(id.clone(), message.client_msg_id.clone());
                // Before it is written: what may have arrived counts as unanswered.
                let first_tried = message.first_tried.or_else(|| Some(Instant::now()));
                self.unanswered
                    .insert(message.client_msg_id.clone(), Message { first_tried, ..message });
                self.write(connection, &json!({"id": id, "send": body})).await?;
            }
            if self.held_seq >= held_at_ack + 50 {
                held_at_ack = self.held_seq;
                self.mark(connection).await?;
            }
            let now = Instant::now();
            let wake = match under_way.len() < IN_FLIGHT && self.next_at > now {
                true => self.next_at.min(now + SILENCE),
                false => now + SILENCE,
            };
            let Some(frame) = connection.read(wake).await else {
                let now = Instant::now();
                if now < wake || last_heard + ANSWER < now {
                    return None;
                }
                if last_heard.max(last_asked) + SILENCE < now {
                    last_asked = now;
                    let id = self.next_id();
                    self.write(connection, &json!({"id": id, "ping": {}})).await?;
                    self.fetch(connection).await?;
                }
                continue;
            };
            last_heard = Instant::now();
            self.take(connection, &frame, &mut under_way).await?;
        }
        Some(())
    }

    async fn take(
        &mut self,
        connection: &mut RawSession,
        frame: &Value,
        under_way: &mut BTreeMap<String, String>,
    ) -> Option<()> {
        let asked = under_way.remove(frame["id"].as_str().unwrap_or_default());
        if let Some(message) = asked.and_then(|client_msg_id| self.unanswered.remove(&client_msg_id)) {
            if frame["sent"].is_object() {
                let took = message.first_tried.map_or(0, |tried| tried.elapsed().as_millis());
                self.counts.took_ms.lock().push(u64::try_from(took).unwrap_or(u64::MAX));
                self.note_ack(message.client_msg_id, number(&frame["sent"]["seq"]));
            } else {
                self.note_refusal("send", frame);
                self.unsent.push_front(message);
                let pause = Duration::from_millis(self.random.random_range(REFUSED));
                self.next_at = self.next_at.max(Instant::now() + pause);
            }
        } else if frame["message"].is_object() {
            let message = seen(&frame["message"]);
            self.tail_seq = self.tail_seq.max(message.seq);
            if message.seq == self.held_seq + 1 {
                self.held_seq = message.seq;
            }
            self.recorder.note(Event::Push {
                session: self.session,
                message,
            });
            self.fetch(connection).await?;
        } else if frame["lagged"].is_object() {
            let tail_seq = number(&frame["lagged"]["tailSeq"]);
            self.tail_seq = self.tail_seq.max(tail_seq);
            self.note_lagged(tail_seq);
            self.fetch(connection).await?;
        } else if frame["page"].is_object() {
            let last = frame["page"]["messages"]
                .as_array()
                .and_then(|messages| messages.last());
            self.held_seq = last.map_or(0, |message| number(&message["seq"])).max(self.held_seq);
            self.is_fetching = false;
            self.fetch(connection).await?;
        } else if frame["receipt"].is_object() {
            self.note_receipt(&frame["receipt"]);
        } else if frame["goaway"].is_object() {
            return None;
        } else if frame["error"].is_object() {
            // A fetch is asked for again after the next silence.
            self.is_fetching = false;
            self.note_refusal("other", frame);
        }
        Some(())
    }

    /// Fetches what is missing, if anything is and nothing is under way.
    async fn fetch(&mut self, connection: &mut RawSession) -> Option<()> {
        if self.is_fetching || self.held_seq >= self.tail_seq {
            return Some(());
        }
        self.is_fetching = true;
        let id = self.next_id();
        let body = json!({"conversationId": self.conversation, "afterSeq": self.held_seq.to_string()});
        self.write(connection, &json!({"id": id, "fetch": body})).await
    }

    /// Says how far this device holds and its user has read.
    async fn mark(&mut self, connection: &mut RawSession) -> Option<()> {
        let read_seq = self.random.random_range(0..=self.held_seq);
        let ack = json!({"conversationId": self.conversation, "deliveredSeq": self.held_seq.to_string()});
        self.write(connection, &json!({"id": "ack", "ack": ack})).await?;
        let read = json!({"conversationId": self.conversation, "seq": read_seq.to_string()});
        self.write(connection, &json!({"id": "read", "read": read})).await
    }

    async fn write(&self, connection: &mut RawSession, frame: &Value) -> Option<()> {
        timeout(ANSWER, connection.wire.send(frame)).await.ok()?.ok()
    }

    fn next_id(&mut self) -> String {
        self.next_frame += 1;
        self.next_frame.to_string()
    }

    fn note_refusal(&self, of: &str, frame: &Value) {
        let code = frame["error"]["code"].as_str().unwrap_or("?");
        *self.counts.refusals.lock().entry(format!("{of} {code}")).or_default() += 1;
        if of != "other" {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note_send(&self, client_msg_id: &str, text: &str) {
        self.recorder.note(Event::Send {
            session: self.session,
            user: self.person.id.clone(),
            conversation: self.conversation.clone(),
            client_msg_id: client_msg_id.to_owned(),
            text: text.to_owned(),
        });
    }

    fn note_ack(&self, client_msg_id: String, seq: u64) {
        self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.recorder.note(Event::Ack {
            session: self.session,
            user: self.person.id.clone(),
            conversation: self.conversation.clone(),
            client_msg_id,
            seq,
        });
    }

    fn note_lagged(&self, tail_seq: u64) {
        let conversation = self.conversation.clone();
        self.recorder.note(Event::Lagged {
            session: self.session,
            conversation,
            tail_seq,
        });
    }

    fn note_receipt(&self, receipt: &Value) {
        self.recorder.note(Event::Receipt {
            session: self.session,
            conversation: text(&receipt["conversationId"]),
            user: text(&receipt["userId"]),
            delivered_seq: number(&receipt["deliveredSeq"]),
            read_seq: number(&receipt["readSeq"]),
        });
    }
}
