//! Ten thousand connections that say nothing.

use futures_util::{StreamExt as _, stream};
use tokio::net::TcpStream;

use crate::support::{RawSession, Server, open_files::open_files_max, wire::Transport};

const CONNECTIONS: usize = 10_000;
/// Of them, those that shake hands and then fall silent.
const SHAKEN: usize = 1_000;
/// Open files of the test besides.
const SPARE: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_harm_nobody() {
    let allowed = open_files_max().saturating_sub(SPARE);
    let count = CONNECTIONS.min(allowed);
    if count < CONNECTIONS {
        eprintln!("the limit of open files leaves {count} of {CONNECTIONS} connections");
    }
    let patient = [
        ("edge.hello_timeout_ms", "120000"),
        ("edge.header_timeout_ms", "120000"),
    ];
    let server = Server::with(&patient).await;
    let port = server.port();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;

    let shaken = SHAKEN.min(count);
    let connect = |_| async move { TcpStream::connect(("127.0.0.1", port)).await.unwrap() };
    let silent: Vec<TcpStream> = stream::iter(0..count - shaken)
        .map(connect)
        .buffer_unordered(200)
        .collect()
        .await;
    let shake = |_| async move { RawSession::web_socket(port).await };
    let waiting: Vec<RawSession> = stream::iter(0..shaken).map(shake).buffer_unordered(100).collect().await;

    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    for at in 1..=20 {
        assert_eq!(a.send(&talk, &format!("m{at}"), "hello").await, at);
    }
    assert_eq!(b.messages(&talk, 20).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(silent.len() + waiting.len(), count);
    drop((silent, waiting));
    assert_eq!(a.send(&talk, "m21", "still here").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_of_an_address_are_refused_and_those_before_go_on() {
    let server = Server::with(&[("edge.connections_per_address_max", "10")]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let mut a = server.session(&alice).await;
    let mut held = Vec::new();
    let refused = loop {
        match RawSession::connect_over(Transport::WebSocket, server.port()).await {
            Ok(session) => held.push(session),
            Err(error) => break error,
        }
        assert!(held.len() <= 10, "{} connections of one address", held.len());
    };
    assert_eq!(a.send(&talk, "m1", "hello").await, 1, "{refused}");
}
