//! What a device holds of one conversation, and what it knows to be missing.

use std::collections::BTreeMap;

use antiphon_proto::client::Message;

#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// The last seq given to the app; all before it were given, or are gone.
    have: u64,
    /// The highest seq known to exist.
    tail: u64,
    /// Messages beyond a hole.
    beyond: BTreeMap<u64, Message>,
    is_fetching: bool,
    /// From when on a hole is fetched.
    fetch_from_ms: u64,
    acked: u64,
}

/// What taking messages has led to.
#[derive(Debug, Default)]
pub(super) struct Took {
    /// For the app, in order.
    pub(super) ready: Vec<Message>,
    /// There is a hole to fetch now.
    pub(super) fetch: bool,
}

impl Conversation {
    /// A conversation of which everything up to `seq` is held already.
    pub(super) fn holding(seq: u64) -> Self {
        Self {
            have: seq,
            tail: seq,
            ..Self::default()
        }
    }

    /// A conversation that is first heard of by message `seq`.
    pub(super) fn before(seq: u64) -> Self {
        Self::holding(seq.saturating_sub(1))
    }

    pub(super) const fn have(&self) -> Option<u64> {
        Some(self.have)
    }

    /// Takes a pushed message.
    pub(super) fn take(&mut self, message: Message, beyond_len_max: usize, now_ms: u64) -> Took {
        self.tail = self.tail.max(message.seq);
        let mut took = Took::default();
        if message.seq == self.have + 1 {
            self.give(message, &mut took);
        } else if message.seq > self.have && self.beyond.len() < beyond_len_max {
            self.beyond.insert(message.seq, message);
        }
        took.fetch = self.is_fetch_due(now_ms);
        took
    }

    /// The first seq of a page that was asked for after what is held: a later one means that retention has taken those between.
    /// Returns that seq when it did.
    pub(super) fn page_starts(&mut self, first: Option<u64>, tail: u64) -> Option<u64> {
        let from_seq = match first {
            Some(first) => first,
            // An empty page below a tail: all that is missing is gone.
            None if tail > self.have => tail + 1,
            None => return None,
        };
        self.truncate(from_seq).then_some(from_seq)
    }

    /// Takes a fetched page, in ascending seq.
    pub(super) fn take_page(&mut self, messages: Vec<Message>, tail: u64, now_ms: u64) -> Took {
        self.is_fetching = false;
        self.tail = self.tail.max(tail);
        let mut took = Took::default();
        for message in messages {
            if message.seq == self.have + 1 {
                self.give(message, &mut took);
            }
        }
        took.fetch = self.is_fetch_due(now_ms);
        took
    }

    /// The conversation reaches up to `tail`; what is missing may still be pushed until `fetch_from_ms`.
    pub(super) fn reaches(&mut self, tail: u64, fetch_from_ms: u64) {
        if tail > self.tail {
            self.tail = tail;
            self.fetch_from_ms = fetch_from_ms;
        } else if tail > self.have {
            self.fetch_from_ms = self.fetch_from_ms.min(fetch_from_ms);
        }
    }

    /// Everything before `from_seq` is gone. True when something not held was among it.
    pub(super) fn truncate(&mut self, from_seq: u64) -> bool {
        if from_seq <= self.have + 1 {
            return false;
        }
        self.have = from_seq - 1;
        self.beyond = self.beyond.split_off(&from_seq);
        true
    }

    pub(super) fn is_fetch_due(&self, now_ms: u64) -> bool {
        self.tail > self.have && !self.is_fetching && now_ms >= self.fetch_from_ms
    }

    /// A fetch is on its way; returns after which seq.
    pub(super) const fn fetching(&mut self) -> u64 {
        self.is_fetching = true;
        self.have
    }

    pub(super) const fn fetch_failed(&mut self, fetch_from_ms: u64) {
        self.is_fetching = false;
        self.fetch_from_ms = fetch_from_ms;
    }

    pub(super) const fn disconnected(&mut self) {
        self.is_fetching = false;
        // A delivered mark may have been lost with the connection.
        self.acked = 0;
    }

    /// The seq to acknowledge, if it has moved since it was last asked for.
    pub(super) fn ack_due(&mut self) -> Option<u64> {
        (self.have > self.acked && self.have > 0).then(|| {
            self.acked = self.have;
            self.have
        })
    }

    fn give(&mut self, message: Message, took: &mut Took) {
        self.have = message.seq;
        took.ready.push(message);
        while let Some(next) = self.beyond.remove(&(self.have + 1)) {
            self.have = next.seq;
            took.ready.push(next);
        }
        self.beyond = self.beyond.split_off(&(self.have + 1));
        self.tail = self.tail.max(self.have);
    }
}
