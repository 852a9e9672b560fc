//! The rules of a session, one test each.

#![allow(clippy::unwrap_used, reason = "what a test expects and does not find ends it")]

use std::sync::Arc;

use antiphon_proto::{
    Codec,
    client::{Ok as OkBody, Sent, ServerFrame, server_frame::Body},
};
use antiphon_session::{
    Accepted, CloseReason, Incoming, Output, Push, Refusal, Request, Session, SessionOptions, Ticket,
};
use antiphon_types::{ConversationId, ErrorCode, Slot, UserId};
use bytes::Bytes;

const HELLO: &str = r#"{"id":"h","hello":{"accessToken":"t","deviceId":"phone"}}"#;
const TOKEN_EXPIRES_AT_MS: u64 = 1_000_000;

fn conversation(number: u64) -> ConversationId {
    ConversationId::new(Slot::DEPLOYMENT, 1, number)
}

fn options() -> SessionOptions {
    SessionOptions {
        push_frames_max: 4,
        push_bytes_max: 1_000,
        in_flight_max: 2,
        ..SessionOptions::default()
    }
}

fn new(options: SessionOptions) -> Session {
    Session::new(Codec::Json, Arc::new(options), 0)
}

fn accept(session: &mut Session, ticket: Ticket) {
    let accepted = Accepted {
        edges: Vec::new(),
        user_id: UserId::new(Slot::DEPLOYMENT, 1, 1),
        token_expires_at_ms: TOKEN_EXPIRES_AT_MS,
        session_id: "s".to_owned(),
        region: "r".to_owned(),
        resumed: Vec::new(),
        unavailable: Vec::new(),
    };
    session.accept(ticket, accepted, 0);
}

fn live(options: SessionOptions) -> Session {
    let mut session = new(options);
    session.handle_frame(Incoming::Text(HELLO), 0);
    let Some(Output::Hello(ticket, hello)) = session.poll_output() else {
        panic!("no hello")
    };
    assert_eq!((hello.access_token.as_str(), hello.device_id.as_str()), ("t", "phone"));
    accept(&mut session, ticket);
    let (frames, _) = drain(&mut session);
    assert!(
        matches!(&frames[..], [ServerFrame { id, body: Some(Body::Welcome(_)) }] if id == "h"),
        "{frames:?}"
    );
    session
}

/// Every frame that waits, and the close if there is one.
fn drain(session: &mut Session) -> (Vec<ServerFrame>, Option<CloseReason>) {
    let (mut frames, mut closed) = (Vec::new(), None);
    while let Some(output) = session.poll_output() {
        match output {
            Output::Frame(frame) | Output::Fleeting(frame) => frames.push(serde_json::from_slice(&frame).unwrap()),
            Output::Close(reason) => closed = Some(reason),
            other @ (Output::Hello(..) | Output::Reauth { .. } | Output::Send { .. } | Output::Request { .. }) => {
                panic!("{other:?}")
            }
        }
    }
    (frames, closed)
}

fn error_codes(frames: &[ServerFrame]) -> Vec<(&str, &str)> {
    let code = |frame: &'_ ServerFrame| match &frame.body {
        Some(Body::Error(error)) => Some(error.code.clone()),
        _ => None,
    };
    frames
        .iter()
        .filter_map(|frame| code(frame).map(|code| (frame.id.as_str(), ErrorCode::parse(&code).as_str())))
        .collect()
}

fn typing(session: &mut Session, id: &str) -> Option<Ticket> {
    let frame = format!(r#"{{"id":"{id}","typing":{{"conversationId":"{}"}}}}"#, conversation(1));
    session.handle_frame(Incoming::Text(&frame), 0);
    match session.poll_output() {
        Some(Output::Request {
            ticket,
            request: Request::Typing { .. },
        }) => Some(ticket),
        Some(Output::Frame(frame)) => {
            let frame: ServerFrame = serde_json::from_slice(&frame).unwrap();
            assert_eq!(error_codes(&[frame]), [(id, "RESOURCE_EXHAUSTED")]);
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn that_somebody_types_may_come_as_a_datagram_and_nothing_else_may() {
    let typing = |id: &str| format!(r#"{{"id":"{id}","typing":{{"conversationId":"{}"}}}}"#, conversation(1));
    let mut early = new(options());
    early.handle_datagram(typing("").as_bytes(), 0);
    assert!(early.poll_output().is_none(), "before Hello");

    let mut session = live(options());
    let send = format!(
        r#"{{"send":{{"conversationId":"{}","clientMsgId":"m","text":"no"}}}}"#,
        conversation(1)
    );
    for bytes in [
        send.as_bytes(),
        typing("1").as_bytes(),
        HELLO.as_bytes(),
        b"{",
        &[0xff],
        b"",
    ] {
        session.handle_datagram(bytes, 0);
        assert!(session.poll_output().is_none(), "{bytes:?}");
    }
    session.handle_datagram(typing("").as_bytes(), 0);
    let Some(Output::Request { ticket, request }) = session.poll_output() else {
        panic!("it was dropped")
    };
    assert!(matches!(request, Request::Typing { .. }));
    session.reply(ticket, Ok(Body::Ok(OkBody {})));
    assert!(session.poll_output().is_none(), "nobody waits for an answer");

    let mut full = live(SessionOptions {
        in_flight_max: 1,
        ..options()
    });
    full.handle_datagram(typing("").as_bytes(), 0);
    assert!(matches!(full.poll_output(), Some(Output::Request { .. })));
    full.handle_datagram(typing("").as_bytes(), 0);
    assert!(full.poll_output().is_none(), "refused aloud");
}

#[test]
fn what_is_fleeting_is_told_from_what_must_not_be_lost() {
    let mut session = live(options());
    session.push(Push::Fleeting(Bytes::from_static(b"{}")));
    session.push(Push::Signal(Bytes::from_static(b"{}")));
    assert!(matches!(session.poll_output(), Some(Output::Fleeting(_))));
    assert!(matches!(session.poll_output(), Some(Output::Frame(_))));
    assert!(session.is_drained());
}

fn message(number: u64, seq: u64) -> Push {
    let body = antiphon_proto::client::Message {
        seq,
        ..Default::default()
    };
    let frame = ServerFrame {
        id: String::new(),
        body: Some(Body::Message(body)),
    };
    Push::Message {
        conversation_id: conversation(number),
        seq,
        frame: Codec::Json.encode(&frame),
    }
}

#[test]
fn a_frame_before_hello_is_refused_and_ends_the_session() {
    let mut session = new(options());
    session.handle_frame(Incoming::Text(r#"{"id":"1","ping":{}}"#), 0);
    let (frames, closed) = drain(&mut session);
    assert_eq!(error_codes(&frames), [("1", "FAILED_PRECONDITION")]);
    assert_eq!(closed, Some(CloseReason::HelloExpected));
}

#[test]
fn a_hello_that_never_comes_ends_the_session() {
    let mut session = new(options());
    assert_eq!(session.next_timeout_ms(), Some(10_000));
    session.handle_timeout(9_999);
    assert!(session.poll_output().is_none());
    session.handle_timeout(10_000);
    let (frames, closed) = drain(&mut session);
    assert_eq!(
        (error_codes(&frames), closed),
        (vec![("", "DEADLINE_EXCEEDED")], Some(CloseReason::HelloTimeout))
    );
}

#[test]
fn a_second_hello_is_refused_and_the_session_lives() {
    let mut session = live(options());
    session.handle_frame(Incoming::Text(HELLO), 0);
    let (frames, closed) = drain(&mut session);
    assert_eq!(
        (error_codes(&frames), closed),
        (vec![("h", "FAILED_PRECONDITION")], None)
    );
}

#[test]
fn a_refused_hello_says_why_and_ends_the_session() {
    let mut session = new(options());
    session.handle_frame(Incoming::Text(HELLO), 0);
    let Some(Output::Hello(ticket, _)) = session.poll_output() else {
        panic!("no hello")
    };
    session.push(message(1, 1));
    session.refuse(ticket, Refusal::new(ErrorCode::Unauthenticated, "no"));
    let (frames, closed) = drain(&mut session);
    assert_eq!(
        (frames.len(), error_codes(&frames)),
        (1, vec![("h", "UNAUTHENTICATED")])
    );
    assert_eq!(closed, Some(CloseReason::Refused));
}

#[test]
fn pushes_before_welcome_come_after_it() {
    let mut session = new(options());
    session.handle_frame(Incoming::Text(HELLO), 0);
    let Some(Output::Hello(ticket, _)) = session.poll_output() else {
        panic!("no hello")
    };
    session.push(message(1, 1));
    assert!(session.poll_output().is_none());
    accept(&mut session, ticket);
    let (frames, _) = drain(&mut session);
    assert!(matches!(&frames[0].body, Some(Body::Welcome(_))) && matches!(&frames[1].body, Some(Body::Message(_))));
}

#[test]
fn malformed_frames_in_a_row_end_the_session_and_one_does_not() {
    let mut session = live(SessionOptions {
        malformed_max: 3,
        ..options()
    });
    for nonsense in ["", "{", r#"{"id":"9"}"#] {
        session.handle_frame(Incoming::Text(nonsense), 0);
        session.handle_frame(Incoming::Text(r#"{"ping":{}}"#), 0);
    }
    let (frames, closed) = drain(&mut session);
    assert_eq!(
        error_codes(&frames),
        [
            ("", "MALFORMED_FRAME"),
            ("", "MALFORMED_FRAME"),
            ("9", "MALFORMED_FRAME")
        ]
    );
    assert_eq!(closed, None);
    for _ in 0..3 {
        session.handle_frame(Incoming::Binary(&[0xff]), 0);
    }
    assert_eq!(drain(&mut session).1, Some(CloseReason::Malformed));
}

#[test]
fn a_silent_session_is_closed_after_two_heartbeats() {
    let mut session = live(options());
    assert_eq!(session.next_timeout_ms(), Some(60_000));
    session.handle_frame(Incoming::Text(r#"{"id":"p","ping":{}}"#), 59_000);
    drain(&mut session);
    session.handle_timeout(60_000);
    assert_eq!(drain(&mut session).1, None);
    session.handle_timeout(119_000);
    assert_eq!(drain(&mut session).1, Some(CloseReason::Silent));
}

#[test]
fn a_session_that_only_pings_is_sent_away_when_idle() {
    let mut session = live(SessionOptions {
        idle_timeout_ms: 50_000,
        ..options()
    });
    session.handle_frame(Incoming::Text(r#"{"ping":{}}"#), 40_000);
    drain(&mut session);
    session.handle_timeout(50_000);
    let (frames, closed) = drain(&mut session);
    assert!(matches!(&frames[..], [ServerFrame { body: Some(Body::Goaway(goaway)), .. }] if goaway.reason == "idle"));
    assert_eq!(closed, Some(CloseReason::Idle));
}

#[test]
fn an_expired_token_is_told_and_reauth_saves_the_session() {
    let beat = SessionOptions {
        heartbeat_ms: u32::MAX,
        ..options()
    };
    let mut session = live(beat.clone());
    session.handle_timeout(TOKEN_EXPIRES_AT_MS);
    assert_eq!(error_codes(&drain(&mut session).0), [("", "TOKEN_EXPIRED")]);
    let frame = format!(r#"{{"id":"1","typing":{{"conversationId":"{}"}}}}"#, conversation(1));
    session.handle_frame(Incoming::Text(&frame), TOKEN_EXPIRES_AT_MS);
    assert_eq!(error_codes(&drain(&mut session).0), [("1", "TOKEN_EXPIRED")]);
    session.handle_frame(
        Incoming::Text(r#"{"id":"2","reauth":{"accessToken":"new"}}"#),
        TOKEN_EXPIRES_AT_MS,
    );
    let Some(Output::Reauth { ticket, access_token }) = session.poll_output() else {
        panic!("no reauth")
    };
    assert_eq!(access_token, "new");
    session.reauthenticated(ticket, TOKEN_EXPIRES_AT_MS * 2);
    session.handle_timeout(TOKEN_EXPIRES_AT_MS + 10_000);
    let (frames, closed) = drain(&mut session);
    assert!(matches!(&frames[..], [ServerFrame { id, body: Some(Body::Ok(OkBody {})) }] if id == "2"));
    assert_eq!(closed, None);

    let mut session = live(beat);
    session.handle_timeout(TOKEN_EXPIRES_AT_MS + 10_000);
    assert_eq!(drain(&mut session).1, Some(CloseReason::TokenExpired));
}

#[test]
fn requests_in_flight_are_bounded_and_a_reply_makes_room() {
    let mut session = live(options());
    let first = typing(&mut session, "1").unwrap();
    assert!(session.wants_input());
    assert!(typing(&mut session, "2").is_some());
    assert!(!session.wants_input());
    assert!(typing(&mut session, "3").is_none());
    session.reply(first, Ok(Body::Sent(Sent { seq: 1, sent_at_ms: 1 })));
    assert!(session.wants_input());
    assert_eq!(drain(&mut session).0[0].id, "1");
    assert!(typing(&mut session, "4").is_some());
}

#[test]
fn a_request_without_an_id_is_answered_only_when_refused() {
    let mut session = live(options());
    let ticket = typing(&mut session, "").unwrap();
    session.reply(ticket, Ok(Body::Ok(OkBody {})));
    assert_eq!(drain(&mut session).0, []);
    let ticket = typing(&mut session, "").unwrap();
    session.reply(ticket, Err(Refusal::new(ErrorCode::NotFound, "no")));
    assert_eq!(error_codes(&drain(&mut session).0), [("", "NOT_FOUND")]);
}

#[test]
fn dropped_messages_are_told_once_with_their_tail_when_there_is_room() {
    let mut session = live(options());
    for seq in 1..=9 {
        session.push(message(1, seq));
    }
    let (frames, closed) = drain(&mut session);
    let seqs = frames.iter().filter_map(|frame| match &frame.body {
        Some(Body::Message(message)) => Some((message.seq, "message")),
        Some(Body::Lagged(lagged)) => Some((lagged.tail_seq, "lagged")),
        _ => None,
    });
    let expected = [
        (1, "message"),
        (2, "message"),
        (3, "message"),
        (4, "message"),
        (9, "lagged"),
    ];
    assert_eq!((seqs.collect::<Vec<_>>(), closed), (expected.to_vec(), None));
    session.push(message(1, 10));
    assert!(matches!(&drain(&mut session).0[0].body, Some(Body::Message(message)) if message.seq == 10));
}

#[test]
fn a_slow_session_keeps_its_replies() {
    let mut session = live(options());
    let ticket = typing(&mut session, "1").unwrap();
    for seq in 1..=100 {
        session.push(message(seq % 3, seq));
    }
    session.reply(ticket, Ok(Body::Ok(OkBody {})));
    assert!(drain(&mut session).0.iter().any(|frame| frame.id == "1"));
}

#[test]
fn a_device_that_reads_no_replies_is_not_read_from() {
    let mut session = live(SessionOptions {
        reply_frames_max: 3,
        ..options()
    });
    for _ in 0..3 {
        assert!(session.wants_input());
        session.handle_frame(Incoming::Text(r#"{"ping":{}}"#), 0);
    }
    assert!(!session.wants_input());
    drain(&mut session);
    assert!(session.wants_input());
}

#[test]
fn pong_names_what_moved_since_the_last() {
    let mut session = live(options());
    session.push(message(1, 4));
    session.push(message(1, 5));
    let mut pong = || {
        session.handle_frame(Incoming::Text(r#"{"id":"p","ping":{}}"#), 0);
        match drain(&mut session).0.pop().unwrap().body {
            Some(Body::Pong(pong)) => pong
                .tails
                .iter()
                .map(|tail| (tail.conversation_id.clone(), tail.after_seq))
                .collect(),
            _ => vec![],
        }
    };
    assert_eq!(pong(), [(conversation(1).to_string(), 5)]);
    assert_eq!(pong(), []);
}

#[test]
fn going_away_answers_what_is_in_flight_and_takes_nothing_new() {
    let mut session = live(options());
    let ticket = typing(&mut session, "1").unwrap();
    session.send_away(CloseReason::Draining, 250, vec!["http://else".to_owned()], 0);
    session.push(Push::Signal(Bytes::from_static(b"{}")));
    let (frames, closed) = drain(&mut session);
    assert!(
        matches!(&frames[..], [ServerFrame { body: Some(Body::Goaway(goaway)), .. }] if goaway.reconnect_after_ms == 250 && goaway.edges == ["http://else"])
    );
    assert_eq!(closed, None);
    session.handle_frame(Incoming::Text(r#"{"id":"2","sync":{}}"#), 0);
    session.reply(ticket, Ok(Body::Ok(OkBody {})));
    let (frames, closed) = drain(&mut session);
    assert_eq!(
        frames.iter().map(|frame| frame.id.as_str()).collect::<Vec<_>>(),
        ["2", "1"]
    );
    assert_eq!(
        (error_codes(&frames), closed),
        (vec![("2", "UNAVAILABLE")], Some(CloseReason::Draining))
    );
}

#[test]
fn a_request_that_never_ends_does_not_hold_up_the_going_away() {
    let mut session = live(options());
    let _ticket = typing(&mut session, "1").unwrap();
    session.go_away(CloseReason::Revoked, 0);
    assert_eq!(drain(&mut session).1, None);
    session.handle_timeout(10_000);
    assert_eq!(drain(&mut session).1, Some(CloseReason::Revoked));
}

#[test]
fn a_field_out_of_its_form_is_refused_with_its_name() {
    let mut session = live(options());
    session.handle_frame(Incoming::Text(r#"{"id":"1","typing":{"conversationId":"c_1"}}"#), 0);
    session.handle_frame(Incoming::Text(r#"{"id":"2","presence":{"userIds":["c_1"]}}"#), 0);
    let (frames, _) = drain(&mut session);
    assert_eq!(
        error_codes(&frames),
        [("1", "INVALID_ARGUMENT"), ("2", "INVALID_ARGUMENT")]
    );
    assert!(matches!(&frames[0].body, Some(Body::Error(error)) if error.message.contains("conversation id \"c_1\"")));
}
