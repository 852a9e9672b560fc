use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_probe::{Event, Recorder};
use futures_util::SinkExt as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Person, RawSession, number, seen, session::hello, text};

/// Sends that may be unanswered at once.
const IN_FLIGHT: usize = 16;
/// An answer that takes longer is awaited no more: the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(10);
const BACK_OFF: std::ops::Range<u64> = 10..60;

/// What all clients count together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// One device: it sends all it has to, resends what was not acknowledged, and comes back with its cursors.
pub(crate) struct Client {
    pub(crate) person: Person,
    pub(crate) conversation: String,
    pub(crate) port: u16,
    pub(crate) recorder: Recorder,
    pub(crate) counts: Arc<Counts>,
    pub(crate) random: StdRng,
    /// What is still to be sent, and what was sent and not acknowledged.
    unsent: VecDeque<(String, String)>,
    unanswered: BTreeMap<String, (String, String)>,
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
        port: u16,
        messages: usize,
        seed: u64,
        shared: (Recorder, Arc<Counts>),
    ) -> Self {
        let unsent = (0..messages).map(|at| {
            (
                format!("{}-{at}", person.name),
                format!("message {at} of {}", person.name),
            )
        });
        Self {
            unsent: unsent.collect(),
            person,
            conversation,
            port,
            recorder: shared.0,
            counts: shared.1,
            random: StdRng::seed_from_u64(seed),
            unanswered: BTreeMap::new(),
            held_seq: 0,
            tail_seq: 0,
            is_fetching: false,
            next_frame: 0,
            session: 0,
        }
    }

    /// Runs until everything is acknowledged and everything up to `expected` messages of the conversation is held.
    pub(crate) async fn run(mut self, expected: u64, deadline: Instant) {
        while !self.is_done(expected) {
            assert!(
                Instant::now() < deadline,
                "{}: {} unsent, {} unanswered, holds seq {} of {expected}",
                self.person.name,
                self.unsent.len(),
                self.unanswered.len(),
                self.held_seq
            );
            if let Some(mut connection) = self.connect().await {
                self.converse(&mut connection, expected).await;
            }
            if !self.is_done(expected) {
                sleep(Duration::from_millis(self.random.random_range(BACK_OFF))).await;
            }
        }
    }

    fn is_done(&self, expected: u64) -> bool {
        self.unsent.is_empty() && self.unanswered.is_empty() && self.held_seq >= expected
    }

    /// A new session that resumes after what is held.
    async fn connect(&mut self) -> Option<RawSession> {
        let mut connection = timeout(ANSWER, RawSession::try_connect(self.port)).await.ok()?.ok()?;
        (self.tail_seq, self.is_fetching) = (self.held_seq, false);
        self.session = self.counts.sessions.fetch_add(1, Ordering::Relaxed);
        let cursors = [(self.conversation.as_str(), self.held_seq)];
        let body = hello(&self.person.token, &self.person.device_id, &cursors);
        let frame = json!({"id": "hello", "hello": body}).to_string();
        connection.socket.send(Message::text(frame)).await.ok()?;
        let welcome = connection.read(Instant::now() + ANSWER).await?;
        if !welcome["welcome"].is_object() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let resumed = welcome["welcome"]["resumed"].as_array();
        assert_eq!(resumed.map_or(0, Vec::len), 1, "a cursor without an answer: {welcome}");
        self.recorder.note(Event::Resume {
            session: self.session,
            conversation: self.conversation.clone(),
            after_seq: self.held_seq,
        });
        Some(connection)
    }

    /// Talks until all is done or the connection ends.
    async fn converse(&mut self, connection: &mut RawSession, expected: u64) -> Option<()> {
        // What was not acknowledged goes first, under the same clientMsgId.
        let mut under_way: BTreeMap<String, (String, String)> = BTreeMap::new();
        let lost = std::mem::take(&mut self.unanswered);
        self.counts.resent.fetch_add(lost.len() as u64, Ordering::Relaxed);
        for message in lost.into_values().rev() {
            self.unsent.push_front(message);
        }
        let mut last_heard = Instant::now();
        let mut held_at_ack = self.held_seq;
        while !self.is_done(expected) {
            while under_way.len() < IN_FLIGHT
                && let Some((client_msg_id, text)) = self.unsent.pop_front()
            {
                let id = self.next_id();
                self.note_send(&client_msg_id, &text);
                let body = json!({"conversationId": self.conversation, "clientMsgId": client_msg_id, "text": text});
                // Before it is written: what may have arrived counts as unanswered.
                self.unanswered
                    .insert(client_msg_id.clone(), (client_msg_id.clone(), text.clone()));
                under_way.insert(id.clone(), (client_msg_id, text));
                self.write(connection, &json!({"id": id, "send": body})).await?;
            }
            if self.held_seq >= held_at_ack + 50 {
                held_at_ack = self.held_seq;
                self.mark(connection).await?;
            }
            let Some(frame) = connection.read(Instant::now() + Duration::from_secs(1)).await else {
                // A second of silence, or the end.
                if last_heard.elapsed() > ANSWER {
                    return None;
                }
                let id = self.next_id();
                self.write(connection, &json!({"id": id, "ping": {}})).await?;
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
        under_way: &mut BTreeMap<String, (String, String)>,
    ) -> Option<()> {
        let asked = under_way.remove(frame["id"].as_str().unwrap_or_default());
        if let Some((client_msg_id, text)) = asked {
            if frame["sent"].is_object() {
                self.unanswered.remove(&client_msg_id);
                self.note_ack(client_msg_id, number(&frame["sent"]["seq"]));
            } else {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                self.unanswered.remove(&client_msg_id);
                self.unsent.push_front((client_msg_id, text));
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
        let writing = connection.socket.send(Message::text(frame.to_string()));
        timeout(ANSWER, writing).await.ok()?.ok()
    }

    fn next_id(&mut self) -> String {
        self.next_frame += 1;
        self.next_frame.to_string()
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
