//! Whatever a stranger sends, the answer names the fault and the server goes on.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{
    PATIENCE, Person, RawSession, Server, binary::BinarySession, session::shake_hands, wire::Transport,
};
use antiphon_proto::client::{Ping, client_frame, server_frame};

/// A live session of alice in a conversation with bob, and what a stranger may not see.
async fn session(server: &Server) -> (RawSession, Person, String) {
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let session = RawSession::open_over(Transport::WebSocket, server.port(), &alice).await;
    (session, alice, talk)
}

/// The next event is a refusal with this code, and the session goes on.
async fn refused(session: &mut RawSession, message: Message, code: &str) {
    let shown = format!("{message:?}").chars().take(80).collect::<String>();
    session.wire.socket().send(message).await.unwrap();
    let error = session.event("error").await;
    assert_eq!(error["code"], code, "{shown}: {error}");
    assert!(
        error["message"].as_str().is_some_and(|message| !message.is_empty()),
        "{error}"
    );
    let pong = session.request("ping", &json!({})).await;
    assert!(pong["pong"].is_object(), "{shown}: {pong}");
}

#[tokio::test]
async fn malformed_json_is_refused_by_name_and_the_session_goes_on() {
    let server = Server::start().await;
    let (mut session, _, _) = session(&server).await;
    for text in [
        "",
        "{",
        r#"{"id":"1","send":{"#,
        "null",
        "[]",
        "7",
        r#"{"ping":{}"#,
        r#"{"nothing":{}}"#,
        "\u{0}",
    ] {
        refused(&mut session, Message::text(text), "MALFORMED_FRAME").await;
    }
    for text in [
        r#"{"fetch":{"limit":-1}}"#,
        r#"{"read":{"seq":"many"}}"#,
        r#"{"read":{"seq":1e99}}"#,
        r#"{"send":[]}"#,
    ] {
        refused(&mut session, Message::text(text), "MALFORMED_FRAME").await;
    }
    refused(&mut session, Message::binary(vec![0xff, 0xfe]), "MALFORMED_FRAME").await;
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let server = Server::start().await;
    let (mut session, _, _) = session(&server).await;
    let deep = format!("{{\"send\":{}", "[".repeat(20_000));
    refused(&mut session, Message::text(deep), "MALFORMED_FRAME").await;
}

#[tokio::test]
async fn malformed_protobuf_is_refused_by_name_and_the_session_goes_on() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut session = BinarySession::open(server.port(), &alice).await;
    // Truncated, not UTF-8 where text has to be, an impossible length, no body, text.
    let frames = [
        vec![0x0a, 0x05, b'1'],
        vec![0x0a, 0x02, 0xff, 0xfe],
        vec![0x1a; 40],
        vec![],
    ];
    let messages = frames.map(Message::binary).into_iter().chain([Message::text("{}")]);
    for message in messages {
        session.socket.send(message).await.unwrap();
        let code = session.next_where(|frame| match frame.body {
            Some(server_frame::Body::Error(error)) => Some(error.code),
            _ => None,
        });
        assert_eq!(code.await, "MALFORMED_FRAME");
        session.ask("p", client_frame::Body::Ping(Ping {})).await;
        session
            .next_where(|frame| matches!(frame.body, Some(server_frame::Body::Pong(_))).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_the_connection_alone() {
    let server = Server::start().await;
    let (session, alice, _) = session(&server).await;
    let mut stream = session.wire.into_socket().into_inner();
    // A masked text frame of 2 bytes under a mask of zeros.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection is still open")
        .ok();
    server.session(&alice).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_and_one_far_over_it_ends_the_session() {
    let server = Server::start().await;
    let (mut session, alice, _) = session(&server).await;
    let limit = usize::try_from(session.welcome["limits"]["frameBytesMax"].as_u64().unwrap()).unwrap();
    refused(&mut session, Message::text("x".repeat(limit + 1)), "TOO_LARGE").await;
    session
        .wire
        .socket()
        .send(Message::text("x".repeat(limit * 20)))
        .await
        .ok();
    let events = session.closed().await;
    assert!(
        events.iter().all(|event| event["error"]["code"] == "TOO_LARGE"),
        "{events:?}"
    );
    server.session(&alice).await;
}

#[tokio::test]
async fn a_text_over_the_limit_is_refused() {
    let server = Server::start().await;
    let (mut session, _, talk) = session(&server).await;
    let limit = usize::try_from(session.welcome["limits"]["textBytesMax"].as_u64().unwrap()).unwrap();
    assert_eq!(session.send(&talk, "m1", &"x".repeat(limit)).await, 1);
    let body = json!({"conversationId": talk, "clientMsgId": "m2", "text": "x".repeat(limit + 1)});
    let answer = session.request("send", &body).await;
    assert_eq!(answer["error"]["code"], "TOO_LARGE", "{answer}");
}

#[tokio::test]
async fn another_subprotocol_is_no_handshake() {
    let server = Server::start().await;
    for protocol in ["", "antiphon.v2", "graphql-ws", "antiphon.v1.jsonx"] {
        match shake_hands(server.port(), protocol).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 400, "{protocol:?}"),
            other => panic!("{protocol:?}: {other:?}"),
        }
    }
    // One of several that is known is taken.
    let (_, response) = shake_hands(server.port(), "other, antiphon.v1.json").await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "antiphon.v1.json");
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_not_ones_own_are_refused_alike() {
    let server = Server::start().await;
    let (_, _, talk) = session(&server).await;
    let eve = server.person("eve").await;
    let mut session = server.session(&eve).await;
    let (front, back) = talk.split_at(talk.len() - 4);
    let unknown = format!("{front}{}", if back == "0000" { "0008" } else { "0000" });
    let mut codes = Vec::new();
    for (name, extra) in [
        ("send", json!({"clientMsgId": "m", "text": "hello"})),
        ("fetch", json!({})),
        ("read", json!({"seq": "1"})),
        ("ack", json!({"deliveredSeq": "1"})),
        ("typing", json!({})),
    ] {
        let mut answers = Vec::new();
        for id in [&talk, &unknown] {
            let mut body = extra.clone();
            body["conversationId"] = json!(id);
            answers.push(session.request(name, &body).await["error"]["code"].clone());
        }
        let refused = |code: &Value| ["NOT_FOUND", "FORBIDDEN"].contains(&code.as_str().unwrap_or_default());
        // Typing is soft: it may go unanswered into the void, but never to the members.
        assert!(
            answers
                .iter()
                .all(|code| refused(code) || (name == "typing" && code.is_null())),
            "{name}: {answers:?}"
        );
        codes.push((name, answers));
    }
    for (name, answers) in codes {
        assert_eq!(
            answers[0], answers[1],
            "{name} tells strangers which conversations exist"
        );
    }
}

#[tokio::test]
async fn ids_that_are_none_are_refused_as_such() {
    let server = Server::start().await;
    let (mut session, alice, talk) = session(&server).await;
    for id in [
        "",
        "c_",
        "x",
        alice.id.as_str(),
        "c_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        &talk[..talk.len() - 1],
        &"c_0".repeat(2_000),
    ] {
        let answer = session.request("fetch", &json!({"conversationId": id})).await;
        assert_eq!(answer["error"]["code"], "INVALID_ARGUMENT", "{id}: {answer}");
    }
    for id in ["", "a b", "\u{1F600}", &"x".repeat(1_000)] {
        let body = json!({"conversationId": talk, "clientMsgId": id, "text": "hello"});
        let answer = session.request("send", &body).await;
        assert_eq!(answer["error"]["code"], "INVALID_ARGUMENT", "{id:?}: {answer}");
    }
}

#[tokio::test]
async fn a_hello_that_never_comes_ends_the_connection_in_time() {
    let server = Server::with(&[("edge.hello_timeout_ms", "500")]).await;
    let session = RawSession::web_socket(server.port()).await;
    let began = Instant::now();
    let events = session.closed().await;
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(400)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    assert_eq!(events[0]["error"]["code"], "DEADLINE_EXCEEDED", "{events:?}");
}

#[tokio::test]
async fn a_request_before_hello_is_refused() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    for name in ["ping", "sync"] {
        let mut session = RawSession::connect(server.port()).await;
        let answer = session.request(name, &json!({})).await;
        assert_eq!(answer["error"]["code"], "FAILED_PRECONDITION", "{name}: {answer}");
    }
    let mut session = server.session(&alice).await;
    let answer = session.hello(&alice.token, &alice.device_id, &[]).await;
    assert_eq!(
        answer["error"]["code"], "FAILED_PRECONDITION",
        "a second hello: {answer}"
    );
}

#[tokio::test]
async fn malformed_frames_without_end_end_the_session() {
    let server = Server::with(&[("edge.malformed_max", "5")]).await;
    let (mut session, alice, _) = session(&server).await;
    for _ in 0..5 {
        session.wire.socket().send(Message::text("{")).await.ok();
    }
    let ended = timeout(PATIENCE, async {
        while session
            .wire
            .socket()
            .next()
            .await
            .is_some_and(|message| message.is_ok())
        {}
    });
    ended.await.expect("the connection is still open");
    server.session(&alice).await;
}

#[tokio::test]
async fn bytes_that_are_not_http_end_their_connection_alone() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        &[0; 4_096],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.ok();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("the connection is still open")
            .ok();
    }
    alice.get("/v1/conversations").await.expect(200);
}
