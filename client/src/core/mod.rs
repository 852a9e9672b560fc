//! The session's rules as a value: no socket, no clock, no task.

mod connection;
mod conversation;
mod inbound;
mod marks;
mod options;
mod outbox;
mod output;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use antiphon_proto::client::{self, ClientFrame, Error, ServerFrame, client_frame, server_frame::Body};

use self::{conversation::Conversation, marks::Marks, outbox::Outbox};
pub use self::{
    options::CoreOptions,
    output::{Event, OutboxFull, Output, Request, SendError},
};

/// What a reply belongs to.
#[derive(Debug)]
enum Pending {
    Send { number: u64 },
    Mark { conversation_id: String, seq: u64 },
    Gap { conversation_id: String },
    App { number: u64 },
}

/// One account's session, across connections.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    conversations: HashMap<String, Conversation>,
    outbox: Outbox,
    marks: Marks,
    pending: HashMap<String, Pending>,
    outputs: VecDeque<Output>,
    is_connected: bool,
    next_number: u64,
    acked_at_ms: u64,
    own_id: String,
}

impl Core {
    /// A session that holds what `cursors` say.
    #[must_use]
    pub fn new(options: CoreOptions, cursors: impl IntoIterator<Item = (String, u64)>) -> Self {
        let conversations = cursors
            .into_iter()
            .map(|(id, seq)| (id, Conversation::holding(seq)))
            .collect();
        Self {
            outbox: Outbox::new(options.outbox_len_max, options.in_flight_per_conversation_max),
            marks: Marks::default(),
            options,
            conversations,
            pending: HashMap::new(),
            outputs: VecDeque::new(),
            is_connected: false,
            next_number: 1,
            acked_at_ms: 0,
            own_id: String::new(),
        }
    }

    /// Transmits a request and returns the number of its answer; a request made while there is no connection is refused.
    pub fn request(&mut self, request: Request) -> u64 {
        let number = self.number();
        if !self.is_connected {
            self.answer(number, Err(unavailable("there is no connection")));
            return number;
        }
        let body = match request {
            Request::Fetch(fetch) => client_frame::Body::Fetch(fetch),
            Request::Sync(sync) => client_frame::Body::Sync(sync),
            Request::Presence(query) => client_frame::Body::Presence(query),
            Request::Reauth(reauth) => client_frame::Body::Reauth(reauth),
        };
        self.ask(Pending::App { number }, body);
        number
    }

    /// Says that the user is typing, if there is a connection to say it on.
    pub fn typing(&mut self, conversation_id: String) {
        if self.is_connected {
            self.transmit(
                String::new(),
                client_frame::Body::Typing(client::Typing { conversation_id }),
            );
        }
    }

    /// Takes a frame of the server's.
    pub fn receive(&mut self, frame: ServerFrame, now_ms: u64) {
        let Some(body) = frame.body else { return };
        match body {
            Body::Message(message) => self.message(message, now_ms),
            Body::Receipt(receipt) => self.tell(Event::Receipt(receipt)),
            Body::Typing(typing) => self.tell(Event::Typing(typing)),
            Body::Conversation(change) => {
                if change.change == "removed" && change.user_id == self.own_id {
                    self.left(&change.conversation_id);
                }
                self.tell(Event::Conversation(change));
            }
            Body::Presence(presence) => self.tell(Event::Presence(presence)),
            Body::Lagged(lagged) => self.reaches(lagged.conversation_id, lagged.tail_seq, now_ms),
            Body::Pong(pong) => {
                for tail in pong.tails {
                    self.reaches(tail.conversation_id, tail.after_seq, now_ms);
                }
            }
            Body::Resumed(resumed) => self.resumed(resumed, now_ms),
            Body::Goaway(goaway) => self.outputs.push_back(Output::Goaway(goaway)),
            Body::Error(error) => self.refused(&frame.id, error, now_ms),
            body @ (Body::Welcome(_)
            | Body::Sent(_)
            | Body::Page(_)
            | Body::Conversations(_)
            | Body::Ok(_)
            | Body::Presences(_)) => self.replied(&frame.id, body, now_ms),
        }
    }

    /// Does what is due: gathered acknowledgements, fetches, sends and marks that were to wait.
    pub fn tick(&mut self, now_ms: u64) {
        if !self.is_connected {
            return;
        }
        if now_ms >= self.acked_at_ms + self.options.ack_interval_ms {
            self.acked_at_ms = now_ms;
            self.transmit_acks();
        }
        self.fetch_gaps(now_ms);
        self.transmit_outbox(now_ms);
        self.transmit_marks(now_ms);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn transmit(&mut self, id: String, body: client_frame::Body) {
        self.outputs
            .push_back(Output::Frame(ClientFrame { id, body: Some(body) }));
    }

    /// Transmits a frame whose reply belongs to `pending`.
    fn ask(&mut self, pending: Pending, body: client_frame::Body) {
        let id = self.number().to_string();
        self.pending.insert(id.clone(), pending);
        self.transmit(id, body);
    }

    const fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn replied(&mut self, id: &str, body: Body, now_ms: u64) {
        match (self.pending.remove(id), body) {
            (Some(Pending::Send { number }), Body::Sent(sent)) => self.sent(number, sent, now_ms),
            (Some(Pending::Mark { conversation_id, seq }), Body::Ok(_)) => self.marked(conversation_id, seq, now_ms),
            (Some(Pending::Gap { conversation_id }), Body::Page(page)) => self.page(conversation_id, page, now_ms),
            (Some(Pending::App { number }), body) => self.answer(number, Ok(Box::new(body))),
            (Some(Pending::Send { .. } | Pending::Mark { .. } | Pending::Gap { .. }) | None, _) => {}
        }
    }

    fn refused(&mut self, id: &str, error: Error, now_ms: u64) {
        let pending = self.pending.remove(id);
        let is_apps = matches!(pending, Some(Pending::App { .. }));
        if matches!(error.code.as_str(), "UNAUTHENTICATED" | "TOKEN_EXPIRED") && !is_apps {
            self.outputs.push_back(Output::Unauthenticated(error));
            return;
        }
        match pending {
            Some(Pending::Send { number }) => self.not_sent(number, error, now_ms),
            Some(Pending::Mark { conversation_id, seq }) => self.not_marked(conversation_id, seq, error, now_ms),
            Some(Pending::Gap { conversation_id }) => self.gap_refused(&conversation_id, &error, now_ms),
            Some(Pending::App { number }) => self.answer(number, Err(error)),
            None => {}
        }
    }

    fn answer(&mut self, number: u64, result: Result<Box<Body>, Error>) {
        self.outputs.push_back(Output::Answer { number, result });
    }
}

fn is_retryable(code: &str) -> bool {
    antiphon_types::ErrorCode::parse(code).is_retryable()
}

fn unavailable(message: &str) -> Error {
    Error {
        code: "UNAVAILABLE".to_owned(),
        message: message.to_owned(),
        retry_after_ms: None,
    }
}
