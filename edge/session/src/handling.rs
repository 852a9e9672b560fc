//! What a session does with each frame and each passing of time.

use antiphon_proto::client::{self, Cursor, Pong, ServerFrame, server_frame::Body};
use antiphon_types::{ErrorCode, TimestampMs};

use crate::{
    CloseReason, FrameFault, Output, Refusal, Session, Ticket,
    outbox::Overrun,
    request::{self, Asked},
    session::State,
};

/// Refusals that are counted between two looks at the counts.
const COUNTED_MAX: usize = 64;

impl Session {
    pub(crate) fn handle_body(&mut self, id: String, body: client::client_frame::Body, now_ms: TimestampMs) {
        let asked = match request::read(body, self.options.text_bytes_max) {
            Ok(asked) => asked,
            Err(_) if matches!(self.state, State::AwaitHello { .. }) => {
                return self.handle_before_hello(id);
            }
            Err(refusal) => return self.answer_refusal(id, refusal),
        };
        match (self.state, asked) {
            (State::AwaitHello { .. }, Asked::Hello(hello)) => self.handle_hello(id, hello),
            (State::AwaitHello { .. }, _) => self.handle_before_hello(id),
            (State::Live { .. } | State::Authenticating | State::Draining { .. }, Asked::Hello(_)) => {
                self.refuse_request(id, ErrorCode::FailedPrecondition, "this session has said hello already");
            }
            (State::Live { .. } | State::Draining { .. }, Asked::Ping) => self.handle_ping(id),
            (State::Live { .. }, Asked::Reauth(access_token)) => {
                self.hand_out(id, |ticket| Output::Reauth { ticket, access_token });
            }
            (State::Live { told_expired: true, .. }, Asked::Send(_) | Asked::Request(_)) => {
                self.refuse_request(id, ErrorCode::TokenExpired, "the access token has expired; send reauth");
            }
            (State::Live { .. }, Asked::Send(send)) => {
                self.asked_at_ms = now_ms;
                self.hand_out(id, |ticket| Output::Send { ticket, send });
            }
            (State::Live { .. }, Asked::Request(request)) => {
                self.asked_at_ms = now_ms;
                self.hand_out(id, |ticket| Output::Request { ticket, request });
            }
            (State::Authenticating, _) => {
                self.refuse_request(id, ErrorCode::FailedPrecondition, "hello has not been answered yet");
            }
            (State::Draining { .. }, _) => {
                let refusal = Refusal::new(ErrorCode::Unavailable, "this session is going away").retry_after(0);
                self.answer_refusal(id, refusal);
            }
            (State::Closing(_) | State::Closed, _) => {}
        }
    }

    fn handle_hello(&mut self, id: String, hello: client::Hello) {
        match request::read_hello(hello, &self.options) {
            Ok(hello) => {
                self.in_flight += 1;
                self.state = State::Authenticating;
                self.to_shell = Some(Output::Hello(Ticket { id: id.into() }, Box::new(hello)));
            }
            Err(refusal) => {
                self.answer_refusal(id, refusal);
                self.close(CloseReason::Refused);
            }
        }
    }

    fn handle_before_hello(&mut self, id: String) {
        self.refuse_request(
            id,
            ErrorCode::FailedPrecondition,
            "the first frame of a session is hello",
        );
        self.close(CloseReason::HelloExpected);
    }

    fn handle_ping(&mut self, id: String) {
        let moved = std::mem::take(&mut self.moved);
        let tails = moved.into_iter().map(|(id, seq)| Cursor {
            conversation_id: id.to_string(),
            after_seq: seq,
        });
        // A Pong is written even without an id: it is what the device waits for.
        self.answer(id, Body::Pong(Pong { tails: tails.collect() }));
    }

    pub(crate) fn handle_fault(&mut self, fault: &FrameFault) {
        let id = match fault {
            FrameFault::NoBody { id } => id.clone(),
            FrameFault::WrongKind { .. } | FrameFault::TooLarge { .. } | FrameFault::Undecodable { .. } => {
                String::new()
            }
        };
        let code = if matches!(fault, FrameFault::TooLarge { .. }) {
            ErrorCode::TooLarge
        } else {
            ErrorCode::MalformedFrame
        };
        self.answer_refusal(id, Refusal::new(code, fault.to_string()));
        self.malformed_in_a_row += 1;
        if self.malformed_in_a_row >= self.options.malformed_max {
            self.close(CloseReason::Malformed);
        }
    }

    pub(crate) fn handle_live_timeout(
        &mut self,
        token_expires_at_ms: TimestampMs,
        told_expired: bool,
        now_ms: TimestampMs,
    ) {
        if now_ms >= self.silent_at_ms() {
            return self.close(CloseReason::Silent);
        }
        if now_ms >= self.grace_ends_at_ms(token_expires_at_ms) {
            return self.close(CloseReason::TokenExpired);
        }
        if now_ms >= token_expires_at_ms && !told_expired {
            self.state = State::Live {
                token_expires_at_ms,
                told_expired: true,
            };
            let message = format!(
                "the access token has expired; send reauth within {} ms",
                self.options.token_grace_ms
            );
            self.event_error(Refusal::new(ErrorCode::TokenExpired, message));
        }
        if now_ms >= self.idle_at_ms() {
            self.go_away(CloseReason::Idle, now_ms);
        }
    }

    pub(crate) fn silent_at_ms(&self) -> TimestampMs {
        self.heard_at_ms
            .saturating_add(u64::from(self.options.heartbeat_ms).saturating_mul(2))
    }

    pub(crate) fn idle_at_ms(&self) -> TimestampMs {
        match self.options.idle_timeout_ms {
            0 => TimestampMs::MAX,
            idle_timeout_ms => self.asked_at_ms.saturating_add(idle_timeout_ms),
        }
    }

    pub(crate) fn grace_ends_at_ms(&self, token_expires_at_ms: TimestampMs) -> TimestampMs {
        token_expires_at_ms.saturating_add(self.options.token_grace_ms)
    }

    /// Whether a request would be refused because too many are under way.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= self.options.in_flight_max || self.to_shell.is_some()
    }

    /// Gives a request to the shell, unless too many are under way.
    fn hand_out(&mut self, id: String, output: impl FnOnce(Ticket) -> Output) {
        if self.is_full() {
            let message = format!(
                "{} requests are in flight, the limit is {}",
                self.in_flight, self.options.in_flight_max
            );
            let refusal = Refusal::new(ErrorCode::ResourceExhausted, message).retry_after(100);
            return self.answer_refusal(id, refusal);
        }
        self.in_flight += 1;
        self.to_shell = Some(output(Ticket { id: id.into() }));
    }

    fn refuse_request(&mut self, id: String, code: ErrorCode, message: &str) {
        self.answer_refusal(id, Refusal::new(code, message));
    }

    pub(crate) fn event_error(&mut self, refusal: Refusal) {
        self.answer_refusal(String::new(), refusal);
    }

    pub(crate) fn answer_refusal(&mut self, id: String, refusal: Refusal) {
        if self.counts.refused.len() < COUNTED_MAX {
            self.counts.refused.push(refusal.code);
        }
        self.answer(id, refusal.into_body());
    }

    pub(crate) fn event(&mut self, body: Body) {
        self.answer(String::new(), body);
    }

    pub(crate) fn answer(&mut self, id: String, body: Body) {
        let frame = self.codec.encode(&ServerFrame { id, body: Some(body) });
        if self.outbox.reply(frame, &self.options) == Err(Overrun) {
            self.close_at_once(CloseReason::SlowReader);
        }
    }

    /// Ends the session once what is queued for the device, pushes aside, is written.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.outbox.drop_pushes();
        self.to_shell = None;
        if self.state != State::Closed {
            self.state = State::Closing(reason);
        }
    }

    /// Ends the session of a device that does not read: nothing more is written.
    pub(crate) fn close_at_once(&mut self, reason: CloseReason) {
        self.close(reason);
        self.outbox.clear();
    }

    pub(crate) fn finish(&mut self, reason: CloseReason) -> Option<Output> {
        self.state = State::Closed;
        self.outbox.clear();
        self.moved.clear();
        Some(Output::Close(reason))
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Closed)
    }
}
