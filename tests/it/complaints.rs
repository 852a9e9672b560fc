//! What users of other systems complain of is a promise here (DESIGN, section 10).

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{Server, Session, number, text};

const QUIET: Duration = Duration::from_millis(400);

#[tokio::test]
async fn laptop_that_slept_misses_nothing() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (mut b, _) = Session::open(&server, &bob, &[]).await;
    server.send(&alice, &conversation, "k1", "one").await;
    assert_eq!(number(&b.event_of("message").await, "seq"), 1);
    drop(b);
    for seq in 2..=60 {
        server
            .send(&alice, &conversation, &format!("k{seq}"), "while you slept")
            .await;
    }
    let (mut b, welcome) = Session::open(&server, &bob, &[(&conversation, 1)]).await;
    let resumed = &welcome["welcome"]["resumed"][0];
    assert_eq!(
        (text(resumed, "conversationId"), number(resumed, "tailSeq")),
        (conversation.clone(), 60),
        "{welcome}"
    );
    server.send(&alice, &conversation, "k61", "good morning").await;
    for seq in 2..=61 {
        assert_eq!(number(&b.event_of("message").await, "seq"), seq);
    }
}

#[tokio::test]
async fn half_open_connection_swallows_no_message() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (port, cut) = freezing_proxy(server.port()).await;
    let (mut b, _) = Session::open_to(port, &bob, &[]).await.unwrap();
    server.send(&alice, &conversation, "k1", "one").await;
    assert_eq!(number(&b.event_of("message").await, "seq"), 1);
    cut.send(true).unwrap();
    server.send(&alice, &conversation, "k2", "into the void").await;
    assert!(b.quiet("message", QUIET).await.is_empty(), "the proxy is no proxy");
    let (mut again, _) = Session::open(&server, &bob, &[(&conversation, 1)]).await;
    assert_eq!(text(&again.event_of("message").await, "text"), "into the void");
}

#[tokio::test]
async fn a_dead_peer_is_found_by_its_heartbeat() {
    let server = Server::start_with(&[("edge.heartbeat_ms", "300")]).await;
    let (_, bob, _) = server.pair().await;
    let (mut b, _) = Session::open(&server, &bob, &[]).await;
    let ended = async { while b.frame().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("a silent session is kept");
}

#[tokio::test]
async fn seq_has_no_hole_after_restart() {
    let mut server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    for round in 0..3_u64 {
        for message in 1..=10 {
            let seq = round * 10 + message;
            let (_, sent) = server.send(&alice, &conversation, &format!("k{seq}"), "text").await;
            assert_eq!(number(&sent, "seq"), seq);
        }
        server.kill9();
        server.launch().await;
    }
    let seqs: Vec<u64> = server
        .history(&bob, &conversation)
        .await
        .iter()
        .map(|m| number(m, "seq"))
        .collect();
    assert_eq!(seqs, (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn resend_long_after_returns_the_same_seq() {
    let mut server = Server::start().await;
    let (alice, _, conversation) = server.pair().await;
    let (_, first) = server.send(&alice, &conversation, "the-key", "text").await;
    for other in 0..20 {
        server
            .send(&alice, &conversation, &format!("other{other}"), "text")
            .await;
    }
    server.kill9();
    server.launch().await;
    let (_, again) = server.send(&alice, &conversation, "the-key", "text").await;
    assert_eq!(again, first);
    let (status, refused) = server.send(&alice, &conversation, "the-key", "another text").await;
    assert_eq!(
        (status, text(&refused, "code")),
        (409, "IDEMPOTENCY_MISMATCH".to_owned())
    );
}

#[tokio::test]
async fn logging_in_elsewhere_kicks_nobody_and_a_replaced_session_is_told_why() {
    let server = Server::start().await;
    let (alice, _, conversation) = server.pair().await;
    let tablet = server.log_in("alice", "alice-tablet").await;
    let (mut phone, _) = Session::open(&server, &alice, &[]).await;
    let (mut other, _) = Session::open(&server, &tablet, &[]).await;
    other.send(&conversation, "k", "from the tablet").await;
    assert_eq!(text(&phone.event_of("message").await, "text"), "from the tablet");

    let (_replacing, _) = Session::open(&server, &alice, &[]).await;
    assert_eq!(text(&phone.event_of("goaway").await, "reason"), "replaced");
    assert!(other.request("ping", json!({})).await.unwrap()["pong"].is_object());
}

#[tokio::test]
async fn resume_after_a_week_is_explicit() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    for seq in 1..=700 {
        server.send(&alice, &conversation, &format!("k{seq}"), "news").await;
    }
    let (mut b, welcome) = Session::open(&server, &bob, &[(&conversation, 0)]).await;
    assert_eq!(number(&welcome["welcome"]["resumed"][0], "tailSeq"), 700, "{welcome}");
    // What is not pushed is named; nothing is left out in silence.
    let mut held = 0;
    while held < 700 {
        let event = b.event().await.unwrap();
        if !event["message"].is_null() {
            assert_eq!(number(&event["message"], "seq"), held + 1);
            held += 1;
        } else if !event["lagged"].is_null() {
            assert_eq!(number(&event["lagged"], "tailSeq"), 700);
            while held < 700 {
                let body = json!({ "conversationId": conversation, "afterSeq": held.to_string(), "limit": 200 });
                let page = b.request("fetch", body).await.unwrap();
                for message in page["page"]["messages"].as_array().unwrap() {
                    assert_eq!(number(message, "seq"), held + 1);
                    held += 1;
                }
            }
        }
    }
}

#[tokio::test]
async fn restart_does_not_flap_presence() {
    let mut server = Server::start_with(&[("presence.write_pause_ms", "100")]).await;
    let (alice, bob, _) = server.pair().await;
    let (_b, _) = Session::open(&server, &bob, &[]).await;
    let (mut a, _) = Session::open(&server, &alice, &[]).await;
    let ask = json!({ "userIds": [bob.user_id] });
    let online = |answer: serde_json::Value| answer["presences"]["presences"][0]["online"] == true;
    let seen = async {
        while !online(a.request("presence", ask.clone()).await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen)
        .await
        .expect("bob is never shown online");
    // The record is written lazily; a crash before that forgets.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    server.kill9();
    server.launch().await;
    let (mut a, _) = Session::open(&server, &alice, &[]).await;
    assert!(
        online(a.request("presence", ask).await.unwrap()),
        "bob is shown offline though his phone only reconnects"
    );
}

/// A proxy that, once told to, forwards nothing any more and closes nothing.
async fn freezing_proxy(to: u16) -> (u16, watch::Sender<bool>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let frozen = async {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => true,
                        _ = is_cut.wait_for(|is_cut| *is_cut) => false,
                    }
                };
                if !frozen.await {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, cut)
}
