//! How far the user has read: state, not messages. Of each conversation the highest mark counts, until the server has confirmed it.

use std::collections::BTreeMap;

use antiphon_proto::client::{Error, Read, client_frame};

use super::{Core, Output, Pending, is_retryable};

/// Marks under way at once: after a reconnect many may be due, and the edge bounds what it does for one session at a time.
const IN_FLIGHT_MAX: usize = 16;

/// How long a mark waits that was refused without a time to come back.
const RETRY_AFTER_MS: u64 = 100;

impl Core {
    /// Marks everything up to `seq` as read.
    ///
    /// The mark is kept until the server has answered it for good, across connections; marks of one conversation that wait
    /// become one. The answer is an [`Output::Marked`] of this or a higher seq, or an [`Output::NotMarked`].
    pub fn read(&mut self, conversation_id: String, seq: u64, now_ms: u64) {
        let confirmed = self.marks.wants(&conversation_id, seq);
        if seq <= confirmed {
            self.outputs.push_back(Output::Marked {
                conversation_id,
                seq: confirmed,
            });
            return;
        }
        self.transmit_marks(now_ms);
    }

    pub(super) fn transmit_marks(&mut self, now_ms: u64) {
        if !self.is_connected {
            return;
        }
        for (conversation_id, seq) in self.marks.due(now_ms) {
            let pending = Pending::Mark {
                conversation_id: conversation_id.clone(),
                seq,
            };
            self.ask(pending, client_frame::Body::Read(Read { conversation_id, seq }));
        }
    }

    pub(super) fn marked(&mut self, conversation_id: String, seq: u64, now_ms: u64) {
        self.marks.confirmed(&conversation_id, seq);
        self.outputs.push_back(Output::Marked { conversation_id, seq });
        self.transmit_marks(now_ms);
    }

    pub(super) fn not_marked(&mut self, conversation_id: String, seq: u64, error: Error, now_ms: u64) {
        if is_retryable(&error.code) {
            let wait_ms = error.retry_after_ms.unwrap_or(RETRY_AFTER_MS).max(1);
            self.marks.retry(&conversation_id, now_ms + wait_ms);
        } else {
            self.marks.refused(&conversation_id, seq);
            self.outputs.push_back(Output::NotMarked {
                conversation_id,
                seq,
                error,
            });
        }
        self.transmit_marks(now_ms);
    }
}

/// The marks of every conversation.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: BTreeMap<String, Mark>,
}

#[derive(Debug, Default)]
struct Mark {
    /// What the server has confirmed.
    confirmed: u64,
    /// The highest that was asked for; never below `confirmed`.
    wanted: u64,
    is_in_flight: bool,
    not_before_ms: u64,
}

impl Marks {
    /// Takes a mark; returns what is confirmed of its conversation.
    fn wants(&mut self, conversation_id: &str, seq: u64) -> u64 {
        let mark = self.marks.entry(conversation_id.to_owned()).or_default();
        mark.wanted = mark.wanted.max(seq);
        mark.confirmed
    }

    /// What may be transmitted now; it is under way from then on.
    fn due(&mut self, now_ms: u64) -> Vec<(String, u64)> {
        let under_way = self.marks.values().filter(|mark| mark.is_in_flight).count();
        let due = self
            .marks
            .iter_mut()
            .filter(|(_, mark)| mark.wanted > mark.confirmed && !mark.is_in_flight && mark.not_before_ms <= now_ms)
            .take(IN_FLIGHT_MAX.saturating_sub(under_way));
        due.map(|(conversation_id, mark)| {
            mark.is_in_flight = true;
            (conversation_id.clone(), mark.wanted)
        })
        .collect()
    }

    fn confirmed(&mut self, conversation_id: &str, seq: u64) {
        if let Some(mark) = self.marks.get_mut(conversation_id) {
            mark.is_in_flight = false;
            mark.confirmed = mark.confirmed.max(seq);
        }
    }

    /// The server asks to try again later.
    fn retry(&mut self, conversation_id: &str, not_before_ms: u64) {
        if let Some(mark) = self.marks.get_mut(conversation_id) {
            mark.is_in_flight = false;
            mark.not_before_ms = not_before_ms;
        }
    }

    /// The server does not take `seq`; a higher one that was asked for since stands on its own.
    fn refused(&mut self, conversation_id: &str, seq: u64) {
        let Some(mark) = self.marks.get_mut(conversation_id) else {
            return;
        };
        mark.is_in_flight = false;
        if mark.wanted <= seq {
            mark.wanted = mark.confirmed;
        }
        if mark.wanted == 0 {
            self.marks.remove(conversation_id);
        }
    }

    /// The user is no member any more: what was confirmed says nothing about a membership to come.
    pub(super) fn left(&mut self, conversation_id: &str) {
        let Some(mark) = self.marks.get_mut(conversation_id) else {
            return;
        };
        if mark.wanted > mark.confirmed {
            // The server has yet to say what becomes of it.
            mark.confirmed = 0;
        } else {
            self.marks.remove(conversation_id);
        }
    }

    /// Nothing is under way any more; what was has to be sent again.
    pub(super) fn disconnected(&mut self) {
        for mark in self.marks.values_mut() {
            mark.is_in_flight = false;
        }
    }
}
