//! The checker has to see what is wrong.

use antiphon_probe::{Event, History, Record, Rule, Seen, check};

const CONVERSATION: &str = "c_1";
const SENDER: &str = "u_a";
const READERS: [&str; 2] = [SENDER, "u_b"];

fn message(seq: u64, id: &str) -> Seen {
    Seen {
        conversation: CONVERSATION.to_owned(),
        seq,
        sender: SENDER.to_owned(),
        client_msg_id: id.to_owned(),
        text: format!("text of {id}"),
    }
}

fn send(id: &str) -> Event {
    Event::Send {
        session: 1,
        user: SENDER.to_owned(),
        conversation: CONVERSATION.to_owned(),
        client_msg_id: id.to_owned(),
        text: format!("text of {id}"),
    }
}

fn ack(id: &str, seq: u64) -> Event {
    Event::Ack {
        session: 1,
        user: SENDER.to_owned(),
        conversation: CONVERSATION.to_owned(),
        client_msg_id: id.to_owned(),
        seq,
    }
}

fn page(reader: &str, messages: &[Seen]) -> Event {
    Event::Page {
        reader: reader.to_owned(),
        conversation: CONVERSATION.to_owned(),
        messages: messages.to_vec(),
    }
}

fn push(session: u64, message: Seen) -> Event {
    Event::Push { session, message }
}

fn resume(session: u64, after_seq: u64) -> Event {
    Event::Resume {
        session,
        conversation: CONVERSATION.to_owned(),
        after_seq,
    }
}

fn receipt(session: u64, delivered_seq: u64, read_seq: u64) -> Event {
    Event::Receipt {
        session,
        conversation: CONVERSATION.to_owned(),
        user: "u_b".to_owned(),
        delivered_seq,
        read_seq,
    }
}

/// Three messages, sent, acknowledged, pushed to two sessions and read, the second after a resend.
fn clean() -> Vec<Event> {
    let all = [message(1, "m1"), message(2, "m2"), message(3, "m3")];
    let mut events = vec![
        send("m1"),
        ack("m1", 1),
        send("m2"),
        send("m2"),
        ack("m2", 2),
        ack("m2", 2),
        send("m3"),
        ack("m3", 3),
    ];
    events.extend([
        resume(2, 0),
        push(2, all[0].clone()),
        push(2, all[1].clone()),
        push(2, all[2].clone()),
    ]);
    events.extend([resume(3, 1), push(3, all[1].clone())]);
    events.extend([receipt(1, 1, 0), receipt(1, 3, 2), receipt(1, 3, 3)]);
    events.extend(READERS.map(|reader| page(reader, &all)));
    events
}

fn rules(events: Vec<Event>) -> Vec<Rule> {
    let records = events
        .into_iter()
        .zip(0..)
        .map(|(event, at_us)| Record { at_us, event })
        .collect();
    let mut rules: Vec<Rule> = check(&History { records })
        .into_iter()
        .map(|violation| violation.rule)
        .collect();
    rules.dedup();
    rules
}

/// The clean history, with other final pages.
fn with_pages(messages: &[Seen]) -> Vec<Event> {
    let mut events = clean();
    events.retain(|event| !matches!(event, Event::Page { .. }));
    events.extend(READERS.map(|reader| page(reader, messages)));
    events
}

#[test]
fn a_clean_history_is_not_reported() {
    assert_eq!(rules(clean()), []);
}

#[test]
fn an_unacknowledged_message_may_be_there_or_not() {
    let mut events = clean();
    events.push(send("m4"));
    assert_eq!(rules(events), []);
    let all = [message(1, "m1"), message(2, "m2"), message(3, "m3"), message(4, "m4")];
    let mut events = with_pages(&all);
    events.push(send("m4"));
    assert_eq!(rules(events), []);
}

#[test]
fn a_lost_message_is_reported() {
    assert!(rules(with_pages(&[message(1, "m1"), message(2, "m2")])).contains(&Rule::Lost));
}

#[test]
fn a_message_lost_for_one_reader_is_reported() {
    let mut events = clean();
    events.pop();
    events.push(page(READERS[1], &[message(1, "m1"), message(2, "m2")]));
    assert_eq!(rules(events), [Rule::Lost, Rule::ReadersDiffer]);
}

#[test]
fn a_doubled_message_is_reported() {
    let all = [message(1, "m1"), message(2, "m2"), message(3, "m3"), message(4, "m2")];
    assert_eq!(rules(with_pages(&all)), [Rule::Doubled]);
}

#[test]
fn reordered_messages_are_reported() {
    let all = [message(1, "m1"), message(2, "m3"), message(3, "m2")];
    assert!(rules(with_pages(&all)).contains(&Rule::Moved));
    let page_out_of_order = [message(1, "m1"), message(3, "m3"), message(2, "m2")];
    assert_eq!(rules(with_pages(&page_out_of_order)), [Rule::Reordered]);
}

#[test]
fn a_push_after_a_later_one_is_reported() {
    let mut events = clean();
    events.push(push(3, message(1, "m1")));
    assert_eq!(rules(events), [Rule::Reordered]);
}

#[test]
fn a_push_that_comes_twice_is_reported() {
    let mut events = clean();
    events.push(push(3, message(2, "m2")));
    assert_eq!(rules(events), [Rule::Reordered]);
}

#[test]
fn a_push_that_was_left_out_is_reported_unless_the_session_was_told() {
    let skips = [resume(9, 1), push(9, message(3, "m3"))];
    let mut events = clean();
    events.extend(skips.clone());
    assert_eq!(rules(events), [Rule::PushMissing]);
    let mut events = clean();
    let [resumed, pushed] = skips;
    events.extend([
        resumed,
        Event::Lagged {
            session: 9,
            conversation: CONVERSATION.to_owned(),
            tail_seq: 2,
        },
        pushed,
    ]);
    assert_eq!(rules(events), []);
}

#[test]
fn a_push_beyond_the_end_is_reported() {
    let mut events = clean();
    events.extend([send("m4"), push(7, message(4, "m4"))]);
    assert_eq!(rules(events), [Rule::Vanished]);
    let mut events = clean();
    events.push(Event::Lagged {
        session: 7,
        conversation: CONVERSATION.to_owned(),
        tail_seq: 4,
    });
    assert_eq!(rules(events), [Rule::Vanished]);
}

#[test]
fn an_acknowledgement_beyond_the_end_is_reported() {
    let mut events = clean();
    events.extend([send("m4"), ack("m4", 4)]);
    assert_eq!(rules(events), [Rule::Lost]);
    // The message is there, and not where it was said to be.
    let mut events = clean();
    events.push(ack("m3", 4));
    assert_eq!(rules(events), [Rule::Moved, Rule::SeqChanged]);
}

#[test]
fn another_seq_on_resend_is_reported() {
    let mut events = clean();
    events.push(ack("m2", 3));
    assert_eq!(rules(events), [Rule::Moved, Rule::SeqChanged]);
}

#[test]
fn a_hole_is_reported() {
    let all = [message(1, "m1"), message(2, "m2"), message(3, "m3"), message(5, "m5")];
    let mut events = with_pages(&all);
    events.push(send("m5"));
    assert_eq!(rules(events), [Rule::Hole]);
}

#[test]
fn a_hole_at_the_beginning_is_reported() {
    assert!(rules(with_pages(&[message(2, "m2"), message(3, "m3")])).contains(&Rule::Hole));
}

#[test]
fn another_text_is_reported() {
    let mut altered = message(3, "m3");
    altered.text.push('!');
    assert!(rules(with_pages(&[message(1, "m1"), message(2, "m2"), altered])).contains(&Rule::Altered));
}

#[test]
fn a_message_that_nobody_sent_is_reported() {
    let all = [message(1, "m1"), message(2, "m2"), message(3, "m3"), message(4, "m4")];
    assert_eq!(rules(with_pages(&all)), [Rule::Altered]);
}

#[test]
fn readers_that_see_different_messages_are_reported() {
    let mut events = clean();
    events.push(send("other"));
    events.push(push(7, message(2, "other")));
    assert_eq!(rules(events), [Rule::ReadersDiffer]);
}

#[test]
fn a_receding_read_is_reported() {
    let mut events = clean();
    events.push(receipt(1, 3, 1));
    assert_eq!(rules(events), [Rule::Receded]);
}

#[test]
fn a_receding_delivered_is_reported() {
    let mut events = clean();
    events.extend([receipt(5, 3, 1), receipt(5, 2, 1)]);
    assert_eq!(rules(events), [Rule::Receded]);
}

#[test]
fn read_beyond_delivered_and_delivered_beyond_the_end_are_reported() {
    for wrong in [receipt(5, 1, 2), receipt(5, 4, 0)] {
        let mut events = clean();
        events.push(wrong);
        assert_eq!(rules(events), [Rule::ReceiptOutOfRange]);
    }
}

#[test]
fn a_conversation_that_nobody_read_at_the_end_is_reported() {
    let mut events = clean();
    events.retain(|event| !matches!(event, Event::Page { .. }));
    assert_eq!(rules(events), [Rule::NotJudged]);
}
