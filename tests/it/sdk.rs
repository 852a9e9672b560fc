//! The SDK against the real server.

use std::time::Duration;

use antiphon_client::{Account, Client, ClientOptions, Event};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{PATIENCE, http::PASSWORD, server::Server};

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
    let url = format!("http://127.0.0.1:{}", server.port());
    let account = Account::new(&url);
    let start = async |name: &str, device: &str| {
        let tokens = account.log_in(name, PASSWORD, device).await.unwrap();
        let options = ClientOptions {
            reconnect_base_ms: 50,
            ..ClientOptions::new(&url, device)
        };
        Client::start(options, tokens)
    };
    let (alice, mut to_alice, _) = start("alice", "sdk-a").await;
    let (bob, mut to_bob, _) = start("bob", "sdk-b").await;
    for events in [&mut to_alice, &mut to_bob] {
        let connected = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        assert!(matches!(connected, Event::Connected { .. }), "{connected:?}");
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
    // The last kill may still keep bob from his edge.
    let read = async {
        while bob.read(&conversation, 60).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, read).await.expect("the read mark is never taken");
    alice.close().await;
    bob.close().await;
}
