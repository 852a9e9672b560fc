use std::{collections::BTreeMap, sync::Arc};

use antiphon_proto::{
    Codec,
    client::{self, Goaway, Limits, ServerFrame, Welcome, client_frame, server_frame::Body},
};
use antiphon_types::{ConversationId, ErrorCode, Seq, TimestampMs};

use crate::{
    Accepted, CloseReason, Incoming, Output, Push, Refusal, SessionOptions, Ticket,
    outbox::{Outbox, Overrun},
};

/// One session of a device. See the crate's documentation for its states.
#[derive(Debug)]
pub struct Session {
    pub(crate) codec: Codec,
    pub(crate) options: Arc<SessionOptions>,
    pub(crate) state: State,
    /// When the last frame of any kind came.
    pub(crate) heard_at_ms: TimestampMs,
    /// When the last request came that was no Ping.
    pub(crate) asked_at_ms: TimestampMs,
    pub(crate) malformed_in_a_row: u32,
    pub(crate) in_flight: usize,
    pub(crate) outbox: Outbox,
    /// Hello, Reauth or a request that the shell has not taken yet.
    pub(crate) to_shell: Option<Output>,
    /// Conversations that moved since the last Pong.
    pub(crate) moved: BTreeMap<ConversationId, Seq>,
    pub(crate) counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    AwaitHello {
        until_ms: TimestampMs,
    },
    Authenticating,
    Live {
        token_expires_at_ms: TimestampMs,
        told_expired: bool,
    },
    Draining {
        until_ms: TimestampMs,
        reason: CloseReason,
    },
    /// What is queued is still written, then the close.
    Closing(CloseReason),
    Closed,
}

/// What the session has done since it was last asked, for the shell's metrics.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Times that a conversation was marked as lagged.
    pub lagged: u64,
    /// Refusals that were told to the device; those beyond 64 between two calls are left out.
    pub refused: Vec<ErrorCode>,
}

impl Session {
    /// A session on a connection that has just been opened.
    #[must_use]
    pub fn new(codec: Codec, options: Arc<SessionOptions>, now_ms: TimestampMs) -> Self {
        Self {
            codec,
            state: State::AwaitHello {
                until_ms: now_ms.saturating_add(options.hello_timeout_ms),
            },
            options,
            heard_at_ms: now_ms,
            asked_at_ms: now_ms,
            malformed_in_a_row: 0,
            in_flight: 0,
            outbox: Outbox::default(),
            to_shell: None,
            moved: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// How frames of this session are written.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Takes one message of the transport. Call [`Session::poll_output`] until it has no more before the next one.
    pub fn handle_frame(&mut self, incoming: Incoming<'_>, now_ms: TimestampMs) {
        if self.is_over() {
            return;
        }
        self.heard_at_ms = now_ms;
        match incoming.decode(self.codec, self.options.frame_bytes_max) {
            Ok(frame) => {
                self.malformed_in_a_row = 0;
                // None is decoded that has no body.
                if let Some(body) = frame.body {
                    self.handle_body(frame.id, body, now_ms);
                }
            }
            Err(fault) => self.handle_fault(&fault),
        }
    }

    /// Takes a datagram: that somebody types, without an id, as nothing answers it. A datagram may be lost, come twice and overtake, so
    /// whatever else comes that way is dropped, and so is one that finds too many requests under way.
    pub fn handle_datagram(&mut self, bytes: &[u8], now_ms: TimestampMs) {
        if self.is_full() {
            return;
        }
        let incoming = match self.codec {
            Codec::Binary => Incoming::Binary(bytes),
            Codec::Json => match std::str::from_utf8(bytes) {
                Ok(text) => Incoming::Text(text),
                Err(_) => return,
            },
        };
        let Ok(frame) = incoming.decode(self.codec, self.options.frame_bytes_max) else {
            return;
        };
        if let (
            State::Live {
                told_expired: false, ..
            },
            Some(body @ client_frame::Body::Typing(_)),
            "",
        ) = (self.state, frame.body, frame.id.as_str())
        {
            self.heard_at_ms = now_ms;
            self.handle_body(String::new(), body, now_ms);
        }
    }

    /// Notes a sign of life of the transport itself (a WebSocket ping or pong).
    pub fn handle_sign_of_life(&mut self, now_ms: TimestampMs) {
        self.heard_at_ms = now_ms;
    }

    /// A message that the transport could not read. `fault` is told to the device before the close.
    pub fn handle_broken_transport(&mut self, fault: Refusal, reason: CloseReason) {
        if !self.is_over() {
            self.event_error(fault);
            self.close(reason);
        }
    }

    /// Lets time pass. Call it when [`Session::next_timeout_ms`] has come.
    pub fn handle_timeout(&mut self, now_ms: TimestampMs) {
        match self.state {
            State::AwaitHello { until_ms } if now_ms >= until_ms => {
                let message = format!("no hello came within {} ms", self.options.hello_timeout_ms);
                self.event_error(Refusal::new(ErrorCode::DeadlineExceeded, message));
                self.close(CloseReason::HelloTimeout);
            }
            State::Draining { until_ms, reason } if now_ms >= until_ms => self.close(reason),
            State::Live {
                token_expires_at_ms,
                told_expired,
            } => {
                self.handle_live_timeout(token_expires_at_ms, told_expired, now_ms);
            }
            State::AwaitHello { .. }
            | State::Authenticating
            | State::Draining { .. }
            | State::Closing(_)
            | State::Closed => {}
        }
    }

    /// When [`Session::handle_timeout`] is to be called next.
    #[must_use]
    pub fn next_timeout_ms(&self) -> Option<TimestampMs> {
        match self.state {
            State::AwaitHello { until_ms } | State::Draining { until_ms, .. } => Some(until_ms),
            State::Live {
                token_expires_at_ms,
                told_expired,
            } => {
                let token = if told_expired {
                    self.grace_ends_at_ms(token_expires_at_ms)
                } else {
                    token_expires_at_ms
                };
                Some(token.min(self.silent_at_ms()).min(self.idle_at_ms()))
            }
            State::Authenticating | State::Closing(_) | State::Closed => None,
        }
    }

    /// Answers Hello: the session is live. Pushes that came before are written after Welcome.
    pub fn accept(&mut self, ticket: Ticket, accepted: Accepted, now_ms: TimestampMs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.state != State::Authenticating {
            return;
        }
        (self.heard_at_ms, self.asked_at_ms) = (now_ms, now_ms);
        self.state = State::Live {
            token_expires_at_ms: accepted.token_expires_at_ms,
            told_expired: false,
        };
        let bounded = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let welcome = Welcome {
            user_id: accepted.user_id.to_string(),
            region: accepted.region,
            heartbeat_ms: self.options.heartbeat_ms,
            resumed: accepted.resumed,
            unavailable: accepted.unavailable,
            limits: Some(Limits {
                frame_bytes_max: bounded(self.options.frame_bytes_max),
                text_bytes_max: bounded(self.options.text_bytes_max),
                cursors_max: bounded(self.options.cursors_max),
            }),
            token_expires_at_ms: accepted.token_expires_at_ms,
            session_id: accepted.session_id,
            edges: accepted.edges,
        };
        let frame = ServerFrame {
            id: ticket.id.into(),
            body: Some(Body::Welcome(welcome)),
        };
        self.outbox.welcome(self.codec.encode(&frame));
    }

    /// Refuses Hello: the device is told why and the session ends.
    pub fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.state != State::Authenticating {
            return;
        }
        self.answer_refusal(ticket.id.into(), refusal);
        self.close(CloseReason::Refused);
    }

    /// Answers Reauth: the session lives as long as the new token.
    pub fn reauthenticated(&mut self, ticket: Ticket, token_expires_at_ms: TimestampMs) {
        if matches!(self.state, State::Live { .. }) {
            self.state = State::Live {
                token_expires_at_ms,
                told_expired: false,
            };
        }
        self.reply(ticket, Ok(Body::Ok(client::Ok {})));
    }

    /// Answers a request. A request without an id gets no answer but a refusal.
    pub fn reply(&mut self, ticket: Ticket, answer: Result<Body, Refusal>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.is_over() {
            return;
        }
        match answer {
            Ok(body) if !ticket.id.is_empty() => self.answer(ticket.id.into(), body),
            Ok(_) => {}
            Err(refusal) => self.answer_refusal(ticket.id.into(), refusal),
        }
    }

    /// Queues a push. Before Welcome it waits; after Goaway it is dropped, as the device resumes elsewhere.
    pub fn push(&mut self, push: Push) {
        if !matches!(self.state, State::Authenticating | State::Live { .. }) {
            return;
        }
        if let Push::Message {
            conversation_id,
            seq: tail,
            ..
        }
        | Push::Lagged {
            conversation_id,
            tail_seq: tail,
        } = &push
            && (self.moved.len() < self.options.pong_tails_max || self.moved.contains_key(conversation_id))
        {
            let moved = self.moved.entry(*conversation_id).or_default();
            *moved = (*tail).max(*moved);
        }
        let lagged_before = self.outbox.lagged_len();
        if self.outbox.push(push, &self.options) == Err(Overrun) {
            self.close_at_once(CloseReason::SlowReader);
        }
        if self.outbox.lagged_len() > lagged_before {
            self.counts.lagged += 1;
        }
    }

    /// Ends the session: lets requests in flight finish and closes. The device may come back to the same edge at once.
    pub fn go_away(&mut self, reason: CloseReason, now_ms: TimestampMs) {
        self.send_away(reason, 0, Vec::new(), now_ms);
    }

    /// As [`Session::go_away`]; asks the device to come back after `reconnect_after_ms`, to one of `edges` (base URLs, in the order in
    /// which it shall try them; without one to the same).
    pub fn send_away(&mut self, reason: CloseReason, reconnect_after_ms: u32, edges: Vec<String>, now_ms: TimestampMs) {
        match self.state {
            State::Live { .. } | State::Authenticating => {}
            State::AwaitHello { .. } => return self.close(reason),
            State::Draining { .. } | State::Closing(_) | State::Closed => return,
        }
        self.outbox.drop_pushes();
        self.state = State::Draining {
            until_ms: now_ms.saturating_add(self.options.drain_grace_ms),
            reason,
        };
        self.event(Body::Goaway(Goaway {
            reconnect_after_ms,
            reason: reason.as_str().to_owned(),
            edges,
        }));
    }

    /// Whether the shell should read on. A device that does not read its replies, or that has as many requests in flight as it
    /// may, is not read from meanwhile: it feels the back-pressure of its connection, and its requests stay in order.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.is_over()
            && self.outbox.reply_frames() < self.options.reply_frames_max
            && self.in_flight < self.options.in_flight_max
    }

    /// What is to be done next; `None` until something else has been handed in.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.state == State::Closed {
            return None;
        }
        if let Some(output) = self.to_shell.take() {
            return Some(output);
        }
        // Welcome is the first frame of a session: until then only the refusal of Hello is written.
        if self.state != State::Authenticating
            && let Some(output) = self.outbox.pop(self.codec, &self.options)
        {
            return Some(output);
        }
        match self.state {
            State::Draining { reason, .. } if self.in_flight == 0 => self.finish(reason),
            State::Closing(reason) => self.finish(reason),
            State::AwaitHello { .. }
            | State::Authenticating
            | State::Live { .. }
            | State::Draining { .. }
            | State::Closed => None,
        }
    }

    /// Whether every frame has been taken.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether the close has been handed out.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Frames and bytes of pushes and frames of replies that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize, usize) {
        (
            self.outbox.push_frames(),
            self.outbox.push_bytes(),
            self.outbox.reply_frames(),
        )
    }

    /// Takes the counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}
