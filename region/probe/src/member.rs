//! One user at one edge, who writes in each of its conversations.

use std::{sync::Arc, time::Duration};

use antiphon_client::{Client, ClientOptions, Event as FromServer, SendError, Sending, Sent, Tokens, Transport};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Event, Recorder, Seen},
    measure::Measure,
};

/// A user's place: where it connects and where it talks.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) edge: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) tokens: Tokens,
    pub(crate) conversations: Vec<String>,
    /// The only transport to use; none: whichever gets through first.
    pub(crate) transport: Option<Transport>,
}

/// A seat that is taken. `session` is its number in the history: the SDK promises one gapless order across reconnects, so
/// all its connections count as one session.
pub(crate) struct Member {
    client: Client,
    events: mpsc::Receiver<FromServer>,
    user: String,
    name: String,
    conversations: Vec<String>,
    session: u64,
    recorder: Recorder,
    measure: Arc<Measure>,
    next: u64,
}

/// Sends of one conversation that a member has under way at once: far homes answer later than the next message is due.
const IN_FLIGHT: usize = 16;
/// The longest pause before a lost connection is tried again: a drill measures regions, not the patience of a phone.
const RECONNECT_MS_MAX: u64 = 1_000;
/// Over UDP nothing but silence tells of an edge that is gone; it is looked for as soon as TCP would tell.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the last frames of a session are waited for.
const LAST_EVENTS: Duration = Duration::from_secs(1);

impl Member {
    pub(crate) fn new(seat: &Seat, session: u64, recorder: Recorder, measure: Arc<Measure>) -> Self {
        let mut options = ClientOptions::new(&seat.edge, "probe");
        options.core.in_flight_per_conversation_max = IN_FLIGHT;
        options.reconnect_max_ms = RECONNECT_MS_MAX;
        options.transport = seat.transport;
        (options.keep_alive, options.silence_max) = (KEEP_ALIVE, SILENCE_MAX);
        options.cursors = seat.conversations.iter().map(|id| (id.clone(), 0)).collect();
        for conversation in &seat.conversations {
            recorder.note(Event::Resume {
                session,
                conversation: conversation.clone(),
                after_seq: 0,
            });
        }
        let (client, events, _) = Client::start(options, seat.tokens.clone());
        Self {
            client,
            events,
            user: seat.tokens.user_id.clone(),
            name: seat.username.clone(),
            conversations: seat.conversations.clone(),
            session,
            recorder,
            measure,
            next: 0,
        }
    }

    /// Sends until `stop_sending`, then listens until `leave`.
    pub(crate) async fn run(mut self, rate_per_s: f64, stop_sending: CancellationToken, leave: CancellationToken) {
        let turns = u32::try_from(self.conversations.len()).unwrap_or(u32::MAX).max(1);
        let period = Duration::from_secs_f64(1.0 / rate_per_s) / turns;
        // Members that all send at the same moment would be another load than the one asked for.
        let begins = Instant::now() + period.mul_f64(rand::random());
        let mut turn = interval_at(begins, period.max(Duration::from_micros(100)));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.hear(event),
                    None => break,
                },
                Some(_) = answers.join_next() => {}
                _ = turn.tick(), if !stop_sending.is_cancelled() => self.send(&mut answers),
            }
        }
        self.client.close().await;
        let last = async {
            while let Some(event) = self.events.recv().await {
                self.hear(event);
            }
        };
        let _ = tokio::time::timeout(LAST_EVENTS, last).await;
    }

    /// Sends the next message, in one conversation after the other.
    fn send(&mut self, answers: &mut JoinSet<()>) {
        let turn = usize::try_from(self.next).unwrap_or_default() % self.conversations.len().max(1);
        let Some(conversation) = self.conversations.get(turn) else {
            return;
        };
        let client_msg_id = format!("{}-{}", self.name, self.next);
        let text = format!("message {} of {}", self.next, self.name);
        // A full outbox is a message that this user could not write.
        let Ok(sending) = self.client.send_as(conversation, &client_msg_id, &text) else {
            return;
        };
        self.next += 1;
        self.recorder.note(Event::Send {
            session: self.session,
            user: self.user.clone(),
            conversation: conversation.clone(),
            client_msg_id,
            text,
        });
        let began = Instant::now();
        self.measure.sends(conversation, began);
        let answer = Answer {
            session: self.session,
            user: self.user.clone(),
            conversation: conversation.clone(),
            recorder: self.recorder.clone(),
            measure: self.measure.clone(),
        };
        answers.spawn(answer.wait(sending, began));
    }

    fn hear(&self, event: FromServer) {
        if let FromServer::Message(message) = event {
            self.recorder.note(Event::Push {
                session: self.session,
                message: Seen {
                    conversation: message.conversation_id,
                    seq: message.seq,
                    sender: message.sender_id,
                    client_msg_id: message.client_msg_id,
                    text: message.text,
                },
            });
        }
    }
}

/// Waits for what becomes of one message.
struct Answer {
    session: u64,
    user: String,
    conversation: String,
    recorder: Recorder,
    measure: Arc<Measure>,
}

impl Answer {
    async fn wait(self, sending: Sending, began: Instant) {
        match sending.sent().await {
            Ok(Sent {
                client_msg_id,
                seq,
                attempts,
                ..
            }) => {
                let times = (began, Instant::now());
                self.measure.acknowledged(&self.conversation, times, attempts);
                self.recorder.note(Event::Ack {
                    session: self.session,
                    user: self.user,
                    conversation: self.conversation,
                    client_msg_id,
                    seq,
                });
            }
            Err(SendError::Refused { code, message }) => {
                let why = format!("{code}: {message}");
                self.measure.refused(&self.conversation, &why, Instant::now());
            }
            // It stays unanswered.
            Err(SendError::Stopped) => {}
        }
    }
}
