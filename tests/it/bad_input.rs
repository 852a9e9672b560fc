//! Bad input gets its typed error, and leaves the server unharmed.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, Person, Server, Session, text};

/// Still alive and well.
async fn assert_unharmed(server: &Server) {
    let name = format!("well{}", rand::random::<u32>());
    let person = server.person(&name).await;
    Session::open(server, &person, &[]).await;
}

fn error_code(frame: &Value) -> String {
    text(&frame["error"], "code")
}

#[tokio::test]
async fn malformed_frames_are_refused_by_name() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let (mut session, _) = Session::open(&server, &alice, &[]).await;
    for malformed in [
        "{\"id\":\"1\",\"send\":{",
        "[]",
        "{\"id\":\"2\",\"fly\":{}}",
        "\"\"",
        "{\"ack\":{\"deliveredSeq\":\"x\"}}",
    ] {
        session.raw(Message::text(malformed)).await.unwrap();
        let answer = session.frame().await.unwrap();
        assert_eq!(error_code(&answer), "MALFORMED_FRAME", "{malformed}: {answer}");
    }
    assert!(session.request("ping", json!({})).await.unwrap()["pong"].is_object());
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn frames_that_are_no_text_and_frames_too_large_end_the_session() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let (mut session, _) = Session::open(&server, &alice, &[]).await;
    let _ = session.raw(Message::text("x".repeat(2 << 20))).await;
    let ended = async { while session.frame().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("an oversized frame is taken");

    // A text frame that is not UTF-8, by hand: masked with zeroes.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let upgrade = "GET /v1/connect HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: antiphon.v1.json\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).await.unwrap();
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn a_subprotocol_is_asked_for() {
    let server = Server::start().await;
    assert!(Session::connect(&server, "soap").await.is_err());
    assert!(Session::connect(&server, "").await.is_err());
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn what_is_not_yours_cannot_be_told_from_what_is_not() {
    let server = Server::start().await;
    let (_, bob, conversation) = server.pair().await;
    let mallory = server.person("mallory").await;
    let mut unknown = conversation.clone();
    let last = if unknown.ends_with('0') { 'g' } else { '0' };
    unknown.pop();
    unknown.push(last);
    let (mut session, _) = Session::open(&server, &mallory, &[(&conversation, 0)]).await;
    for id in [&conversation, &unknown] {
        let (status, answer) = server.send(&mallory, id, "k", "hi").await;
        assert_eq!((status, text(&answer, "code")), (404, "NOT_FOUND".to_owned()), "{id}");
        for (verb, body) in [
            (
                "send",
                json!({ "conversationId": id, "clientMsgId": "k", "text": "hi" }),
            ),
            ("fetch", json!({ "conversationId": id, "afterSeq": "0" })),
            ("read", json!({ "conversationId": id, "seq": "1" })),
            ("typing", json!({ "conversationId": id })),
        ] {
            let answer = session.request(verb, body).await.unwrap();
            assert_eq!(error_code(&answer), "NOT_FOUND", "{verb} {id}");
        }
    }
    server.send(&bob, &conversation, "k", "a secret").await;
    assert_eq!(
        session.quiet("message", Duration::from_millis(300)).await,
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let parts: Vec<&str> = alice.access_token.split('.').collect();
    let encode = |json: Value| data_encoding::BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let mut flipped = parts[2].to_owned();
    flipped.replace_range(0..1, if flipped.starts_with('A') { "B" } else { "A" });
    let forged = [
        format!("{}.{}.", encode(json!({ "alg": "none", "typ": "JWT" })), parts[1]),
        format!(
            "{}.{}.{}",
            encode(json!({ "alg": "HS256", "typ": "JWT" })),
            parts[1],
            parts[2]
        ),
        format!(
            "{}.{}.{}",
            encode(json!({ "alg": "EdDSA", "kid": "mine" })),
            parts[1],
            parts[2]
        ),
        format!("{}.{}.{flipped}", parts[0], parts[1]),
        "garbage".to_owned(),
        String::new(),
    ];
    for access_token in forged {
        let forger = Person {
            access_token: access_token.clone(),
            ..alice.clone()
        };
        assert_eq!(
            server.get("/v1/conversations", Some(&forger)).await.0,
            401,
            "{access_token}"
        );
        let refused = Session::open_to(server.port(), &forger, &[]).await;
        let is_refused = refused
            .as_ref()
            .is_ok_and(|(_, answer)| error_code(answer) == "UNAUTHENTICATED");
        assert!(is_refused, "{access_token}: {:?}", refused.map(|(_, answer)| answer));
    }
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn an_expired_token_says_so() {
    let server = Server::start_with(&[("identity.access_token_ttl_s", "1")]).await;
    let alice = server.person("alice").await;
    let expired = async {
        loop {
            let (status, answer) = server.get("/v1/conversations", Some(&alice)).await;
            if status == 401 {
                return text(&answer, "code");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, expired).await.unwrap(), "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_hello_that_never_comes_is_not_waited_for() {
    let server = Server::start_with(&[("edge.hello_timeout_ms", "300")]).await;
    let mut session = Session::connect(&server, "antiphon.v1.json").await.unwrap();
    let ended = async { while session.frame().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the connection is kept");
}

#[tokio::test]
async fn a_frame_before_hello_is_refused() {
    let server = Server::start().await;
    let mut session = Session::connect(&server, "antiphon.v1.json").await.unwrap();
    let answer = session.request("ping", json!({})).await.unwrap();
    assert_eq!(error_code(&answer), "FAILED_PRECONDITION");
}

#[tokio::test]
async fn a_reader_that_never_reads_slows_nobody_down() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (stuck, _) = Session::open(&server, &bob, &[]).await;
    let tablet = server.log_in("bob", "bob-tablet").await;
    let (mut b, _) = Session::open(&server, &tablet, &[]).await;
    let words = "x".repeat(8_000);
    for seq in 1..=1_500_u64 {
        let (status, answer) = server.send(&alice, &conversation, &format!("k{seq}"), &words).await;
        assert_eq!(status / 100, 2, "{answer}");
        if seq % 100 == 0 {
            let mut last = 0;
            while last < seq {
                let message = b.event_of("message").await;
                last = crate::support::number(&message, "seq");
            }
        }
    }
    drop(stuck);
    assert_unharmed(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_send_nothing_do_no_harm() {
    let server = Server::start_with(&[
        ("edge.connections_per_address_max", "20000"),
        ("edge.hello_timeout_ms", "60000"),
    ])
    .await;
    let wanted = 10_000_usize.min(open_files_max().saturating_sub(500));
    println!("{wanted} connections");
    let mut held = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        held.push(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    }
    assert_unharmed(&server).await;
    drop(held);
    assert_unharmed(&server).await;
}

/// What this process may open.
fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(3)
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(1_024)
}

#[tokio::test]
async fn problems_are_problem_documents() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let http = reqwest::Client::new();
    let nonsense = http
        .post(format!("{}/v1/tokens", server.url()))
        .header("content-type", "application/json")
        .body("{");
    let answer = nonsense.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let (status, answer) = server.get("/v1/conversations/nonsense/messages", Some(&alice)).await;
    assert_eq!((status, text(&answer, "code")), (400, "INVALID_ARGUMENT".to_owned()));
    let (status, _) = server.ask(reqwest::Method::PATCH, "/v1/accounts", None, None).await;
    assert_eq!(status, 405);
    let large = json!({ "username": "x".repeat(100_000), "password": "y" });
    let (status, answer) = server.post("/v1/accounts", None, large).await;
    assert_eq!((status, text(&answer, "code")), (413, "TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn a_session_that_ended_is_not_polled() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let (mut session, _) = Session::open(&server, &alice, &[]).await;
    session.socket.close(None).await.unwrap();
    while let Some(Ok(_)) = session.socket.next().await {}
    assert_unharmed(&server).await;
}
