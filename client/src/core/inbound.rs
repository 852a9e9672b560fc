//! Messages on their way to the app: in order, each once, holes fetched; and the delivered marks that follow.

use antiphon_proto::client::{Ack, Error, Fetch, Message, Page, client_frame};

use super::{
    Core, Event, Output, Pending,
    conversation::{Conversation, Took},
    is_retryable,
};

impl Core {
    pub(super) fn message(&mut self, message: Message, now_ms: u64) {
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

    pub(super) fn reaches(&mut self, conversation_id: String, tail_seq: u64, now_ms: u64) {
        let Some(conversation) = self.conversations.get_mut(&conversation_id) else {
            return;
        };
        conversation.reaches(tail_seq, now_ms);
        if conversation.is_fetch_due(now_ms) {
            self.fetch_gap(conversation_id);
        }
    }

    pub(super) fn fetch_gaps(&mut self, now_ms: u64) {
        let due: Vec<String> = self
            .conversations
            .iter()
            .filter(|(_, conversation)| conversation.is_fetch_due(now_ms))
            .map(|(id, _)| id.clone())
            .collect();
        for conversation_id in due {
            self.fetch_gap(conversation_id);
        }
    }

    pub(super) fn gap_refused(&mut self, conversation_id: &str, error: &Error, now_ms: u64) {
        if !is_retryable(&error.code) {
            // Not a member any more: there is nothing to hold.
            self.left(conversation_id);
            return;
        }
        if let Some(conversation) = self.conversations.get_mut(conversation_id) {
            conversation.fetch_failed(now_ms + error.retry_after_ms.unwrap_or(500).max(1));
        }
    }

    /// The user is no member any more.
    pub(super) fn left(&mut self, conversation_id: &str) {
        self.conversations.remove(conversation_id);
        self.marks.left(conversation_id);
    }

    fn fetch_gap(&mut self, conversation_id: String) {
        let Some(conversation) = self.conversations.get_mut(&conversation_id) else {
            return;
        };
        let after_seq = conversation.fetching();
        let pending = Pending::Gap {
            conversation_id: conversation_id.clone(),
        };
        let limit = self.options.page_len;
        let fetch = Fetch {
            conversation_id,
            after_seq: Some(after_seq),
            before_seq: None,
            limit,
        };
        self.ask(pending, client_frame::Body::Fetch(fetch));
    }

    pub(super) fn page(&mut self, conversation_id: String, page: Page, now_ms: u64) {
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

    pub(super) fn transmit_acks(&mut self) {
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
}
