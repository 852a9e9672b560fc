//! What clients did and saw.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

/// What clients saw, in the order they saw it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order in which they were noted.
    pub records: Vec<Record>,
}

/// One thing that a client did or saw.
#[derive(Debug, Clone)]
pub struct Record {
    /// Since the beginning of the recording.
    pub at_us: u128,
    /// What happened.
    pub event: Event,
}

/// `session` is one connection: a client that comes back has another.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the words of the protocol")]
pub enum Event {
    /// Was asked for; a resend is another one.
    Send {
        session: u64,
        user: String,
        conversation: String,
        client_msg_id: String,
        text: String,
    },
    /// Was acknowledged.
    Ack {
        session: u64,
        user: String,
        conversation: String,
        client_msg_id: String,
        seq: u64,
    },
    /// The session began after this seq: it has to see everything that follows.
    Resume {
        session: u64,
        conversation: String,
        after_seq: u64,
    },
    /// Was pushed.
    Push { session: u64, message: Seen },
    /// The session was told that messages up to here are to be fetched.
    Lagged {
        session: u64,
        conversation: String,
        tail_seq: u64,
    },
    /// Part of the history that `reader` read when all was over.
    Page {
        reader: String,
        conversation: String,
        messages: Vec<Seen>,
    },
    /// How far `user` has got, as `session` was told.
    Receipt {
        session: u64,
        conversation: String,
        user: String,
        delivered_seq: u64,
        read_seq: u64,
    },
}

/// A message as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are the words of the protocol")]
pub struct Seen {
    pub conversation: String,
    pub seq: u64,
    pub sender: String,
    pub client_msg_id: String,
    pub text: String,
}

/// Where many clients record. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    began: Instant,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Begins a recording.
    #[must_use]
    pub fn new() -> Self {
        Self {
            history: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Notes what has just happened.
    pub fn note(&self, event: Event) {
        let mut history = self.history.lock();
        let at_us = self.began.elapsed().as_micros();
        history.records.push(Record { at_us, event });
    }

    /// All that was noted so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }
}
