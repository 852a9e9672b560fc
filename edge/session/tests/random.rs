//! Whatever comes, in whatever order: no panic, queues keep their bounds, replies keep their ids, the close is the last word.

use std::sync::Arc;

use antiphon_proto::Codec;
use antiphon_proto::client::{Ack, Fetch, Hello, Ping, Read, Reauth, Send, Sync, Typing};
use antiphon_proto::client::{ClientFrame, Ok as OkBody, ServerFrame, client_frame, server_frame::Body};
use antiphon_session::{Accepted, CloseReason, Incoming, Output, Push, Refusal, Session, SessionOptions, Ticket};
use antiphon_types::{ConversationId, ErrorCode, Slot, UserId};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    Text(String),
    Frame(ClientFrame),
    Datagram(Vec<u8>),
    Elapse(u64),
    Accept,
    Refuse,
    Reply(usize, bool),
    Push(u8, u64, usize),
    Lagged(u8, u64),
    Signal(usize),
    Fleeting(usize),
    Notice(usize),
    GoAway,
    Poll(usize),
}

fn conversation(number: u8) -> ConversationId {
    ConversationId::new(Slot::DEPLOYMENT, 1, u64::from(number))
}

fn body() -> impl Strategy<Value = client_frame::Body> {
    let id = || {
        prop_oneof![
            any::<u8>().prop_map(|number| conversation(number).to_string()),
            ".{0,8}"
        ]
    };
    prop_oneof![
        ("[a-z]{0,3}", "[a-z]{0,3}").prop_map(|(access_token, device_id)| {
            client_frame::Body::Hello(Hello {
                access_token,
                device_id,
                cursors: vec![],
            })
        }),
        (id(), "[a-z]{0,3}", ".{0,20}").prop_map(|(conversation_id, client_msg_id, text)| {
            client_frame::Body::Send(Send {
                conversation_id,
                client_msg_id,
                text,
            })
        }),
        (id(), any::<u64>()).prop_map(|(conversation_id, delivered_seq)| {
            client_frame::Body::Ack(Ack {
                conversation_id,
                delivered_seq,
            })
        }),
        (id(), any::<u64>()).prop_map(|(conversation_id, seq)| client_frame::Body::Read(Read { conversation_id, seq })),
        (id(), any::<Option<u64>>()).prop_map(|(conversation_id, after_seq)| {
            client_frame::Body::Fetch(Fetch {
                conversation_id,
                after_seq,
                before_seq: None,
                limit: 1,
            })
        }),
        Just(client_frame::Body::Sync(Sync::default())),
        Just(client_frame::Body::Ping(Ping {})),
        Just(client_frame::Body::Reauth(Reauth {
            access_token: "t".to_owned()
        })),
    ]
}

/// Anything, and what may come that way, in one codec or the other.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let typing = client_frame::Body::Typing(Typing {
        conversation_id: conversation(1).to_string(),
    });
    let frame = prop_oneof![body(), Just(typing)].prop_map(|body| ClientFrame {
        id: String::new(),
        body: Some(body),
    });
    prop_oneof![
        vec(any::<u8>(), 0..40),
        frame.clone().prop_map(|frame| frame.encode_to_vec()),
        frame.prop_map(|frame| serde_json::to_vec(&frame).unwrap_or_default()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        1 => datagram().prop_map(Step::Datagram),
        1 => ".{0,40}".prop_map(Step::Text),
        8 => ("[0-9]{0,2}", proptest::option::weighted(0.95, body())).prop_map(|(id, body)| Step::Frame(ClientFrame { id, body })),
        2 => (0_u64..5_000).prop_map(Step::Elapse),
        3 => Just(Step::Accept),
        1 => Just(Step::Refuse),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, fine)| Step::Reply(which, fine)),
        6 => (0_u8..12, any::<u64>(), 0_usize..200).prop_map(|(number, seq, bytes)| Step::Push(number, seq, bytes)),
        1 => (0_u8..12, any::<u64>()).prop_map(|(number, seq)| Step::Lagged(number, seq)),
        1 => (0_usize..200).prop_map(Step::Signal),
        1 => (0_usize..200).prop_map(Step::Fleeting),
        1 => (0_usize..200).prop_map(Step::Notice),
        1 => Just(Step::GoAway),
        4 => (0_usize..8).prop_map(Step::Poll),
    ]
}

#[derive(Default)]
struct Shell {
    hello: Option<Ticket>,
    reauth: Vec<Ticket>,
    requests: Vec<Ticket>,
    answered: Vec<String>,
    replied: Vec<String>,
    closed: Option<CloseReason>,
}

impl Shell {
    fn poll(&mut self, session: &mut Session, codec: Codec) -> bool {
        let Some(output) = session.poll_output() else {
            return false;
        };
        assert_eq!(self.closed, None, "{output:?} after the close");
        match output {
            Output::Frame(frame) | Output::Fleeting(frame) => {
                // Pushes of this test are no frames; replies are, and carry an id.
                let frame = match codec {
                    Codec::Binary => ServerFrame::decode(frame).ok(),
                    Codec::Json => serde_json::from_slice(&frame).ok(),
                };
                if let Some(ServerFrame {
                    id,
                    body: Some(Body::Ok(_)),
                }) = frame
                {
                    self.replied.push(id);
                }
            }
            Output::Hello(ticket, _) => {
                assert!(self.hello.is_none(), "two hellos");
                self.hello = Some(ticket);
            }
            Output::Reauth { ticket, .. } => self.reauth.push(ticket),
            Output::Send { ticket, .. } | Output::Request { ticket, .. } => self.requests.push(ticket),
            Output::Close(reason) => self.closed = Some(reason),
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_session_survives_anything(json: bool, starts_live: bool, steps in vec(step(), 0..80)) {
        let codec = if json { Codec::Json } else { Codec::Binary };
        let options = SessionOptions {
            push_frames_max: 6, push_bytes_max: 600, reply_frames_max: 5, in_flight_max: 3, lagged_max: 8,
            hello_timeout_ms: 5_000, heartbeat_ms: 4_000, idle_timeout_ms: 9_000, malformed_max: 4, pong_tails_max: 3,
            ..SessionOptions::default()
        };
        let mut session = Session::new(codec, Arc::new(options.clone()), 0);
        let (mut shell, mut now_ms) = (Shell::default(), 0);
        let hello = ClientFrame {
            id: "h".to_owned(),
            body: Some(client_frame::Body::Hello(Hello { access_token: "t".into(), device_id: "d".into(), cursors: vec![] })),
        };
        let opening = if starts_live { vec![Step::Frame(hello), Step::Poll(1), Step::Accept] } else { vec![] };
        for step in opening.into_iter().chain(steps) {
            match step {
                Step::Bytes(bytes) => session.handle_frame(Incoming::Binary(&bytes), now_ms),
                Step::Datagram(bytes) => session.handle_datagram(&bytes, now_ms),
                Step::Text(text) => session.handle_frame(Incoming::Text(&text), now_ms),
                Step::Frame(frame) if json => {
                    session.handle_frame(Incoming::Text(&serde_json::to_string(&frame).unwrap()), now_ms);
                }
                Step::Frame(frame) => session.handle_frame(Incoming::Binary(&frame.encode_to_vec()), now_ms),
                Step::Elapse(by_ms) => {
                    now_ms += by_ms;
                    session.handle_timeout(now_ms);
                    prop_assert!(session.next_timeout_ms().is_none_or(|at_ms| at_ms > now_ms), "the timeout stands still");
                }
                Step::Accept => if let Some(ticket) = shell.hello.take() {
                    session.accept(ticket, Accepted {
                        edges: Vec::new(),
                        user_id: UserId::new(Slot::DEPLOYMENT, 1, 1), token_expires_at_ms: now_ms + 8_000,
                        session_id: String::new(), region: String::new(), resumed: vec![], unavailable: vec![],
                    }, now_ms);
                },
                Step::Refuse => if let Some(ticket) = shell.hello.take() {
                    session.refuse(ticket, Refusal::new(ErrorCode::Unauthenticated, "no"));
                },
                Step::Reply(_, _) if shell.requests.is_empty() => if let Some(ticket) = shell.reauth.pop() {
                    session.reauthenticated(ticket, now_ms + 8_000);
                },
                Step::Reply(which, fine) => {
                    let which = which % shell.requests.len();
                    let ticket = shell.requests.swap_remove(which);
                    let refusal = Refusal::new(ErrorCode::Internal, "no");
                    if fine { shell.answered.push(ticket.id().to_owned()); }
                    session.reply(ticket, if fine { Ok(Body::Ok(OkBody {})) } else { Err(refusal) });
                }
                Step::Push(number, seq, bytes) => session.push(Push::Message {
                    conversation_id: conversation(number), seq, frame: Bytes::from(vec![0xff; bytes]),
                }),
                Step::Lagged(number, seq) => session.push(Push::Lagged { conversation_id: conversation(number), tail_seq: seq }),
                Step::Signal(bytes) => session.push(Push::Signal(Bytes::from(vec![0xff; bytes]))),
                Step::Fleeting(bytes) => session.push(Push::Fleeting(Bytes::from(vec![0xff; bytes]))),
                Step::Notice(bytes) => session.push(Push::Notice(Bytes::from(vec![0xff; bytes]))),
                Step::GoAway => session.go_away(CloseReason::Draining, now_ms),
                Step::Poll(times) => for _ in 0..times {
                    shell.poll(&mut session, codec);
                },
            }
            let (push_frames, push_bytes, reply_frames) = session.waiting();
            prop_assert!(push_frames <= options.push_frames_max * 2, "{push_frames} pushes wait");
            prop_assert!(push_bytes <= options.push_bytes_max + options.push_frames_max * 2 * 200, "{push_bytes} bytes wait");
            prop_assert!(reply_frames <= options.reply_frames_max + options.in_flight_max + 1, "{reply_frames} replies wait");
            prop_assert!(shell.requests.len() + shell.reauth.len() <= options.in_flight_max, "too many in flight");
        }
        while shell.poll(&mut session, codec) {}
        for id in &shell.replied {
            let at = shell.answered.iter().position(|answered| answered == id);
            // Reauth is answered with ok too; its ids are not recorded.
            if let Some(at) = at { shell.answered.swap_remove(at); }
        }
        if shell.closed.is_none() {
            let lost: Vec<_> = shell.answered.iter().filter(|id| !id.is_empty()).collect();
            prop_assert!(lost.is_empty(), "replies lost: {lost:?}");
        }
    }
}
