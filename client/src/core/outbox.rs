//! Messages that wait for their answer, in the order in which they were sent.

use std::collections::{HashMap, VecDeque};

use antiphon_proto::client::{Error, Send, Sent, client_frame};

use super::{Core, Output, Pending, SendError, is_retryable};

impl Core {
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
        self.outbox.push(Send {
            conversation_id,
            client_msg_id,
            text,
        })?;
        self.transmit_outbox(now_ms);
        Ok(())
    }

    /// Messages that wait for their answer.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn transmit_outbox(&mut self, now_ms: u64) {
        if !self.is_connected {
            return;
        }
        for send in self.outbox.due(now_ms) {
            let pending = Pending::Send {
                client_msg_id: send.client_msg_id.clone(),
            };
            self.ask(pending, client_frame::Body::Send(send));
        }
    }

    pub(super) fn sent(&mut self, client_msg_id: String, sent: Sent, now_ms: u64) {
        self.outbox.settle(&client_msg_id);
        self.outputs.push_back(Output::Sent { client_msg_id, sent });
        self.transmit_outbox(now_ms);
    }

    pub(super) fn not_sent(&mut self, client_msg_id: String, error: Error, now_ms: u64) {
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
}

#[derive(Debug)]
pub(super) struct Outbox {
    messages: VecDeque<Waiting>,
    len_max: usize,
    in_flight_max: usize,
}

#[derive(Debug)]
struct Waiting {
    send: Send,
    is_in_flight: bool,
    not_before_ms: u64,
}

impl Outbox {
    pub(super) const fn new(len_max: usize, in_flight_max: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            len_max,
            in_flight_max,
        }
    }

    pub(super) fn push(&mut self, send: Send) -> Result<(), SendError> {
        if self.messages.len() >= self.len_max {
            return Err(SendError::OutboxFull { limit: self.len_max });
        }
        self.messages.push_back(Waiting {
            send,
            is_in_flight: false,
            not_before_ms: 0,
        });
        Ok(())
    }

    /// What may be transmitted now; it is under way from then on. Order per conversation is kept.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Send> {
        let mut under_way: HashMap<&str, usize> = HashMap::new();
        let mut due = Vec::new();
        for waiting in &mut self.messages {
            let count = under_way.entry(&waiting.send.conversation_id).or_default();
            if !waiting.is_in_flight && *count < self.in_flight_max {
                if waiting.not_before_ms > now_ms {
                    // Nothing overtakes a message that has to wait.
                    *count = self.in_flight_max;
                    continue;
                }
                waiting.is_in_flight = true;
                due.push(waiting.send.clone());
            }
            *count += 1;
        }
        due
    }

    /// The server has answered for good.
    pub(super) fn settle(&mut self, client_msg_id: &str) {
        self.messages
            .retain(|waiting| waiting.send.client_msg_id != client_msg_id);
    }

    /// The server asks to try again later.
    pub(super) fn retry(&mut self, client_msg_id: &str, not_before_ms: u64) {
        let found = self
            .messages
            .iter_mut()
            .find(|waiting| waiting.send.client_msg_id == client_msg_id);
        if let Some(waiting) = found {
            waiting.is_in_flight = false;
            waiting.not_before_ms = not_before_ms;
        }
    }

    /// Nothing is under way any more; what was has to be sent again.
    pub(super) fn disconnected(&mut self) {
        for waiting in &mut self.messages {
            waiting.is_in_flight = false;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}
