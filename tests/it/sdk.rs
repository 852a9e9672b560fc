//! The SDK against the real server.

use std::{collections::VecDeque, process::Stdio, time::Duration};

use antiphon_client::{Account, Client, ClientError, ClientOptions, CoreOptions, Event, OutboxFull};
use reqwest::Method;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::mpsc, time::timeout};

use crate::support::{PATIENCE, RawSession, http::PASSWORD, number, server::Server, text, world::World};

/// Logs a registered user in and starts a session.
async fn start(server: &Server, name: &str, adapt: impl FnOnce(&mut ClientOptions)) -> (Client, mpsc::Receiver<Event>) {
    let url = format!("http://127.0.0.1:{}", server.port());
    let device = format!("sdk-{name}");
    let tokens = Account::new(&url).log_in(name, PASSWORD, &device).await.unwrap();
    let mut options = ClientOptions {
        reconnect_base_ms: 50,
        // Over UDP nothing but silence tells that a server is gone.
        keep_alive: Duration::from_millis(500),
        silence_max: Duration::from_secs(3),
        ..ClientOptions::new(&url, &device)
    };
    adapt(&mut options);
    let (client, events, _) = Client::start(options, tokens);
    (client, events)
}

async fn connected(events: &mut mpsc::Receiver<Event>) {
    let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Connected { .. }), "{event:?}");
}

async fn disconnected(events: &mut mpsc::Receiver<Event>) {
    let lost = async { while !matches!(events.recv().await.unwrap(), Event::Disconnected { .. }) {} };
    timeout(PATIENCE, lost).await.expect("the lost server is not noticed");
}

async fn next_text(events: &mut mpsc::Receiver<Event>) -> (u64, String) {
    let next = async {
        loop {
            match events.recv().await.expect("the client has stopped") {
                Event::Message(message) => return (message.seq, message.text),
                Event::LoggedOut { reason } => panic!("logged out: {reason}"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, next).await.expect("no message comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_survive_a_killed_server_in_order_and_once() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let (alice, mut to_alice) = start(&server, "alice", |_| {}).await;
    let (bob, mut to_bob) = start(&server, "bob", |_| {}).await;
    for events in [&mut to_alice, &mut to_bob] {
        connected(events).await;
    }
    let mut sendings = Vec::new();
    for number in 1..=60_u64 {
        sendings.push(alice.send(&conversation, &format!("text {number}")).unwrap());
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            server.kill9().await;
            server.restart().await;
        }
    }
    for (at, sending) in sendings.into_iter().enumerate() {
        let sent = timeout(PATIENCE * 2, sending.sent())
            .await
            .expect("a send is not answered")
            .unwrap();
        assert_eq!(sent.seq, at as u64 + 1);
    }
    for number in 1..=60_u64 {
        assert_eq!(next_text(&mut to_bob).await, (number, format!("text {number}")));
    }
    let read = timeout(PATIENCE, bob.read(&conversation, 60).marked()).await;
    read.expect("the read mark is never taken").unwrap();
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_mark_made_without_a_server_is_taken_when_it_is_back() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    for number in 1..=3 {
        alice.send(&conversation, &format!("text {number}")).await;
    }
    let (reader, mut events) = start(&server, "bob", |_| {}).await;
    connected(&mut events).await;
    server.kill9().await;
    disconnected(&mut events).await;
    let markings: Vec<_> = (1..=3).map(|seq| reader.read(&conversation, seq)).collect();
    server.restart().await;
    for marking in markings {
        let marked = timeout(PATIENCE, marking.marked()).await;
        marked.expect("the read mark is never confirmed").unwrap();
    }
    let listed = bob.listed(&conversation).await.unwrap();
    assert_eq!(listed["readSeq"], 3, "{listed}");
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_mark_that_cannot_be_is_refused_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let not_his = alice.direct(&server.person("carol").await).await;
    alice.send(&conversation, "the only one").await;
    let (reader, mut events) = start(&server, "bob", |_| {}).await;
    connected(&mut events).await;
    for (conversation, seq, code) in [
        (conversation.as_str(), 2, "INVALID_ARGUMENT"),
        (not_his.as_str(), 1, "NOT_FOUND"),
    ] {
        let marked = timeout(PATIENCE, reader.read(conversation, seq).marked()).await;
        let refused = marked.expect("the read mark is not answered").unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused { code: given, .. } if given == code),
            "{refused}"
        );
    }
    // The refusal of one mark leaves the next alone.
    reader.read(&conversation, 1).marked().await.unwrap();
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_message_makes_room_in_a_full_outbox() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let (writer, mut events) = start(&server, "alice", |options| options.core.outbox_len_max = 2).await;
    connected(&mut events).await;
    server.kill9().await;
    disconnected(&mut events).await;
    let mut sendings = VecDeque::new();
    for number in 1..=2 {
        sendings.push_back(writer.send(&conversation, &format!("text {number}")).unwrap());
    }
    assert_eq!(
        writer.send(&conversation, "too many").unwrap_err(),
        OutboxFull { limit: 2 }
    );
    server.restart().await;
    for number in 3..=20 {
        let first = sendings.pop_front().unwrap();
        let sent = timeout(PATIENCE, first.sent()).await.expect("a send is not answered");
        assert_eq!(sent.unwrap().seq, number - 2);
        let next = writer.send(&conversation, &format!("text {number}"));
        sendings.push_back(next.expect("an answer makes room"));
    }
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_piped_into_the_chat_is_sent_though_the_outbox_holds_fewer() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let lines = CoreOptions::default().outbox_len_max as u64 + 500;
    let mut chat = Command::new(env!("CARGO_BIN_EXE_antiphon"))
        .args(["chat", "--username", "alice", "--with", "bob", "--device", "pipe"])
        .args(["--server", &format!("http://127.0.0.1:{}", server.port())])
        .env("ANTIPHON_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut pipe = chat.stdin.take().unwrap();
    let piped: String = (1..=lines).map(|number| format!("line {number}\n")).collect();
    pipe.write_all(piped.as_bytes()).await.unwrap();
    drop(pipe);
    let status = timeout(PATIENCE * 2, chat.wait())
        .await
        .expect("the chat does not end")
        .unwrap();
    assert!(status.success(), "{status}");
    let last = bob.page(&conversation, "limit=1").await;
    assert_eq!(
        (number(&last[0]["seq"]), text(&last[0]["text"])),
        (lines, format!("line {lines}"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_to_a_region_that_is_lost_goes_on_at_another() {
    const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];
    let world = World::start(&THREE).await;
    let alice = world.person(THREE[0], "alice").await;
    let bob = world.person(THREE[1], "bob").await;
    let talk = alice.direct(&bob).await;
    let mut to_bob = RawSession::open(world.port(THREE[1]), &bob, &[]).await;
    let url = format!("http://127.0.0.1:{}", world.port(THREE[0]));
    let tokens = Account::new(&url).log_in("alice", PASSWORD, "phone").await.unwrap();
    let (phone, mut events, _) = Client::start(
        ClientOptions {
            // Over UDP nothing but silence tells that an edge is gone.
            keep_alive: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            ..ClientOptions::new(&url, "phone")
        },
        tokens,
    );
    phone.send(&talk, "before").unwrap();
    assert_eq!(text(&to_bob.event("message").await["text"]), "before");

    let killed = world
        .admin(Method::POST, "/regions/us-east/kill", r#"{"downMs":120000}"#)
        .await;
    assert_eq!(killed.0, 200, "{}", killed.1);
    phone.send(&talk, "after").unwrap();
    assert_eq!(text(&to_bob.event("message").await["text"]), "after");
    to_bob.send(&talk, "b-1", "back").await;
    let seq = loop {
        let (seq, text) = next_text(&mut events).await;
        if text == "back" {
            break seq;
        }
    };
    assert_eq!(seq, 3);
}
