//! Messages that wait for their answer, in the order in which they were sent.

use std::collections::{HashMap, VecDeque};

use antiphon_proto::client::Send;

use super::SendError;

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
