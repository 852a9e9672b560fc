//! How long messages take from one person's call to another one's screen, by the way that they go.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    history::{Event, History},
    member::Seat,
    report::percentile,
};

/// Messages that went one way: from a sender's edge over the home to a receiver's edge.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// The sender's edge.
    pub from: String,
    /// The edge at which the conversation was founded, and in whose region it is homed unless its home has moved since.
    pub home: String,
    /// The receiver's edge.
    pub to: String,
    /// How many arrived.
    pub messages: usize,
    /// From the call to the arrival, in milliseconds: half were faster.
    pub p50_ms: f64,
    /// As `p50_ms`: one in a hundred was slower.
    pub p99_ms: f64,
}

type Way<'a> = (&'a str, &'a str, &'a str);

/// The delays of everything that was sent after `warm_up` and pushed to others than its sender. Seats are in the order of their
/// sessions.
pub(crate) fn delays(
    history: &History,
    warm_up: Duration,
    seats: &[Seat],
    homes: &BTreeMap<String, String>,
) -> Vec<Delay> {
    let edge_of = |session: u64| Some(seats.get(usize::try_from(session).ok()?)?.edge.as_str());
    let mut sent: BTreeMap<(&str, &str), (u64, u128)> = BTreeMap::new();
    let mut ways: BTreeMap<Way<'_>, Vec<Duration>> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Send {
                session,
                conversation,
                client_msg_id,
                ..
            } if record.at_us >= warm_up.as_micros() => {
                sent.insert((conversation, client_msg_id), (*session, record.at_us));
            }
            Event::Push { session, message } => {
                let key = (message.conversation.as_str(), message.client_msg_id.as_str());
                let Some((sender, began_us)) = sent.get(&key).filter(|(sender, _)| sender != session) else {
                    continue;
                };
                let home = homes.get(&message.conversation).map(String::as_str);
                let (Some(from), Some(home), Some(to)) = (edge_of(*sender), home, edge_of(*session)) else {
                    continue;
                };
                let took_us = u64::try_from(record.at_us - began_us).unwrap_or(u64::MAX);
                let took = ways.entry((from, home, to)).or_default();
                took.push(Duration::from_micros(took_us));
            }
            Event::Send { .. }
            | Event::Ack { .. }
            | Event::Resume { .. }
            | Event::Lagged { .. }
            | Event::Page { .. }
            | Event::Receipt { .. } => {}
        }
    }
    ways.into_iter().map(|(way, took)| delay(way, took)).collect()
}

fn delay((from, home, to): Way<'_>, mut took: Vec<Duration>) -> Delay {
    took.sort_unstable();
    let ms = |of_hundred| percentile(&took, of_hundred).as_secs_f64() * 1e3;
    Delay {
        from: from.to_owned(),
        home: home.to_owned(),
        to: to.to_owned(),
        messages: took.len(),
        p50_ms: ms(50),
        p99_ms: ms(99),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_client::Tokens;

    use super::*;
    use crate::history::{Record, Seen};

    fn seat(edge: &str) -> Seat {
        Seat {
            edge: edge.to_owned(),
            username: String::new(),
            password: String::new(),
            tokens: Tokens {
                access_token: String::new(),
                refresh_token: String::new(),
                expires_in_s: 0,
                user_id: String::new(),
            },
            conversations: Vec::new(),
            transport: None,
        }
    }

    fn send(at_us: u128, session: u64, id: &str) -> Record {
        let event = Event::Send {
            session,
            user: String::new(),
            conversation: "c".to_owned(),
            client_msg_id: id.to_owned(),
            text: String::new(),
        };
        Record { at_us, event }
    }

    fn push(at_us: u128, session: u64, id: &str) -> Record {
        let message = Seen {
            conversation: "c".to_owned(),
            seq: 1,
            sender: String::new(),
            client_msg_id: id.to_owned(),
            text: String::new(),
        };
        let event = Event::Push { session, message };
        Record { at_us, event }
    }

    #[test]
    fn a_delay_is_from_the_first_call_after_the_warm_up_to_each_arrival_at_another() {
        let records = vec![
            send(999, 0, "too soon"),
            send(1_000, 0, "a"),
            push(3_000, 1, "too soon"),
            push(3_000, 0, "a"),
            push(5_000, 1, "a"),
            push(9_500, 2, "a"),
            push(9_900, 1, "of nobody here"),
        ];
        let homes = BTreeMap::from([("c".to_owned(), "home".to_owned())]);
        let warm_up = Duration::from_millis(1);
        let found = delays(
            &History { records },
            warm_up,
            &[seat("x"), seat("y"), seat("z")],
            &homes,
        );
        let found: Vec<_> = found
            .iter()
            .map(|delay| {
                (
                    delay.from.as_str(),
                    delay.to.as_str(),
                    delay.messages,
                    delay.p50_ms,
                    delay.p99_ms,
                )
            })
            .collect();
        assert_eq!(found, [("x", "y", 1, 4.0, 4.0), ("x", "z", 1, 8.5, 8.5)]);
    }
}
