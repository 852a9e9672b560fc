//! A session's sends, in the order in which they came.
//!
//! Of each conversation one request is under way, and what comes meanwhile goes with the next one. So the order holds however far away
//! the home is, also where it moves in between, and a pipe costs a round trip for all that it holds and not for each message.

use std::collections::{HashMap, VecDeque};

use antiphon_proto::rpc::NewMessage;
use antiphon_types::ConversationId;

/// Bytes of text of one request, about; it is one message at least.
const REQUEST_BYTES: usize = 1 << 20;

/// What waits, by conversation; one with nothing under way is not there. Bounded by the requests that a session may have in flight.
/// `T` is what the answer is for.
pub(super) struct Sends<T> {
    waiting: HashMap<ConversationId, VecDeque<(T, NewMessage)>>,
}

impl<T> Sends<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: HashMap::new(),
        }
    }

    /// Takes a message; returns what is to be sent now.
    pub(super) fn add(
        &mut self,
        conversation: ConversationId,
        ticket: T,
        message: NewMessage,
    ) -> Option<Vec<(T, NewMessage)>> {
        if let Some(waiting) = self.waiting.get_mut(&conversation) {
            waiting.push_back((ticket, message));
            return None;
        }
        self.waiting.insert(conversation, VecDeque::new());
        Some(vec![(ticket, message)])
    }

    /// A request was answered; returns what is to be sent next.
    pub(super) fn answered(&mut self, conversation: ConversationId) -> Option<Vec<(T, NewMessage)>> {
        let waiting = self.waiting.get_mut(&conversation)?;
        let (mut next, mut bytes) = (Vec::new(), 0);
        while let Some((_, message)) = waiting.front() {
            bytes += message.text.len();
            if bytes > REQUEST_BYTES && !next.is_empty() {
                break;
            }
            next.extend(waiting.pop_front());
        }
        if next.is_empty() {
            self.waiting.remove(&conversation);
            return None;
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use antiphon_types::Slot;

    use super::*;

    fn message(bytes: usize) -> NewMessage {
        NewMessage {
            client_msg_id: String::new(),
            text: "x".repeat(bytes),
        }
    }

    fn tickets(sends: Option<Vec<(u64, NewMessage)>>) -> Vec<u64> {
        sends.into_iter().flatten().map(|(ticket, _)| ticket).collect()
    }

    #[test]
    fn what_comes_while_a_request_is_under_way_goes_with_the_next() {
        let conversation = |random| ConversationId::new(Slot::DEPLOYMENT, 1, random);
        let (one, other) = (conversation(1), conversation(2));
        let mut sends = Sends::new();
        assert_eq!(tickets(sends.add(one, 1, message(5))), [1]);
        assert_eq!(tickets(sends.add(one, 2, message(5))), [0_u64; 0]);
        assert_eq!(tickets(sends.add(other, 3, message(5))), [3]);
        assert_eq!(tickets(sends.add(one, 4, message(5))), [0_u64; 0]);
        assert_eq!(tickets(sends.answered(one)), [2, 4]);
        assert_eq!(tickets(sends.answered(one)), [0_u64; 0]);
        assert_eq!(tickets(sends.add(one, 5, message(5))), [5]);
        assert_eq!(tickets(sends.answered(other)), [0_u64; 0]);
        assert_eq!(sends.waiting.len(), 1);
    }

    #[test]
    fn a_request_holds_a_mebibyte_or_one_message() {
        let one = ConversationId::new(Slot::DEPLOYMENT, 1, 1);
        let mut sends = Sends::new();
        let sizes = [1, REQUEST_BYTES - 10, 10, 1, REQUEST_BYTES + 1, 1];
        for (ticket, bytes) in sizes.into_iter().enumerate() {
            sends.add(one, ticket as u64, message(bytes));
        }
        assert_eq!(tickets(sends.answered(one)), [1, 2]);
        assert_eq!(tickets(sends.answered(one)), [3]);
        assert_eq!(tickets(sends.answered(one)), [4]);
        assert_eq!(tickets(sends.answered(one)), [5]);
    }
}
