//! The checker finds what it is there to find.

use crate::support::checker::{Record, check};

fn send(key: &str) -> Record {
    Record::Send {
        conversation: "c".into(),
        key: key.into(),
        text: format!("text {key}"),
    }
}

fn ack(key: &str, seq: u64) -> Record {
    Record::Ack {
        conversation: "c".into(),
        key: key.into(),
        seq,
    }
}

fn push(connection: u64, key: &str, seq: u64) -> Record {
    Record::Push {
        connection,
        conversation: "c".into(),
        key: key.into(),
        seq,
        text: format!("text {key}"),
    }
}

fn found(messages: &[(u64, &str)]) -> Record {
    let messages = messages
        .iter()
        .map(|(seq, key)| (*seq, (*key).to_owned(), format!("text {key}")))
        .collect();
    Record::Final {
        reader: "r".into(),
        conversation: "c".into(),
        messages,
    }
}

fn receipt(delivered: u64, read: u64) -> Record {
    Record::Receipt {
        connection: 1,
        conversation: "c".into(),
        user: "u".into(),
        delivered,
        read,
    }
}

fn invariants(history: &[Record]) -> Vec<&'static str> {
    check(history)
        .into_iter()
        .map(|violation| violation.invariant)
        .collect()
}

#[test]
fn a_clean_history_is_clean() {
    let history = [
        send("a"),
        ack("a", 1),
        push(1, "a", 1),
        send("b"),
        send("b"),
        push(1, "b", 2),
        ack("b", 2),
        push(2, "a", 1),
        push(2, "b", 2),
        receipt(1, 0),
        receipt(2, 2),
        found(&[(1, "a"), (2, "b")]),
    ];
    assert_eq!(check(&history), []);
}

#[test]
fn a_lost_message_is_found() {
    assert_eq!(
        invariants(&[send("a"), ack("a", 1), send("b"), ack("b", 2), found(&[(1, "a")])]),
        ["I1"]
    );
}

#[test]
fn a_doubled_message_is_found() {
    assert_eq!(
        invariants(&[send("a"), ack("a", 1), found(&[(1, "a"), (2, "a")])]).first(),
        Some(&"I1")
    );
}

#[test]
fn a_reordered_message_is_found() {
    assert_eq!(invariants(&[push(1, "b", 2), push(1, "a", 1)]), ["I2"]);
}

#[test]
fn two_readers_that_see_different_orders_are_found() {
    assert_eq!(invariants(&[push(1, "a", 1), push(2, "b", 1)]), ["I2"]);
    assert_eq!(invariants(&[push(1, "a", 1), found(&[(1, "b")])]), ["I2"]);
}

#[test]
fn a_hole_is_found() {
    assert_eq!(invariants(&[found(&[(1, "a"), (3, "b")])]), ["I2"]);
}

#[test]
fn a_resend_that_gets_another_seq_is_found() {
    assert!(invariants(&[ack("a", 1), ack("a", 2)]).contains(&"I5"));
}

#[test]
fn a_changed_text_is_found() {
    let changed = vec![(1, "a".to_owned(), "another".to_owned())];
    let history = [
        send("a"),
        Record::Final {
            reader: "r".into(),
            conversation: "c".into(),
            messages: changed,
        },
    ];
    assert_eq!(invariants(&history), ["I1"]);
}

#[test]
fn a_receipt_that_recedes_or_runs_ahead_is_found() {
    assert_eq!(invariants(&[receipt(3, 1), receipt(2, 1)]), ["I6"]);
    assert_eq!(invariants(&[receipt(1, 2)]), ["I6"]);
    assert_eq!(invariants(&[receipt(2, 1), found(&[(1, "a")])]), ["I6"]);
}
