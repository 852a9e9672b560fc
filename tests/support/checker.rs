//! Judges a recorded history by the invariants of the design: I1, I2, I5, I6.

use std::collections::BTreeMap;

/// What one observer has seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A client began to send (again under the same key: the same message).
    Send {
        conversation: String,
        key: String,
        text: String,
    },
    /// The server acknowledged it.
    Ack {
        conversation: String,
        key: String,
        seq: u64,
    },
    /// A message was pushed on one connection.
    Push {
        connection: u64,
        conversation: String,
        key: String,
        seq: u64,
        text: String,
    },
    /// A whole conversation was read from its start to its end, after everything.
    Final {
        reader: String,
        conversation: String,
        messages: Vec<Found>,
    },
    /// A member's receipt was seen on one connection.
    Receipt {
        connection: u64,
        conversation: String,
        user: String,
        delivered: u64,
        read: u64,
    },
}

/// Which promise was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

/// A message as a reader finds it: seq, key, text.
pub type Found = (u64, String, String);

/// Every broken promise in a history.
pub fn check(history: &[Record]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant, what: String| found.push(Violation { invariant, what });
    let mut texts: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut acks: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut contents: BTreeMap<(&str, u64), (&str, &str)> = BTreeMap::new();
    let mut pushed: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    let mut receipts: BTreeMap<(u64, &str, &str), (u64, u64)> = BTreeMap::new();
    let mut finals: Vec<(&str, &str, &[Found])> = Vec::new();

    for record in history {
        match record {
            Record::Send {
                conversation,
                key,
                text,
            } => {
                texts.insert((conversation, key), text);
            }
            Record::Ack { conversation, key, seq } => {
                let first = *acks.entry((conversation, key)).or_insert(*seq);
                if first != *seq {
                    broken(
                        "I5",
                        format!("{key} in {conversation} was acknowledged as {first} and as {seq}"),
                    );
                }
            }
            Record::Push {
                connection,
                conversation,
                key,
                seq,
                text,
            } => {
                let last = pushed.insert((*connection, conversation), *seq).unwrap_or(0);
                if *seq <= last {
                    broken(
                        "I2",
                        format!("connection {connection} got {seq} of {conversation} after {last}"),
                    );
                }
                let content = *contents.entry((conversation, *seq)).or_insert((key, text));
                if content != (key.as_str(), text.as_str()) {
                    broken(
                        "I2",
                        format!("{seq} of {conversation} was {content:?} and {key} {text}"),
                    );
                }
            }
            Record::Final {
                reader,
                conversation,
                messages,
            } => finals.push((reader, conversation, messages)),
            Record::Receipt {
                connection,
                conversation,
                user,
                delivered,
                read,
            } => {
                let last = receipts
                    .insert((*connection, conversation, user), (*delivered, *read))
                    .unwrap_or((0, 0));
                if *delivered < last.0 || *read < last.1 {
                    broken(
                        "I6",
                        format!("{user} in {conversation} went from {last:?} to {delivered}, {read}"),
                    );
                }
                if read > delivered {
                    broken(
                        "I6",
                        format!("{user} in {conversation} has read {read} of {delivered} delivered"),
                    );
                }
            }
        }
    }
    for (reader, conversation, messages) in &finals {
        let mut keys: BTreeMap<&str, u64> = BTreeMap::new();
        for (at, (seq, key, text)) in messages.iter().enumerate() {
            if *seq != at as u64 + 1 {
                broken(
                    "I2",
                    format!("{reader} finds {seq} at place {} of {conversation}", at + 1),
                );
            }
            if let Some(first) = keys.insert(key, *seq) {
                broken("I1", format!("{key} is in {conversation} as {first} and as {seq}"));
            }
            let content = *contents.entry((conversation, *seq)).or_insert((key, text));
            if content != (key.as_str(), text.as_str()) {
                broken(
                    "I2",
                    format!("{reader} finds {key} {text} at {seq} of {conversation}, others {content:?}"),
                );
            }
            if texts
                .get(&(*conversation, key.as_str()))
                .is_some_and(|sent| *sent != text.as_str())
            {
                broken("I1", format!("{key} of {conversation} has another text than was sent"));
            }
        }
        let acked = acks.iter().filter(|((of, _), _)| of == conversation);
        for ((_, key), seq) in acked {
            match keys.get(key) {
                Some(stored) if stored == seq => {}
                Some(stored) => broken(
                    "I1",
                    format!("{key} of {conversation} was acknowledged as {seq} and is {stored}"),
                ),
                None => broken(
                    "I1",
                    format!("{key} of {conversation} was acknowledged as {seq} and is lost"),
                ),
            }
        }
        let last = messages.len() as u64;
        for ((_, of, user), (delivered, _)) in &receipts {
            if of == conversation && *delivered > last {
                broken(
                    "I6",
                    format!("{user} in {conversation} holds {delivered} of {last} messages"),
                );
            }
        }
    }
    found
}
