//! Read marks against a model of a server that refuses for a while, and of connections that break.

use std::collections::BTreeMap;

use antiphon_proto::client::{Read, Welcome};
use proptest::prelude::*;

use super::*;

fn connected() -> Core {
    let mut core = Core::new(CoreOptions::default(), []);
    connect(&mut core, 0);
    core
}

fn connect(core: &mut Core, now_ms: u64) {
    core.connected(Welcome::default(), Transport::Quic, now_ms);
}

fn outputs(core: &mut Core) -> Vec<Output> {
    let told = |output: &Output| {
        !matches!(
            output,
            Output::Event(Event::Connected { .. } | Event::Disconnected { .. })
        )
    };
    std::iter::from_fn(|| core.poll()).filter(told).collect()
}

/// The marks transmitted since it was last asked, as frame id and mark.
fn transmitted(core: &mut Core) -> Vec<(String, Read)> {
    let read = |output| match output {
        Output::Frame(ClientFrame {
            id,
            body: Some(client_frame::Body::Read(read)),
        }) => (id, read),
        other => panic!("{other:?}"),
    };
    outputs(core).into_iter().map(read).collect()
}

fn the_one_transmitted(core: &mut Core) -> (String, u64) {
    let mut marks = transmitted(core);
    assert_eq!(marks.len(), 1, "{marks:?}");
    let (id, read) = marks.remove(0);
    (id, read.seq)
}

fn confirm(core: &mut Core, id: String) {
    let body = Some(Body::Ok(client::Ok {}));
    core.receive(ServerFrame { id, body }, 0);
}

fn refuse(core: &mut Core, id: String, code: &str, retry_after_ms: Option<u64>, now_ms: u64) {
    let error = Error {
        code: code.to_owned(),
        message: String::new(),
        retry_after_ms,
    };
    let body = Some(Body::Error(error));
    core.receive(ServerFrame { id, body }, now_ms);
}

fn marked(seq: u64) -> Output {
    Output::Marked {
        conversation_id: CONVERSATION.into(),
        seq,
    }
}

#[test]
fn a_mark_made_without_a_connection_is_transmitted_on_the_next() {
    let mut core = Core::new(CoreOptions::default(), []);
    core.read(CONVERSATION.into(), 7, 0);
    assert_eq!(outputs(&mut core), []);
    connect(&mut core, 0);
    assert_eq!(the_one_transmitted(&mut core).1, 7);
}

#[test]
fn a_mark_whose_confirmation_is_lost_is_transmitted_again_until_it_is_confirmed() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    for _ in 0..3 {
        assert_eq!(the_one_transmitted(&mut core).1, 7);
        core.disconnected("cut".into());
        connect(&mut core, 0);
    }
    let (id, _) = the_one_transmitted(&mut core);
    confirm(&mut core, id);
    assert_eq!(outputs(&mut core), [marked(7)]);
    core.disconnected("cut".into());
    connect(&mut core, 0);
    assert_eq!(outputs(&mut core), []);
}

#[test]
fn marks_that_wait_become_the_highest() {
    let mut core = Core::new(CoreOptions::default(), []);
    for seq in [3, 9, 5, 8] {
        core.read(CONVERSATION.into(), seq, 0);
    }
    connect(&mut core, 0);
    assert_eq!(the_one_transmitted(&mut core).1, 9);
}

#[test]
fn marks_made_while_one_is_under_way_become_one_after_it() {
    let mut core = connected();
    for seq in 1..=100 {
        core.read(CONVERSATION.into(), seq, 0);
    }
    let (id, seq) = the_one_transmitted(&mut core);
    assert_eq!(seq, 1);
    confirm(&mut core, id);
    assert_eq!(core.poll(), Some(marked(1)));
    assert_eq!(the_one_transmitted(&mut core).1, 100);
}

#[test]
fn a_mark_below_a_confirmed_one_is_answered_without_the_server() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    confirm(&mut core, id);
    assert_eq!(outputs(&mut core), [marked(7)]);
    core.read(CONVERSATION.into(), 4, 0);
    assert_eq!(outputs(&mut core), [marked(7)]);
}

#[test]
fn a_final_refusal_is_told_once_and_not_retried() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    refuse(&mut core, id, "NOT_FOUND", None, 0);
    let told = outputs(&mut core);
    assert!(
        matches!(&told[..], [Output::NotMarked { seq: 7, error, .. }] if error.code == "NOT_FOUND"),
        "{told:?}"
    );
    core.tick(1_000_000);
    core.disconnected("cut".into());
    connect(&mut core, 1_000_000);
    assert_eq!(outputs(&mut core), []);
}

#[test]
fn a_mark_made_while_a_lower_one_is_refused_stands_on_its_own() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    core.read(CONVERSATION.into(), 8, 0);
    refuse(&mut core, id, "INVALID_ARGUMENT", None, 0);
    assert!(matches!(core.poll(), Some(Output::NotMarked { seq: 7, .. })));
    assert_eq!(the_one_transmitted(&mut core).1, 8);
}

#[test]
fn a_mark_refused_for_a_while_waits_as_long_as_the_server_says() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    refuse(&mut core, id, "RATE_LIMITED", Some(500), 1_000);
    core.read(CONVERSATION.into(), 8, 1_100);
    core.tick(1_499);
    assert_eq!(outputs(&mut core), []);
    core.tick(1_500);
    assert_eq!(the_one_transmitted(&mut core).1, 8);
}

#[test]
fn an_expired_token_keeps_the_mark_for_the_next_connection() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    refuse(&mut core, id, "TOKEN_EXPIRED", None, 0);
    assert!(matches!(outputs(&mut core)[..], [Output::Unauthenticated(_)]));
    core.disconnected("expired".into());
    connect(&mut core, 0);
    assert_eq!(the_one_transmitted(&mut core).1, 7);
}

#[test]
fn marks_of_many_conversations_do_not_flood_a_new_connection() {
    let mut core = Core::new(CoreOptions::default(), []);
    for number in 0..100 {
        core.read(format!("c{number}"), 1, 0);
    }
    connect(&mut core, 0);
    let mut under_way: VecDeque<_> = transmitted(&mut core).into();
    let at_once = under_way.len();
    assert!((1..=16).contains(&at_once), "{at_once} at once");
    let mut answered = 0;
    while let Some((id, _)) = under_way.pop_front() {
        confirm(&mut core, id);
        assert!(matches!(core.poll(), Some(Output::Marked { .. })));
        answered += 1;
        under_way.extend(transmitted(&mut core));
        assert!(under_way.len() <= at_once);
    }
    assert_eq!(answered, 100);
}

#[test]
fn leaving_a_conversation_forgets_what_was_confirmed_there() {
    let mut core = connected();
    core.read(CONVERSATION.into(), 7, 0);
    let (id, _) = the_one_transmitted(&mut core);
    confirm(&mut core, id);
    let removed = client::ConversationEvent {
        conversation_id: CONVERSATION.into(),
        change: "removed".into(),
        ..Default::default()
    };
    let body = Some(Body::Conversation(removed));
    core.receive(
        ServerFrame {
            id: String::new(),
            body,
        },
        0,
    );
    outputs(&mut core);
    core.read(CONVERSATION.into(), 2, 0);
    assert_eq!(the_one_transmitted(&mut core).1, 2);
}

#[derive(Debug, Clone)]
enum Step {
    /// The user reads.
    Read {
        conversation: u8,
        seq: u64,
    },
    /// The server takes what was transmitted; so many of its answers reach the client.
    Exchange(u8),
    /// The server refuses what it takes next, for so long.
    Refuse {
        retry_after_ms: u64,
    },
    /// The connection breaks with all that is under way, and comes back.
    Break {
        is_handled: bool,
    },
    Tick(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 0..50_u64).prop_map(|(conversation, seq)| Step::Read { conversation, seq }),
        4 => (0..4_u8).prop_map(Step::Exchange),
        1 => (1..400_u64).prop_map(|retry_after_ms| Step::Refuse { retry_after_ms }),
        2 => any::<bool>().prop_map(|is_handled| Step::Break { is_handled }),
        2 => (1..300_u16).prop_map(Step::Tick),
    ]
}

/// The marks of some conversations: as the user made them, as the server holds them, as the app was told.
struct Reading {
    core: Core,
    now_ms: u64,
    wanted: BTreeMap<String, u64>,
    read: BTreeMap<String, u64>,
    told: BTreeMap<String, u64>,
    not_before_ms: BTreeMap<String, u64>,
    under_way: BTreeMap<String, usize>,
    transmitted: VecDeque<(String, Read)>,
    to_client: VecDeque<(String, Read, Result<(), u64>)>,
    refusals: VecDeque<u64>,
}

impl Reading {
    fn new() -> Self {
        let mut reading = Self {
            core: connected(),
            now_ms: 0,
            wanted: BTreeMap::new(),
            read: BTreeMap::new(),
            told: BTreeMap::new(),
            not_before_ms: BTreeMap::new(),
            under_way: BTreeMap::new(),
            transmitted: VecDeque::new(),
            to_client: VecDeque::new(),
            refusals: VecDeque::new(),
        };
        reading.collect();
        reading
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { conversation, seq } => {
                let id = format!("c{conversation}");
                let wanted = self.wanted.entry(id.clone()).or_default();
                *wanted = seq.max(*wanted);
                self.core.read(id, seq, self.now_ms);
            }
            Step::Exchange(answers) => self.exchange(usize::from(answers)),
            Step::Refuse { retry_after_ms } => self.refusals.push_back(retry_after_ms),
            Step::Break { is_handled } => {
                if is_handled {
                    self.exchange(0);
                }
                self.transmitted.clear();
                self.to_client.clear();
                self.under_way.clear();
                self.core.disconnected("cut".into());
                self.collect();
                connect(&mut self.core, self.now_ms);
            }
            Step::Tick(ms) => {
                self.now_ms += u64::from(ms);
                self.core.tick(self.now_ms);
            }
        }
        self.collect();
    }

    fn exchange(&mut self, answers: usize) {
        for (id, mark) in std::mem::take(&mut self.transmitted) {
            let read = self.read.entry(mark.conversation_id.clone()).or_default();
            assert!(mark.seq >= *read, "{} went down to {}", read, mark.seq);
            let answer = match self.refusals.pop_front() {
                Some(retry_after_ms) => Err(retry_after_ms),
                None => {
                    *read = mark.seq;
                    Ok(())
                }
            };
            self.to_client.push_back((id, mark, answer));
        }
        for _ in 0..answers {
            let Some((id, mark, answer)) = self.to_client.pop_front() else {
                break;
            };
            *self.under_way.entry(mark.conversation_id.clone()).or_default() -= 1;
            match answer {
                Ok(()) => confirm(&mut self.core, id),
                Err(retry_after_ms) => {
                    self.not_before_ms
                        .insert(mark.conversation_id, self.now_ms + retry_after_ms);
                    refuse(&mut self.core, id, "RATE_LIMITED", Some(retry_after_ms), self.now_ms);
                }
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        for output in outputs(&mut self.core) {
            match output {
                Output::Frame(ClientFrame {
                    id,
                    body: Some(client_frame::Body::Read(mark)),
                }) => {
                    let under_way = self.under_way.entry(mark.conversation_id.clone()).or_default();
                    *under_way += 1;
                    assert_eq!(*under_way, 1, "two marks of one conversation under way");
                    let not_before_ms = self.not_before_ms.get(&mark.conversation_id).copied().unwrap_or(0);
                    assert!(self.now_ms >= not_before_ms, "did not wait until {not_before_ms} ms");
                    self.transmitted.push_back((id, mark));
                }
                Output::Marked { conversation_id, seq } => {
                    let read = self.read.get(&conversation_id).copied().unwrap_or(0);
                    assert!(seq <= read, "told {seq} when the server held {read}");
                    let told = self.told.entry(conversation_id).or_default();
                    assert!(seq >= *told, "told {seq} after {told}");
                    *told = seq;
                }
                other => unreachable!("{other:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn the_highest_mark_of_each_conversation_arrives_and_is_confirmed(steps in prop::collection::vec(step(), 1..200)) {
        let mut reading = Reading::new();
        for step in &steps {
            reading.step(step);
        }
        reading.refusals.clear();
        for _ in 0..10 {
            reading.step(&Step::Exchange(u8::MAX));
            reading.step(&Step::Tick(400));
        }
        reading.wanted.retain(|_, seq| *seq > 0);
        reading.told.retain(|_, seq| *seq > 0);
        prop_assert_eq!(&reading.told, &reading.wanted);
        reading.read.retain(|_, seq| *seq > 0);
        prop_assert_eq!(&reading.read, &reading.wanted);
        prop_assert!(reading.transmitted.is_empty(), "transmitted after all was confirmed");
    }
}
