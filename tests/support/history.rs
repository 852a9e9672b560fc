use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::{number, text};

/// What clients saw, in the order they saw it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
}

/// One thing that a client did or saw.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Since the beginning of the recording.
    pub(crate) at_us: u128,
    pub(crate) event: Event,
}

/// `session` is one connection: a client that comes back has another.
#[derive(Debug, Clone)]
pub(crate) enum Event {
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
pub(crate) struct Seen {
    pub(crate) conversation: String,
    pub(crate) seq: u64,
    pub(crate) sender: String,
    pub(crate) client_msg_id: String,
    pub(crate) text: String,
}

impl Seen {
    /// Reads a message of a frame or a REST body.
    pub(crate) fn of(message: &Value) -> Self {
        Self {
            conversation: text(&message["conversationId"]),
            seq: number(&message["seq"]),
            sender: text(&message["senderId"]),
            client_msg_id: text(&message["clientMsgId"]),
            text: text(&message["text"]),
        }
    }
}

/// Where many clients record.
#[derive(Clone)]
pub(crate) struct Recorder {
    history: Arc<Mutex<History>>,
    began: Instant,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            history: Arc::default(),
            began: Instant::now(),
        }
    }

    pub(crate) fn note(&self, event: Event) {
        let mut history = self.history.lock();
        let at_us = self.began.elapsed().as_micros();
        history.records.push(Record { at_us, event });
    }

    pub(crate) fn history(&self) -> History {
        self.history.lock().clone()
    }
}
