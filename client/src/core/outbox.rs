//! Messages that wait for their answer, in the order in which they were sent.

use std::collections::{HashMap, VecDeque};

use antiphon_proto::client::{Error, Send, Sent, client_frame};

use super::{Core, OutboxFull, Output, Pending, SendError, is_retryable};

impl Core {
    /// Takes a message to send and returns the number of its answer.
    ///
    /// # Errors
    /// [`OutboxFull`].
    pub fn send(
        &mut self,
        conversation_id: String,
        client_msg_id: String,
        text: String,
        now_ms: u64,
    ) -> Result<u64, OutboxFull> {
        let number = self.number();
        let send = Send {
            conversation_id,
            client_msg_id,
            text,
        };
        self.outbox.push(number, send)?;
        self.transmit_outbox(now_ms);
        Ok(number)
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
        for (number, send) in self.outbox.due(now_ms) {
            self.ask(Pending::Send { number }, client_frame::Body::Send(send));
        }
    }

    pub(super) fn sent(&mut self, number: u64, sent: Sent, now_ms: u64) {
        let attempts = self.outbox.settle(number);
        self.outputs.push_back(Output::Sent { number, sent, attempts });
        self.transmit_outbox(now_ms);
    }

    pub(super) fn not_sent(&mut self, number: u64, error: Error, now_ms: u64) {
        if is_retryable(&error.code) {
            self.outbox
                .retry(number, now_ms + error.retry_after_ms.unwrap_or(100).max(1));
            return;
        }
        self.outbox.settle(number);
        let error = SendError::Refused {
            code: error.code,
            message: error.message,
        };
        self.outputs.push_back(Output::NotSent { number, error });
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
    /// Which it is; the same client message id may wait twice.
    number: u64,
    send: Send,
    is_in_flight: bool,
    not_before_ms: u64,
    /// How often it was transmitted.
    attempts: u32,
}

impl Outbox {
    pub(super) const fn new(len_max: usize, in_flight_max: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            len_max,
            in_flight_max,
        }
    }

    pub(super) fn push(&mut self, number: u64, send: Send) -> Result<(), OutboxFull> {
        if self.messages.len() >= self.len_max {
            return Err(OutboxFull { limit: self.len_max });
        }
        self.messages.push_back(Waiting {
            number,
            send,
            is_in_flight: false,
            not_before_ms: 0,
            attempts: 0,
        });
        Ok(())
    }

    /// What may be transmitted now; it is under way from then on. Order per conversation is kept.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<(u64, Send)> {
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
                waiting.attempts += 1;
                due.push((waiting.number, waiting.send.clone()));
            }
            *count += 1;
        }
        due
    }

    /// The server has answered for good; how often the message was transmitted.
    pub(super) fn settle(&mut self, number: u64) -> u32 {
        let found = self.messages.iter().position(|waiting| waiting.number == number);
        let settled = found.and_then(|at| self.messages.remove(at));
        settled.map_or(0, |waiting| waiting.attempts)
    }

    /// The server asks to try again later.
    pub(super) fn retry(&mut self, number: u64, not_before_ms: u64) {
        let found = self.messages.iter_mut().find(|waiting| waiting.number == number);
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
