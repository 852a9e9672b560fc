//! The session's rules as a value: no socket, no clock, no task.

mod conversation;
mod outbox;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use antiphon_proto::client::{
    self, Ack, ClientFrame, Cursor, Error, Fetch, Hello, Message, Page, ServerFrame, Welcome, client_frame,
    server_frame::Body,
};

use self::{
    conversation::{Conversation, Took},
    outbox::Outbox,
};

/// What the app is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session is open.
    Connected {
        /// The region of the edge.
        region: String,
    },
    /// The session is gone; another is tried.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The next message of its conversation.
    Message(Message),
    /// Retention has taken the messages before `from_seq`: they cannot be had any more.
    Truncated {
        /// The conversation.
        conversation_id: String,
        /// The first seq there is.
        from_seq: u64,
    },
    /// A member's delivered and read seq.
    Receipt(client::Receipt),
    /// Somebody is typing.
    Typing(client::TypingEvent),
    /// A membership changed.
    Conversation(client::ConversationEvent),
    /// A watched user came or went.
    Presence(client::Presence),
    /// The access token was renewed: what to log in with after a restart.
    Tokens(crate::Tokens),
    /// The log-in is over (revoked, or the refresh token has expired); the client has stopped.
    LoggedOut {
        /// Why.
        reason: String,
    },
}

/// A request of the app's that has one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A page of history.
    Fetch(Fetch),
    /// A page of conversations.
    Sync(client::Sync),
    /// The presence of users, watched from then on.
    Presence(client::PresenceQuery),
    /// A read mark.
    Read(client::Read),
    /// A new access token.
    Reauth(client::Reauth),
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The outbox is full.
    #[error("the outbox is full ({limit} messages wait)")]
    OutboxFull {
        /// Its bound.
        limit: usize,
    },
    /// The server refused it.
    #[error("{code}: {message}")]
    Refused {
        /// Upper snake case code.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Transmit a frame.
    Frame(ClientFrame),
    /// Tell the app.
    Event(Event),
    /// A message is durable.
    Sent {
        /// Which one.
        client_msg_id: String,
        /// Where it is.
        sent: client::Sent,
    },
    /// A message was refused for good.
    NotSent {
        /// Which one.
        client_msg_id: String,
        /// Why.
        error: SendError,
    },
    /// A request of the app's is answered.
    Answer {
        /// The number that [`Core::request`] gave it.
        number: u64,
        /// The answer, or the refusal.
        result: Result<Box<Body>, Error>,
    },
    /// The server asks to come back after this many milliseconds.
    Goaway(client::Goaway),
    /// The server does not take the access token (any more).
    Unauthenticated(Error),
}

/// Bounds and intervals of a session.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Messages that may wait for their answer.
    pub outbox_len_max: usize,
    /// Sends of one conversation under way at once. One keeps the order of sending whatever is refused in between; more is
    /// faster over a long way.
    pub in_flight_per_conversation_max: usize,
    /// How long delivered marks are gathered.
    pub ack_interval_ms: u64,
    /// How long the server may push what a resume said is missing before it is fetched.
    pub resume_patience_ms: u64,
    /// Messages of a fetched page.
    pub page_len: u32,
    /// Messages out of order that one conversation keeps.
    pub reorder_len_max: usize,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            outbox_len_max: 1_024,
            in_flight_per_conversation_max: 1,
            ack_interval_ms: 200,
            resume_patience_ms: 1_000,
            page_len: 200,
            reorder_len_max: 256,
        }
    }
}

/// What a reply belongs to.
#[derive(Debug)]
enum Pending {
    Send { client_msg_id: String },
    Gap { conversation_id: String },
    App { number: u64 },
}

/// One account's session, across connections.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    conversations: HashMap<String, Conversation>,
    outbox: Outbox,
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

    /// The first frame of a new connection.
    #[must_use]
    pub fn hello(&self, access_token: &str, device_id: &str, cursors_max: usize) -> ClientFrame {
        let cursors = self.cursors().into_iter().take(cursors_max);
        let cursors = cursors
            .map(|(conversation_id, after_seq)| Cursor {
                conversation_id,
                after_seq,
            })
            .collect();
        let hello = Hello {
            access_token: access_token.to_owned(),
            device_id: device_id.to_owned(),
            cursors,
        };
        ClientFrame {
            id: "hello".to_owned(),
            body: Some(client_frame::Body::Hello(hello)),
        }
    }

    /// The last seq held of each conversation: what to start the next process with.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, u64)> {
        self.conversations
            .iter()
            .filter_map(|(id, held)| Some((id.clone(), held.have()?)))
            .collect()
    }

    /// The server has welcomed the connection.
    pub fn connected(&mut self, welcome: Welcome, now_ms: u64) {
        self.is_connected = true;
        self.own_id = welcome.user_id;
        self.outputs
            .push_back(Output::Event(Event::Connected { region: welcome.region }));
        for resumed in welcome.resumed {
            let Some(conversation) = self.conversations.get_mut(&resumed.conversation_id) else {
                continue;
            };
            if let Some(from_seq) = resumed.truncated_from_seq
                && conversation.truncate(from_seq)
            {
                let conversation_id = resumed.conversation_id.clone();
                self.outputs.push_back(Output::Event(Event::Truncated {
                    conversation_id,
                    from_seq,
                }));
            }
            conversation.reaches(resumed.tail_seq, now_ms + self.options.resume_patience_ms);
        }
        self.transmit_outbox(now_ms);
    }

    /// The connection is gone. What was under way is sent again on the next one.
    pub fn disconnected(&mut self, reason: String) {
        if self.is_connected {
            self.outputs.push_back(Output::Event(Event::Disconnected { reason }));
        }
        self.is_connected = false;
        self.outbox.disconnected();
        for conversation in self.conversations.values_mut() {
            conversation.disconnected();
        }
        for (_, pending) in self.pending.drain() {
            if let Pending::App { number } = pending {
                let lost = Error {
                    code: "UNAVAILABLE".to_owned(),
                    message: "the connection was lost".to_owned(),
                    retry_after_ms: None,
                };
                self.outputs.push_back(Output::Answer {
                    number,
                    result: Err(lost),
                });
            }
        }
    }

    /// Takes a message to send.
    ///
    /// # Errors
    /// [`SendError::OutboxFull`].
    pub fn send(
        &mut self,
        conversation_id: String,
        client_msg_id: String,
        text: String,
        now_ms: u64,
    ) -> Result<(), SendError> {
        self.outbox.push(client::Send {
            conversation_id,
            client_msg_id,
            text,
        })?;
        self.transmit_outbox(now_ms);
        Ok(())
    }

    /// Transmits a request and returns the number of its answer; a request made while there is no connection is refused.
    pub fn request(&mut self, request: Request) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        if !self.is_connected {
            let message = "there is no connection".to_owned();
            let error = Error {
                code: "UNAVAILABLE".to_owned(),
                message,
                retry_after_ms: None,
            };
            self.outputs.push_back(Output::Answer {
                number,
                result: Err(error),
            });
            return number;
        }
        let body = match request {
            Request::Fetch(fetch) => client_frame::Body::Fetch(fetch),
            Request::Sync(sync) => client_frame::Body::Sync(sync),
            Request::Presence(query) => client_frame::Body::Presence(query),
            Request::Read(read) => client_frame::Body::Read(read),
            Request::Reauth(reauth) => client_frame::Body::Reauth(reauth),
        };
        let id = format!("r{number}");
        self.pending.insert(id.clone(), Pending::App { number });
        self.transmit(id, body);
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
                    self.conversations.remove(&change.conversation_id);
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

    /// Does what is due: gathered marks, fetches, sends that were to wait.
    pub fn tick(&mut self, now_ms: u64) {
        if !self.is_connected {
            return;
        }
        if now_ms >= self.acked_at_ms + self.options.ack_interval_ms {
            self.acked_at_ms = now_ms;
            self.transmit_acks();
        }
        let due: Vec<String> = self
            .conversations
            .iter()
            .filter(|(_, conversation)| conversation.is_fetch_due(now_ms))
            .map(|(id, _)| id.clone())
            .collect();
        for conversation_id in due {
            self.fetch_gap(conversation_id);
        }
        self.transmit_outbox(now_ms);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Messages that wait for their answer.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn transmit(&mut self, id: String, body: client_frame::Body) {
        self.outputs
            .push_back(Output::Frame(ClientFrame { id, body: Some(body) }));
    }

    fn message(&mut self, message: Message, now_ms: u64) {
        let id = message.conversation_id.clone();
        let conversation = self
            .conversations
            .entry(id.clone())
            .or_insert_with(|| Conversation::before(message.seq));
        let took = conversation.take(message, self.options.reorder_len_max, now_ms);
        self.took(id, took);
    }

    fn took(&mut self, conversation_id: String, took: Took) {
        for message in took.ready {
            self.outputs.push_back(Output::Event(Event::Message(message)));
        }
        if took.fetch {
            self.fetch_gap(conversation_id);
        }
    }

    fn reaches(&mut self, conversation_id: String, tail_seq: u64, now_ms: u64) {
        let Some(conversation) = self.conversations.get_mut(&conversation_id) else {
            return;
        };
        conversation.reaches(tail_seq, now_ms);
        if conversation.is_fetch_due(now_ms) {
            self.fetch_gap(conversation_id);
        }
    }

    fn fetch_gap(&mut self, conversation_id: String) {
        let Some(conversation) = self.conversations.get_mut(&conversation_id) else {
            return;
        };
        let after_seq = conversation.fetching();
        let number = self.next_number;
        self.next_number += 1;
        let id = format!("g{number}");
        self.pending.insert(
            id.clone(),
            Pending::Gap {
                conversation_id: conversation_id.clone(),
            },
        );
        let limit = self.options.page_len;
        let fetch = Fetch {
            conversation_id,
            after_seq: Some(after_seq),
            before_seq: None,
            limit,
        };
        self.transmit(id, client_frame::Body::Fetch(fetch));
    }

    fn page(&mut self, conversation_id: String, page: Page, now_ms: u64) {
        let Some(conversation) = self.conversations.get_mut(&conversation_id) else {
            return;
        };
        if let Some(from_seq) =
            conversation.page_starts(page.messages.first().map(|message| message.seq), page.tail_seq)
        {
            let conversation_id = conversation_id.clone();
            self.outputs.push_back(Output::Event(Event::Truncated {
                conversation_id,
                from_seq,
            }));
        }
        let took = conversation.take_page(page.messages, page.tail_seq, now_ms);
        self.took(conversation_id, took);
    }

    fn replied(&mut self, id: &str, body: Body, now_ms: u64) {
        match (self.pending.remove(id), body) {
            (Some(Pending::Send { client_msg_id }), Body::Sent(sent)) => {
                self.outbox.settle(&client_msg_id);
                self.outputs.push_back(Output::Sent { client_msg_id, sent });
                self.transmit_outbox(now_ms);
            }
            (Some(Pending::Gap { conversation_id }), Body::Page(page)) => self.page(conversation_id, page, now_ms),
            (Some(Pending::App { number }), body) => {
                self.outputs.push_back(Output::Answer {
                    number,
                    result: Ok(Box::new(body)),
                });
            }
            (Some(Pending::Send { .. } | Pending::Gap { .. }) | None, _) => {}
        }
    }

    fn refused(&mut self, id: &str, error: Error, now_ms: u64) {
        if matches!(error.code.as_str(), "UNAUTHENTICATED" | "TOKEN_EXPIRED") && !id.starts_with('r') {
            self.outputs.push_back(Output::Unauthenticated(error));
            return;
        }
        match self.pending.remove(id) {
            Some(Pending::Send { client_msg_id }) => {
                if is_retryable(&error.code) {
                    self.outbox
                        .retry(&client_msg_id, now_ms + error.retry_after_ms.unwrap_or(100).max(1));
                    return;
                }
                self.outbox.settle(&client_msg_id);
                let error = SendError::Refused {
                    code: error.code,
                    message: error.message,
                };
                self.outputs.push_back(Output::NotSent { client_msg_id, error });
                self.transmit_outbox(now_ms);
            }
            Some(Pending::Gap { conversation_id }) => {
                if is_retryable(&error.code) {
                    if let Some(conversation) = self.conversations.get_mut(&conversation_id) {
                        conversation.fetch_failed(now_ms + error.retry_after_ms.unwrap_or(500).max(1));
                    }
                } else {
                    // Not a member any more: there is nothing to hold.
                    self.conversations.remove(&conversation_id);
                }
            }
            Some(Pending::App { number }) => self.outputs.push_back(Output::Answer {
                number,
                result: Err(error),
            }),
            None => {}
        }
    }

    fn transmit_acks(&mut self) {
        let due = self
            .conversations
            .iter_mut()
            .filter_map(|(id, held)| Some((id.clone(), held.ack_due()?)));
        let acks: Vec<Ack> = due
            .map(|(conversation_id, delivered_seq)| Ack {
                conversation_id,
                delivered_seq,
            })
            .collect();
        for ack in acks {
            self.transmit(String::new(), client_frame::Body::Ack(ack));
        }
    }

    fn transmit_outbox(&mut self, now_ms: u64) {
        if !self.is_connected {
            return;
        }
        for send in self.outbox.due(now_ms) {
            let number = self.next_number;
            self.next_number += 1;
            let id = format!("s{number}");
            self.pending.insert(
                id.clone(),
                Pending::Send {
                    client_msg_id: send.client_msg_id.clone(),
                },
            );
            self.transmit(id, client_frame::Body::Send(send));
        }
    }
}

fn is_retryable(code: &str) -> bool {
    antiphon_types::ErrorCode::parse(code).is_retryable()
}
