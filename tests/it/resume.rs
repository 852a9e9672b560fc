//! Coming back.

use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::{PATIENCE, Person, RawSession, SILENCE, Server, number};

async fn pair(server: &Server) -> (Person, Person, String) {
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    (alice, bob, talk)
}

#[tokio::test]
async fn a_session_gets_exactly_what_it_missed_in_order_and_then_what_is_new() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    let mut b = server.session(&bob).await;
    for at in 1..=5 {
        alice.send(&talk, &format!("text {at}")).await;
    }
    assert_eq!(b.messages(&talk, 5).await, [1, 2, 3, 4, 5]);
    drop(b);
    for at in 6..=250 {
        alice.send(&talk, &format!("text {at}")).await;
    }
    let mut b = RawSession::open(server.port(), &bob, &[(&talk, 5)]).await;
    let resumed = &b.welcome["resumed"][0];
    assert_eq!(
        (resumed["conversationId"].as_str(), number(&resumed["tailSeq"])),
        (Some(talk.as_str()), 250)
    );
    assert_eq!(resumed.get("truncatedFromSeq"), None);
    alice.send(&talk, "text 251").await;
    assert_eq!(b.messages(&talk, 246).await, (6..=251).collect::<Vec<_>>());
    assert_eq!(b.event_within("message", SILENCE).await, None);
}

#[tokio::test]
async fn without_a_cursor_only_what_is_new_is_pushed() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    alice.send(&talk, "old").await;
    let mut b = server.session(&bob).await;
    alice.send(&talk, "new").await;
    assert_eq!(b.messages(&talk, 1).await, [2]);
}

#[tokio::test]
async fn a_cursor_at_the_end_is_told_that_nothing_was_missed() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    alice.send(&talk, "text").await;
    let mut b = RawSession::open(server.port(), &bob, &[(&talk, 1)]).await;
    assert_eq!(number(&b.welcome["resumed"][0]["tailSeq"]), 1);
    assert_eq!(b.event_within("message", SILENCE).await, None);
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_told_where_the_end_is() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    alice.send(&talk, "one").await;
    let mut b = RawSession::open(server.port(), &bob, &[(&talk, 999)]).await;
    assert_eq!(number(&b.welcome["resumed"][0]["tailSeq"]), 1);
    alice.send(&talk, "two").await;
    assert_eq!(b.messages(&talk, 1).await, [2]);
}

#[tokio::test]
async fn a_cursor_of_a_conversation_that_is_not_ones_own_is_left_out() {
    let server = Server::start().await;
    let (alice, _bob, talk) = pair(&server).await;
    let eve = server.person("eve").await;
    alice.send(&talk, "secret").await;
    let mut session = RawSession::open(server.port(), &eve, &[(&talk, 0)]).await;
    assert_eq!(session.welcome.get("resumed"), None, "{}", session.welcome);
    assert_eq!(session.event_within("message", SILENCE).await, None);
}

#[tokio::test]
async fn a_session_far_behind_is_told_to_fetch_and_then_is_live() {
    let server = Server::with(&[("edge.resume_push_max", "10")]).await;
    let (alice, bob, talk) = pair(&server).await;
    for _ in 0..30 {
        alice.send(&talk, "text").await;
    }
    let mut b = RawSession::open(server.port(), &bob, &[(&talk, 2)]).await;
    let lagged = b.event("lagged").await;
    assert_eq!(
        (lagged["conversationId"].as_str(), number(&lagged["tailSeq"])),
        (Some(talk.as_str()), 30)
    );
    let mut held = 2;
    while held < 30 {
        let body = json!({"conversationId": talk, "afterSeq": held.to_string(), "limit": 12});
        let page = b.request("fetch", &body).await["page"]["messages"].clone();
        for message in page.as_array().unwrap() {
            held += 1;
            assert_eq!(number(&message["seq"]), held);
        }
    }
    alice.send(&talk, "live").await;
    assert_eq!(b.messages(&talk, 1).await, [31]);
}

/// Takes next to nothing into the kernel's buffers.
async fn narrow(server: &Server, person: &Person) -> RawSession {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let mut session = RawSession::over(stream, server.port()).await.unwrap();
    let answer = session.hello(&person.token, &person.device_id, &[]).await;
    assert!(answer["welcome"].is_object(), "{answer}");
    session
}

const LARGE: usize = 12_000;
const MANY: usize = 800;

/// Sends more than any buffer of a reader that does not read could hold; everyone else gets all of it.
async fn flood(server: &Server, alice: &Person, group: &str, watcher: &mut RawSession) {
    let mut a = server.session(alice).await;
    let large = "x".repeat(LARGE);
    for chunk in 0..MANY / 16 {
        let mut asked = Vec::new();
        for at in 0..16 {
            let body = json!({"conversationId": group, "clientMsgId": format!("m{chunk}-{at}"), "text": large});
            asked.push(a.ask("send", &body).await);
        }
        for id in asked {
            let answer = a.reply(&id).await;
            assert!(answer["sent"].is_object(), "{answer}");
        }
        let first = u64::try_from(chunk * 16 + 1).unwrap();
        assert_eq!(
            watcher.messages(group, 16).await,
            (first..first + 16).collect::<Vec<_>>()
        );
        a.messages(group, 16).await;
    }
}

#[tokio::test]
async fn a_reader_that_reads_late_is_told_what_it_missed_and_others_are_unharmed() {
    let slow_writes = [("edge.write_timeout_ms", "60000"), ("edge.push_frames_max", "32")];
    let server = Server::with(&slow_writes).await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let group = alice.group("flood", &[&bob, &carol]).await;
    let mut slow = narrow(&server, &bob).await;
    let mut watcher = server.session(&carol).await;
    flood(&server, &alice, &group, &mut watcher).await;

    // What was queued comes in order; then the session is told up to where it has to fetch.
    let mut last = 0;
    let tail = loop {
        let event = slow.any_event(PATIENCE).await.expect("lagged, or the rest");
        if event["lagged"].is_object() {
            break number(&event["lagged"]["tailSeq"]);
        }
        if event["message"].is_object() {
            let seq = number(&event["message"]["seq"]);
            assert_eq!(seq, last + 1);
            last = seq;
        }
    };
    assert!(last < tail && tail <= MANY as u64, "{last} {tail}");
    let body = json!({"conversationId": group, "afterSeq": last.to_string(), "limit": 1});
    let page = slow.request("fetch", &body).await;
    assert_eq!(number(&page["page"]["messages"][0]["seq"]), last + 1);
}

#[tokio::test]
async fn a_reader_that_never_reads_is_closed_and_others_are_unharmed() {
    let server = Server::with(&[("edge.write_timeout_ms", "500")]).await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let group = alice.group("flood", &[&bob, &carol]).await;
    let slow = narrow(&server, &bob).await;
    let mut watcher = server.session(&carol).await;
    flood(&server, &alice, &group, &mut watcher).await;
    // The sender's session has ended with the flood: what remains is the watcher's.
    server.sessions_become(1.0).await;
    slow.closed().await;
    // Nothing is lost to it but time.
    let mut back = RawSession::open(server.port(), &bob, &[(&group, MANY as u64 - 2)]).await;
    assert_eq!(back.messages(&group, 2).await, [MANY as u64 - 1, MANY as u64]);
}
