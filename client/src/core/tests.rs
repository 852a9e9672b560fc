//! The session against a model of a server that loses, repeats and reorders.

#![allow(clippy::wildcard_enum_match_arm, reason = "a model speaks a part of the protocol")]

mod marks;

use antiphon_proto::client::{Message, Page, Welcome};
use proptest::prelude::*;

use super::*;
use crate::Transport;

const CONVERSATION: &str = "c";

/// A server of one conversation.
#[derive(Default)]
struct Server {
    log: Vec<Message>,
    keys: HashMap<String, u64>,
    to_client: VecDeque<ServerFrame>,
    refusals_left: u32,
}

impl Server {
    fn append(&mut self, client_msg_id: String) -> u64 {
        if let Some(seq) = self.keys.get(&client_msg_id) {
            return *seq;
        }
        let seq = self.log.len() as u64 + 1;
        self.keys.insert(client_msg_id.clone(), seq);
        self.log.push(Message {
            conversation_id: CONVERSATION.into(),
            seq,
            client_msg_id,
            ..Message::default()
        });
        seq
    }

    fn push(&mut self, seq: u64) {
        let at = usize::try_from(seq - 1).unwrap();
        self.event(Body::Message(self.log[at].clone()));
    }

    fn event(&mut self, body: Body) {
        self.to_client.push_back(ServerFrame {
            id: String::new(),
            body: Some(body),
        });
    }

    fn handle(&mut self, frame: ClientFrame) {
        let body = match frame.body.unwrap() {
            client_frame::Body::Send(_) if self.refusals_left > 0 => {
                self.refusals_left -= 1;
                let code = "RESOURCE_EXHAUSTED".to_owned();
                Body::Error(Error {
                    code,
                    message: String::new(),
                    retry_after_ms: Some(5),
                })
            }
            client_frame::Body::Send(send) => {
                let is_new = !self.keys.contains_key(&send.client_msg_id);
                let seq = self.append(send.client_msg_id);
                if is_new {
                    self.push(seq);
                }
                Body::Sent(client::Sent { seq, sent_at_ms: 1 })
            }
            client_frame::Body::Fetch(fetch) => {
                let after = usize::try_from(fetch.after_seq.unwrap()).unwrap();
                let messages = self.log.iter().skip(after).take(3).cloned().collect();
                Body::Page(Page {
                    conversation_id: fetch.conversation_id,
                    messages,
                    tail_seq: self.log.len() as u64,
                })
            }
            client_frame::Body::Ack(ack) => {
                assert!(
                    ack.delivered_seq <= self.log.len() as u64,
                    "acknowledged what does not exist"
                );
                return;
            }
            other => unreachable!("{other:?}"),
        };
        self.to_client.push_back(ServerFrame {
            id: frame.id,
            body: Some(body),
        });
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The user sends.
    Send,
    /// Somebody else's message; pushed or not.
    Other {
        is_pushed: bool,
    },
    /// A message that was pushed before comes again.
    Again(u8),
    Lagged,
    /// The server takes and answers what was transmitted; so many frames reach the client.
    Exchange(u8),
    /// Two frames under way change places.
    Swap,
    /// The connection breaks with all that is under way, and comes back.
    Break {
        is_handled: bool,
    },
    Refuse,
    Tick(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        3 => any::<bool>().prop_map(|is_pushed| Step::Other { is_pushed }),
        1 => any::<u8>().prop_map(Step::Again),
        1 => Just(Step::Lagged),
        6 => (0..6_u8).prop_map(Step::Exchange),
        1 => Just(Step::Swap),
        1 => any::<bool>().prop_map(|is_handled| Step::Break { is_handled }),
        1 => Just(Step::Refuse),
        4 => (1..500_u16).prop_map(Step::Tick),
    ]
}

struct World {
    core: Core,
    server: Server,
    transmitted: VecDeque<ClientFrame>,
    now_ms: u64,
    seen: u64,
    numbered: HashMap<u64, String>,
    sent: HashMap<String, u64>,
    order: Vec<u64>,
    taken: u64,
}

impl World {
    fn new(in_flight_per_conversation_max: usize) -> Self {
        let options = CoreOptions {
            in_flight_per_conversation_max,
            reorder_len_max: 4,
            ..CoreOptions::default()
        };
        let mut world = Self {
            core: Core::new(options, [(CONVERSATION.to_owned(), 0)]),
            server: Server::default(),
            transmitted: VecDeque::new(),
            now_ms: 1,
            seen: 0,
            numbered: HashMap::new(),
            sent: HashMap::new(),
            order: Vec::new(),
            taken: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        let resumed = client::Resumed {
            conversation_id: CONVERSATION.into(),
            tail_seq: self.server.log.len() as u64,
            truncated_from_seq: None,
        };
        self.core.connected(
            Welcome {
                resumed: vec![resumed],
                ..Welcome::default()
            },
            Transport::Quic,
            self.now_ms,
        );
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Frame(frame) => self.transmitted.push_back(frame),
                Output::Event(Event::Message(message)) => {
                    assert_eq!(message.seq, self.seen + 1, "a hole, a repeat or another order");
                    self.seen = message.seq;
                }
                Output::Sent { number, sent, .. } => {
                    let client_msg_id = self.numbered[&number].clone();
                    assert_eq!(self.sent.insert(client_msg_id, sent.seq), None, "answered twice");
                    self.order.push(sent.seq);
                }
                Output::Event(Event::Connected { .. } | Event::Disconnected { .. }) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }

    fn exchange(&mut self, frames: usize) {
        for frame in std::mem::take(&mut self.transmitted) {
            self.server.handle(frame);
        }
        for _ in 0..frames {
            let Some(frame) = self.server.to_client.pop_front() else {
                break;
            };
            self.core.receive(frame, self.now_ms);
            self.collect();
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send => {
                let key = format!("m{}", self.taken);
                let taken = self
                    .core
                    .send(CONVERSATION.into(), key.clone(), String::new(), self.now_ms);
                if let Ok(number) = taken {
                    self.numbered.insert(number, key);
                    self.taken += 1;
                }
            }
            Step::Other { is_pushed } => {
                let seq = self.server.append(format!("other{}", self.server.log.len()));
                if *is_pushed {
                    self.server.push(seq);
                }
            }
            Step::Again(seq) => {
                let len = self.server.log.len() as u64;
                if len > 0 {
                    self.server.push(u64::from(*seq) % len + 1);
                }
            }
            Step::Lagged => {
                let tail_seq = self.server.log.len() as u64;
                self.server.event(Body::Lagged(client::Lagged {
                    conversation_id: CONVERSATION.into(),
                    tail_seq,
                }));
            }
            Step::Exchange(frames) => self.exchange(usize::from(*frames)),
            Step::Swap => {
                if self.server.to_client.len() >= 2 {
                    self.server.to_client.swap(0, 1);
                }
            }
            Step::Break { is_handled } => {
                if *is_handled {
                    self.exchange(0);
                }
                self.transmitted.clear();
                self.server.to_client.clear();
                self.core.disconnected("cut".into());
                self.collect();
                self.connect();
            }
            Step::Refuse => self.server.refusals_left += 1,
            Step::Tick(ms) => {
                self.now_ms += u64::from(*ms);
                self.core.tick(self.now_ms);
            }
        }
        self.collect();
    }

    /// Lets the world come to rest.
    fn settle(&mut self) {
        self.server.refusals_left = 0;
        let tail_seq = self.server.log.len() as u64;
        self.server.event(Body::Lagged(client::Lagged {
            conversation_id: CONVERSATION.into(),
            tail_seq,
        }));
        for _ in 0..2_000 {
            self.step(&Step::Exchange(u8::MAX));
            self.step(&Step::Tick(300));
            let is_done = self.sent.len() as u64 == self.taken && self.seen == self.server.log.len() as u64;
            if is_done && self.transmitted.is_empty() {
                return;
            }
        }
        panic!(
            "{} of {} seen, {} of {} sent",
            self.seen,
            self.server.log.len(),
            self.sent.len(),
            self.taken
        );
    }
}

proptest! {
    #[test]
    fn the_app_sees_every_message_once_in_order_and_each_send_is_answered_once(
        in_flight in 1..4_usize,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(in_flight);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        for (client_msg_id, seq) in &world.sent {
            prop_assert_eq!(world.server.keys.get(client_msg_id), Some(seq));
        }
        if in_flight == 1 {
            let mut sorted = world.order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&world.order, &sorted, "sent in another order than taken");
        }
    }
}

#[test]
fn a_full_outbox_is_an_error_at_once() {
    let mut core = Core::new(
        CoreOptions {
            outbox_len_max: 1,
            ..CoreOptions::default()
        },
        [],
    );
    core.send("c".into(), "1".into(), "a".into(), 0).unwrap();
    assert_eq!(
        core.send("c".into(), "2".into(), "b".into(), 0),
        Err(OutboxFull { limit: 1 })
    );
}

#[test]
fn a_message_taken_twice_under_one_key_is_answered_twice() {
    let mut core = Core::new(CoreOptions::default(), []);
    core.connected(Welcome::default(), Transport::Quic, 0);
    let numbers = [(); 2].map(|()| core.send("c".into(), "1".into(), "a".into(), 0).unwrap());
    let mut server = Server::default();
    let mut answered = Vec::new();
    while let Some(output) = core.poll() {
        match output {
            Output::Frame(frame) => server.handle(frame),
            Output::Sent { number, sent, .. } => answered.push((number, sent.seq)),
            _ => {}
        }
        while let Some(frame) = server.to_client.pop_front() {
            core.receive(frame, 0);
        }
    }
    assert_eq!(answered, numbers.map(|number| (number, 1)));
    assert_eq!(core.outbox_len(), 0);
}

#[test]
fn what_retention_took_is_said() {
    let mut core = Core::new(CoreOptions::default(), [("c".to_owned(), 2)]);
    let resumed = client::Resumed {
        conversation_id: "c".into(),
        tail_seq: 9,
        truncated_from_seq: Some(6),
    };
    core.connected(
        Welcome {
            resumed: vec![resumed],
            ..Welcome::default()
        },
        Transport::Quic,
        0,
    );
    let events: Vec<_> = std::iter::from_fn(|| core.poll()).collect();
    assert!(events.contains(&Output::Event(Event::Truncated {
        conversation_id: "c".into(),
        from_seq: 6
    })));
    assert_eq!(core.cursors(), [("c".to_owned(), 5)]);
}

#[test]
fn a_conversation_that_was_unavailable_is_caught_up_with_when_it_resumes() {
    let mut core = Core::new(CoreOptions::default(), [("c".to_owned(), 2)]);
    let unavailable = client::Unavailable {
        conversation_id: "c".into(),
        retry_after_ms: 1_000,
    };
    let welcome = Welcome {
        unavailable: vec![unavailable],
        ..Welcome::default()
    };
    core.connected(welcome, Transport::Quic, 0);
    let events: Vec<_> = std::iter::from_fn(|| core.poll()).collect();
    assert!(events.contains(&Output::Event(Event::Unavailable {
        conversation_id: "c".into(),
        retry_after_ms: 1_000
    })));
    let resumed = client::Resumed {
        conversation_id: "c".into(),
        tail_seq: 9,
        truncated_from_seq: None,
    };
    let frame = client::ServerFrame {
        id: String::new(),
        body: Some(client::server_frame::Body::Resumed(resumed)),
    };
    core.receive(frame, 5);
    let conversation_id = "c".to_owned();
    assert_eq!(core.poll(), Some(Output::Event(Event::Resumed { conversation_id })));
    // What is not pushed is fetched.
    core.tick(60_000);
    let fetches = std::iter::from_fn(|| core.poll()).filter(|output| {
        matches!(output, Output::Frame(frame) if matches!(&frame.body, Some(client::client_frame::Body::Fetch(fetch))
            if fetch.after_seq == Some(2)))
    });
    assert_eq!(fetches.count(), 1);
}

#[test]
fn an_answer_says_how_often_its_message_was_transmitted() {
    let mut core = Core::new(CoreOptions::default(), []);
    core.connected(Welcome::default(), Transport::Quic, 0);
    core.send("c".into(), "1".into(), "a".into(), 0).unwrap();
    core.disconnected("gone".to_owned());
    core.connected(Welcome::default(), Transport::Quic, 0);
    let mut server = Server::default();
    // The first frame was lost with its connection.
    let frames: Vec<_> = std::iter::from_fn(|| core.poll())
        .filter_map(|output| match output {
            Output::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect();
    assert_eq!(frames.len(), 2);
    server.handle(frames[1].clone());
    while let Some(frame) = server.to_client.pop_front() {
        core.receive(frame, 0);
    }
    let attempts = std::iter::from_fn(|| core.poll()).find_map(|output| match output {
        Output::Sent { attempts, .. } => Some(attempts),
        _ => None,
    });
    assert_eq!(attempts, Some(2));
}
