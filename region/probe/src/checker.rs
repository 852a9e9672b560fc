//! Judges a recorded history by the invariants I1, I2, I3, I5 and I6.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::history::{Event, History, Seen};

/// A broken invariant, and what breaks it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// What is broken.
    pub rule: Rule,
    /// By which message, where and for whom.
    pub what: String,
}

/// What can be wrong with a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// I1: an acknowledged message is not in the final history.
    Lost,
    /// I3: what a session was pushed, or told to fetch, lies beyond the end of the final history.
    Vanished,
    /// I1, I5: one idempotency key is in the final history more than once.
    Doubled,
    /// I1: an acknowledged message has another seq than was acknowledged.
    Moved,
    /// I1: a message has another text than was sent, or was never sent.
    Altered,
    /// I2: the seqs of a conversation are not 1..n.
    Hole,
    /// I2: a page or the pushes of a session do not ascend.
    Reordered,
    /// I2: two readers saw different messages under one seq, or different ends.
    ReadersDiffer,
    /// I2: a session was live and a message between two pushes never came.
    PushMissing,
    /// I5: one idempotency key was acknowledged with two seqs.
    SeqChanged,
    /// I6: delivered or read went back.
    Receded,
    /// I6: read > delivered, or delivered > last.
    ReceiptOutOfRange,
    /// A conversation that was written to was never read at the end.
    NotJudged,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// All violations, sorted; empty for a history that keeps the rules.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut judge = Judge::new(history);
    judge.final_histories();
    judge.one_content_per_seq();
    judge.acknowledgements();
    judge.idempotency_keys();
    judge.pushes();
    judge.shown_to_stay();
    judge.receipts();
    judge.violations.sort();
    judge.violations.dedup();
    judge.violations
}

/// Sender, conversation, client_msg_id.
type Key<'a> = (&'a str, &'a str, &'a str);

struct Judge<'a> {
    history: &'a History,
    /// What each reader read of each conversation, in the order it came.
    finals: BTreeMap<(&'a str, &'a str), Vec<&'a Seen>>,
    violations: Vec<Violation>,
}

impl<'a> Judge<'a> {
    fn new(history: &'a History) -> Self {
        let mut finals: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in events(history) {
            if let Event::Page {
                reader,
                conversation,
                messages,
            } = event
            {
                finals
                    .entry((conversation.as_str(), reader.as_str()))
                    .or_default()
                    .extend(messages);
            }
        }
        Self {
            history,
            finals,
            violations: Vec::new(),
        }
    }

    fn report(&mut self, rule: Rule, what: String) {
        self.violations.push(Violation { rule, what });
    }

    /// Each reader's final history is 1..n, and all readers have the same n.
    fn final_histories(&mut self) {
        let mut ends: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for ((conversation, reader), messages) in self.finals.clone() {
            let seqs: Vec<u64> = messages.iter().map(|message| message.seq).collect();
            let distinct: BTreeSet<u64> = seqs.iter().copied().collect();
            let last = distinct.last().copied().unwrap_or_default();
            ends.entry(conversation).or_default().insert(last);
            for missing in (1..=last).filter(|seq| !distinct.contains(seq)) {
                self.report(
                    Rule::Hole,
                    format!("{conversation} has no seq {missing} of {last} for {reader}"),
                );
            }
            for pair in seqs.windows(2).filter(|pair| pair[1] <= pair[0]) {
                self.report(
                    Rule::Reordered,
                    format!("{conversation}: {reader} read seq {} after {}", pair[1], pair[0]),
                );
            }
        }
        for (conversation, ends) in ends.into_iter().filter(|(_, ends)| ends.len() > 1) {
            self.report(
                Rule::ReadersDiffer,
                format!("{conversation} ends for its readers at {ends:?}"),
            );
        }
    }

    /// A seq means the same message to everybody, and the message is one that was sent.
    fn one_content_per_seq(&mut self) {
        let mut sent: BTreeMap<Key<'a>, &str> = BTreeMap::new();
        let mut contents: BTreeMap<(&str, u64), &Seen> = BTreeMap::new();
        for event in events(self.history) {
            if let Event::Send {
                user,
                conversation,
                client_msg_id,
                text,
                ..
            } = event
            {
                sent.insert((user, conversation, client_msg_id), text);
            }
        }
        for message in seen(self.history) {
            let place = (message.conversation.as_str(), message.seq);
            let first = *contents.entry(place).or_insert(message);
            if first != message {
                self.report(
                    Rule::ReadersDiffer,
                    format!("seq {} of {} is {first:?} and {message:?}", place.1, place.0),
                );
            }
            if sent.get(&key(message)) != Some(&message.text.as_str()) {
                self.report(Rule::Altered, format!("{message:?} was not sent like this"));
            }
        }
    }

    /// What was acknowledged is in every reader's history, with its seq.
    fn acknowledgements(&mut self) {
        let mut found: BTreeMap<(&str, Key<'a>), Vec<u64>> = BTreeMap::new();
        let mut readers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((conversation, reader), messages) in &self.finals {
            readers.entry(conversation).or_default().insert(reader);
            for message in messages {
                found.entry((reader, key(message))).or_default().push(message.seq);
            }
        }
        for event in events(self.history) {
            let Event::Ack {
                user,
                conversation,
                client_msg_id,
                seq,
                ..
            } = event
            else {
                continue;
            };
            let Some(readers) = readers.get(conversation.as_str()) else {
                self.report(Rule::NotJudged, format!("nobody read {conversation} at the end"));
                continue;
            };
            for reader in readers {
                match found
                    .get(&(*reader, (user, conversation, client_msg_id)))
                    .map(Vec::as_slice)
                {
                    None => {
                        let what = format!(
                            "{client_msg_id} of {user}, acknowledged as seq {seq}, is not in {conversation} for {reader}"
                        );
                        self.report(Rule::Lost, what);
                    }
                    Some(seqs) if !seqs.contains(seq) => {
                        let what = format!(
                            "{client_msg_id} of {user} in {conversation} was acknowledged as seq {seq} and is {seqs:?}"
                        );
                        self.report(Rule::Moved, what);
                    }
                    Some(_) => {}
                }
            }
        }
        for ((reader, (user, conversation, id)), seqs) in found.into_iter().filter(|(_, seqs)| seqs.len() > 1) {
            self.report(
                Rule::Doubled,
                format!("{id} of {user} is in {conversation} for {reader} as {seqs:?}"),
            );
        }
    }

    /// One idempotency key has one seq.
    fn idempotency_keys(&mut self) {
        let mut seqs: BTreeMap<Key<'a>, BTreeSet<u64>> = BTreeMap::new();
        for event in events(self.history) {
            if let Event::Ack {
                user,
                conversation,
                client_msg_id,
                seq,
                ..
            } = event
            {
                seqs.entry((user, conversation, client_msg_id))
                    .or_default()
                    .insert(*seq);
            }
        }
        for ((user, conversation, id), seqs) in seqs.into_iter().filter(|(_, seqs)| seqs.len() > 1) {
            self.report(
                Rule::SeqChanged,
                format!("{id} of {user} in {conversation} was acknowledged as {seqs:?}"),
            );
        }
    }

    /// Pushes of a session ascend, and leave nothing out but what it was told to fetch.
    fn pushes(&mut self) {
        let mut last: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        let mut follows: BTreeSet<(u64, &str)> = BTreeSet::new();
        for event in events(self.history) {
            match event {
                Event::Resume {
                    session,
                    conversation,
                    after_seq,
                } => {
                    follows.insert((*session, conversation));
                    last.insert((*session, conversation), *after_seq);
                }
                Event::Lagged {
                    session,
                    conversation,
                    tail_seq,
                } => {
                    let last = last.entry((*session, conversation)).or_default();
                    *last = (*last).max(*tail_seq);
                }
                Event::Push { session, message } => {
                    let place = (*session, message.conversation.as_str());
                    let before = last.insert(place, message.seq).unwrap_or_default();
                    if message.seq <= before {
                        let what = format!(
                            "session {session} got seq {} of {} after {before}",
                            message.seq, place.1
                        );
                        self.report(Rule::Reordered, what);
                    } else if follows.contains(&place) && message.seq > before + 1 {
                        let what = format!(
                            "session {session} got seq {} of {} right after {before}",
                            message.seq, place.1
                        );
                        self.report(Rule::PushMissing, what);
                    }
                }
                Event::Send { .. } | Event::Ack { .. } | Event::Page { .. } | Event::Receipt { .. } => {}
            }
        }
    }

    /// Whatever a session was shown of a conversation is there at the end.
    fn shown_to_stay(&mut self) {
        let ends = self.ends();
        let shown = |event: &'a Event| match event {
            Event::Push { session, message } => Some((*session, message.conversation.as_str(), message.seq)),
            Event::Lagged {
                session,
                conversation,
                tail_seq,
            } => Some((*session, conversation.as_str(), *tail_seq)),
            Event::Send { .. }
            | Event::Ack { .. }
            | Event::Resume { .. }
            | Event::Page { .. }
            | Event::Receipt { .. } => None,
        };
        for (session, conversation, seq) in events(self.history).filter_map(shown) {
            match ends.get(conversation) {
                None => self.report(Rule::NotJudged, format!("nobody read {conversation} at the end")),
                Some(end) if seq > *end => {
                    let what = format!("session {session} was shown seq {seq} of {conversation}, which ends at {end}");
                    self.report(Rule::Vanished, what);
                }
                Some(_) => {}
            }
        }
    }

    /// The last seq of each conversation that anybody read at the end.
    fn ends(&self) -> BTreeMap<&'a str, u64> {
        let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
        for ((conversation, _), messages) in &self.finals {
            let end = ends.entry(conversation).or_default();
            *end = messages.iter().map(|message| message.seq).fold(*end, u64::max);
        }
        ends
    }

    /// Delivered and read only grow, and read ≤ delivered ≤ last.
    fn receipts(&mut self) {
        let ends = self.ends();
        let mut before: BTreeMap<(u64, &str, &str), (u64, u64)> = BTreeMap::new();
        for event in events(self.history) {
            let Event::Receipt {
                session,
                conversation,
                user,
                delivered_seq,
                read_seq,
            } = event
            else {
                continue;
            };
            let now = (*delivered_seq, *read_seq);
            let then = before.insert((*session, conversation, user), now).unwrap_or_default();
            if now.0 < then.0 || now.1 < then.1 {
                let what = format!(
                    "session {session}: (delivered, read) of {user} in {conversation} went from {then:?} to {now:?}"
                );
                self.report(Rule::Receded, what);
            }
            let end = ends.get(conversation.as_str()).copied();
            if now.1 > now.0 || end.is_some_and(|end| now.0 > end) {
                let what = format!("(delivered, read) of {user} in {conversation} is {now:?}, its end {end:?}");
                self.report(Rule::ReceiptOutOfRange, what);
            }
        }
    }
}

fn events(history: &History) -> impl Iterator<Item = &Event> {
    history.records.iter().map(|record| &record.event)
}

fn seen(history: &History) -> impl Iterator<Item = &Seen> {
    events(history).flat_map(|event| match event {
        Event::Push { message, .. } => std::slice::from_ref(message),
        Event::Page { messages, .. } => messages.as_slice(),
        Event::Send { .. }
        | Event::Ack { .. }
        | Event::Resume { .. }
        | Event::Lagged { .. }
        | Event::Receipt { .. } => &[],
    })
}

fn key(message: &Seen) -> Key<'_> {
    (&message.sender, &message.conversation, &message.client_msg_id)
}
