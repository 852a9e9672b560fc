//! QUIC and WebTransport: the same session as over WebSocket, on networks that lose, reorder and change.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a phone is told more than a test asks for"
)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use antiphon_client::{Account, Client, ClientOptions, Connection, Connector, Event};
use antiphon_proto::client::{ClientFrame, Hello, Ping, client_frame, server_frame::Body};
use serde_json::Value;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, Person, RawSession, SILENCE,
    http::PASSWORD,
    quic::{self, QUIC, UdpPath, Weather},
    server::Server,
    session::hello,
    wire::Transport,
};

const EVERY: [Transport; 3] = [Transport::WebSocket, Transport::WebTransport, Transport::Quic];

/// A client of the SDK and what it is told.
struct Phone {
    client: Client,
    events: mpsc::Receiver<Event>,
}

impl Phone {
    /// Logs a registered user in and starts a session over this transport; none: whichever gets through.
    async fn start(server: &Server, name: &str, transport: Option<Transport>) -> Self {
        Self::with(server, name, |options| options.transport = transport).await
    }

    async fn with(server: &Server, name: &str, adapt: impl FnOnce(&mut ClientOptions)) -> Self {
        let url = format!("http://127.0.0.1:{}", server.port());
        let device = format!("sdk-{name}");
        let tokens = Account::new(&url).log_in(name, PASSWORD, &device).await.unwrap();
        let mut options = ClientOptions {
            reconnect_base_ms: 50,
            reconnect_max_ms: 500,
            ..ClientOptions::new(&url, &device)
        };
        options.core.in_flight_per_conversation_max = 64;
        options.core.outbox_len_max = 20_000;
        adapt(&mut options);
        let (client, events, _) = Client::start(options, tokens);
        Self { client, events }
    }

    /// What it is connected over, once it is.
    async fn connected(&mut self) -> Transport {
        self.next(|event| match event {
            Event::Connected { transport, .. } => Some(transport),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) {
        let lost = |event| matches!(event, Event::Disconnected { .. }).then_some(());
        self.next(lost).await;
    }

    async fn next<T>(&mut self, mut take: impl FnMut(Event) -> Option<T>) -> T {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the client has stopped");
                assert!(!matches!(event, Event::LoggedOut { .. }), "{event:?}");
                if let Some(taken) = take(event) {
                    return taken;
                }
            }
        };
        timeout(PATIENCE, next).await.expect("what has to come does not")
    }

    /// The next `count` messages have these seqs, one after the other; how often a session was lost meanwhile.
    async fn receives(&mut self, from: u64, count: u64) -> usize {
        let (mut next, mut lost) = (from, 0);
        while next < from + count {
            let event = timeout(PATIENCE * 3, self.events.recv())
                .await
                .expect("no message comes");
            match event.expect("the client has stopped") {
                Event::Message(message) => {
                    assert_eq!(message.seq, next);
                    next += 1;
                }
                Event::Disconnected { .. } => lost += 1,
                Event::LoggedOut { reason } => panic!("logged out: {reason}"),
                _ => {}
            }
        }
        lost
    }
}

/// A server whose QUIC is found at the end of this path.
async fn behind(path: &UdpPath, settings: &[(&str, &str)]) -> Server {
    let url = format!("quic://127.0.0.1:{}", path.port());
    let settings: Vec<(&str, &str)> = [("edge.quic_url", url.as_str())]
        .iter()
        .chain(settings)
        .copied()
        .collect();
    let server = Server::with(&settings).await;
    path.lead_to(server.port() + QUIC);
    server
}

pub(super) async fn two(server: &Server) -> (Person, Person, String) {
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    (alice, bob, talk)
}

pub(super) fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_talks_with_every_other() {
    let server = Server::start().await;
    let names = ["over-ws", "over-wt", "over-quic"];
    let mut people = Vec::new();
    for name in names {
        people.push(server.person(name).await);
    }
    let group = people[0].group("all", &[&people[1], &people[2]]).await;
    let mut phones = Vec::new();
    for (name, transport) in names.iter().zip(EVERY) {
        let mut phone = Phone::start(&server, name, Some(transport)).await;
        assert_eq!(phone.connected().await, transport);
        phones.push(phone);
    }
    for round in 0..10 {
        for phone in &phones {
            let sending = phone.client.send(&group, &format!("round {round}")).unwrap();
            timeout(PATIENCE, sending.sent()).await.unwrap().unwrap();
        }
    }
    for phone in &mut phones {
        assert_eq!(phone.receives(1, 30).await, 0);
    }
    // A page of history is larger than any frame of a device's.
    let long = "x".repeat(4_000);
    for _ in 0..50 {
        timeout(PATIENCE, phones[2].client.send(&group, &long).unwrap().sent())
            .await
            .unwrap()
            .unwrap();
    }
    for phone in &phones {
        let fetch = antiphon_proto::client::Fetch {
            conversation_id: group.clone(),
            after_seq: Some(30),
            before_seq: None,
            limit: 100,
        };
        assert_eq!(phone.client.fetch(fetch).await.unwrap().messages.len(), 50);
    }
    for phone in phones {
        phone.client.close().await;
    }
    server.sessions_become(0.0).await;
}

#[tokio::test]
async fn an_edge_says_what_it_offers() {
    let server = Server::with(&[("edge.web_transport_url", "https://edge.example:443/v1/connect")]).await;
    let offers = server.http().get("/v1/transports").await.expect(200);
    let offers = offers["transports"].as_array().unwrap();
    let names: Vec<&Value> = offers.iter().map(|offer| &offer["name"]).collect();
    assert_eq!(names, ["quic", "webtransport", "websocket"]);
    let port = server.port();
    assert_eq!(offers[0]["url"], format!("quic://127.0.0.1:{}", port + QUIC));
    assert_eq!(offers[1]["url"], "https://edge.example:443/v1/connect");
    assert_eq!(offers[2]["url"], format!("ws://127.0.0.1:{port}/v1/connect"));
    let hash = offers[0]["certificateSha256"].as_str().unwrap();
    assert!(hash.len() == 64 && hash == offers[1]["certificateSha256"], "{hash}");

    let without = Server::with(&[("edge.quic", "false")]).await;
    let offers = without.http().get("/v1/transports").await.expect(200);
    assert_eq!(offers["transports"].as_array().unwrap().len(), 1, "{offers}");
    without.person("alice").await;
    let mut phone = Phone::start(&without, "alice", None).await;
    assert_eq!(phone.connected().await, Transport::WebSocket);
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_is_taken_where_it_gets_through_and_websocket_where_udp_does_not() {
    let path = UdpPath::new(1).await;
    let blocked = UdpPath::new(2).await;
    blocked.set(Weather {
        is_dead: true,
        ..Weather::default()
    });
    let nowhere = format!("https://127.0.0.1:{}/v1/connect", blocked.port());
    let server = behind(&path, &[("edge.web_transport_url", &nowhere)]).await;
    let (_, _, talk) = two(&server).await;

    let mut alice = Phone::with(&server, "alice", |options| {
        // On a machine that is busy the usual one may be over before anybody has answered.
        options.head_start = PATIENCE / 10;
        options.silence_max = Duration::from_secs(2);
    })
    .await;
    assert_eq!(alice.connected().await, Transport::Quic);
    path.set(Weather {
        is_dead: true,
        ..Weather::default()
    });
    let mut bob = Phone::start(&server, "bob", None).await;
    assert_eq!(bob.connected().await, Transport::WebSocket);

    // What alice sends now is not heard, and nothing tells so but the silence. The message is sent again over what gets through.
    let sending = alice.client.send(&talk, "is anybody there?").unwrap();
    let sent = timeout(PATIENCE * 3, sending.sent()).await.unwrap().unwrap();
    assert_eq!(sent.seq, 1);
    alice.disconnected().await;
    assert_eq!(alice.connected().await, Transport::WebSocket);
    assert_eq!(bob.receives(1, 1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_moves_keeps_its_session_and_loses_nothing() {
    const MESSAGES: u64 = 10_000;
    const MOVES: u64 = 50;
    let path = UdpPath::new(3).await;
    // As fast as they come: a message that is refused for now would be sent again.
    let unlimited = [
        ("edge.user_rate_per_second", "0"),
        ("edge.session_rate_per_second", "0"),
    ];
    let server = behind(&path, &unlimited).await;
    let (_, _, talk) = two(&server).await;
    let mut alice = Phone::start(&server, "alice", Some(Transport::Quic)).await;
    let mut bob = Phone::start(&server, "bob", Some(Transport::Quic)).await;
    alice.connected().await;
    bob.connected().await;
    let sessions = server.metric("antiphon_quic_handshakes_total").await;

    let (to_alice, to_bob) = (alice.client.clone(), bob.client.clone());
    let writing = async {
        let each = MESSAGES / MOVES;
        for moved in 0..MOVES {
            let mut sendings = Vec::new();
            for number in 0..each {
                if number == each / 2 {
                    // In the middle of it: a phone has another address, or the network has given it one.
                    sleep(Duration::from_millis(5)).await;
                    match moved % 3 {
                        0 => to_alice.network_changed().await.unwrap(),
                        1 => to_bob.network_changed().await.unwrap(),
                        _ => path.rebind(),
                    }
                }
                let sender = if number % 2 == 0 { &to_alice } else { &to_bob };
                sendings.push(sender.send(&talk, &format!("{moved} {number}")).unwrap());
            }
            for sending in sendings {
                let sent = timeout(PATIENCE * 2, sending.sent()).await.unwrap().unwrap();
                assert_eq!(sent.attempts, 1, "it was sent again");
            }
        }
    };
    let (lost, also_lost, ()) = tokio::join!(alice.receives(1, MESSAGES), bob.receives(1, MESSAGES), writing);
    assert_eq!((lost, also_lost), (0, 0), "sessions were lost");
    assert_eq!(server.metric("antiphon_quic_handshakes_total").await, sessions);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_path_that_loses_and_reorders_everything_arrives_in_order_and_once() {
    for (seed, lost_percent) in [(4, 1), (5, 5), (6, 20)] {
        let path = UdpPath::new(seed).await;
        let server = behind(&path, &[]).await;
        let (_, _, talk) = two(&server).await;
        path.set(Weather {
            lost_percent,
            late_percent: 10,
            is_dead: false,
        });
        let mut alice = Phone::start(&server, "alice", Some(Transport::Quic)).await;
        let mut bob = Phone::start(&server, "bob", Some(Transport::Quic)).await;
        alice.connected().await;
        bob.connected().await;
        let mut sendings = Vec::new();
        for number in 0..150 {
            for phone in [&alice, &bob] {
                sendings.push(phone.client.send(&talk, &format!("message {number}")).unwrap());
            }
        }
        tokio::join!(alice.receives(1, 300), bob.receives(1, 300));
        let mut seqs = Vec::new();
        for sending in sendings {
            seqs.push(timeout(PATIENCE, sending.sent()).await.unwrap().unwrap().seq);
        }
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=300).collect::<Vec<_>>(), "{lost_percent} % lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_hears_from_the_process_in_the_place_of_a_killed_one() {
    let mut server = Server::start().await;
    let (_, _, talk) = two(&server).await;
    let mut alice = Phone::with(&server, "alice", |options| {
        options.transport = Some(Transport::Quic);
        // The silence alone would not tell in the time of this test.
        options.keep_alive = Duration::from_millis(300);
        options.silence_max = PATIENCE * 10;
    })
    .await;
    alice.connected().await;
    server.kill9().await;
    server.restart().await;
    alice.disconnected().await;
    alice.connected().await;
    let sending = alice.client.send(&talk, "back").unwrap();
    assert_eq!(timeout(PATIENCE, sending.sent()).await.unwrap().unwrap().seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_back_says_hello_with_its_first_packet_and_nobody_can_say_it_again() {
    let path = UdpPath::new(7).await;
    let server = behind(&path, &[]).await;
    let (alice, _, talk) = two(&server).await;
    let (config, endpoint) = (quic::client_config(b"antiphon/1"), quic::endpoint());
    let connecting = || {
        endpoint
            .connect_with(config.clone(), at(path.port()), "localhost")
            .unwrap()
    };
    assert!(connecting().into_0rtt().is_err(), "nothing is known of the edge yet");
    let first = connecting().await.unwrap();
    let mut session = RawSession::on_stream(&first).await.greeted(&alice, &[]).await;
    assert_eq!(session.send(&talk, "m1", "one").await, 1);
    drop(session);
    first.close(0_u32.into(), b"");
    server.sessions_become(0.0).await;

    path.record();
    let (second, accepted) = connecting().into_0rtt().expect("the edge is known");
    let mut session = RawSession::on_stream(&second).await;
    let id = session.ask("hello", &hello(&alice.token, &alice.device_id, &[])).await;
    assert!(accepted.await, "what was said early was not taken");
    assert!(session.reply(&id).await["welcome"].is_object());
    let recorded = path.recorded();
    server.sessions_become(1.0).await;

    // Somebody has listened, and sends from elsewhere what the device has sent. Were Hello heard again, the device's session would be
    // replaced by one that is nobody's.
    assert!(!recorded.is_empty());
    let other = UdpSocket::bind(at(0)).await.unwrap();
    for _ in 0..3 {
        for datagram in &recorded {
            other.send_to(datagram, at(server.port() + QUIC)).await.unwrap();
        }
        sleep(SILENCE / 2).await;
    }
    assert_eq!(session.any_event(SILENCE).await, None);
    assert_eq!(session.send(&talk, "m2", "still here").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_one_process_can_share_a_socket() {
    let path = UdpPath::new(9).await;
    let server = behind(&path, &[]).await;
    let socket = std::net::UdpSocket::bind(at(0)).unwrap();
    let mut first = Connector::new(Some(antiphon_client::Transport::Quic), Duration::ZERO, None);
    first.share_socket(socket).unwrap();
    let mut connections = Vec::new();
    for (name, mut connector) in [("alice", first.clone()), ("bob", first.clone()), ("carol", first)] {
        let person = server.person(name).await;
        connections.push(welcomed(&mut connector, &server, &person).await);
    }
    assert_eq!(path.sockets(), 1);
    // Who leaves takes nobody along.
    connections.remove(0).close().await;
    for connection in &mut connections {
        let ping = ClientFrame {
            id: "2".to_owned(),
            body: Some(client_frame::Body::Ping(Ping {})),
        };
        connection.send(&ping).await.unwrap();
        let answer = connection.receive().await.unwrap();
        assert!(matches!(answer.body, Some(Body::Pong(_))), "{answer:?}");
    }
}

/// A connection whose Hello was answered.
async fn welcomed(connector: &mut Connector, server: &Server, person: &Person) -> Connection {
    let hello = Hello {
        access_token: person.token.clone(),
        device_id: person.device_id.clone(),
        cursors: Vec::new(),
    };
    let frame = ClientFrame {
        id: "1".to_owned(),
        body: Some(client_frame::Body::Hello(hello)),
    };
    let url = format!("http://127.0.0.1:{}", server.port());
    let (connection, answer) = connector.open(&url, &frame, PATIENCE).await.unwrap();
    assert!(matches!(answer.body, Some(Body::Welcome(_))), "{answer:?}");
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reads_late_gets_all_that_came_before_the_connection_was_closed() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    for transport in [
        antiphon_client::Transport::WebTransport,
        antiphon_client::Transport::Quic,
    ] {
        let mut connector = Connector::new(Some(transport), Duration::ZERO, None);
        let mut phone = welcomed(&mut connector, &server, &bob).await;
        // The first is read, so that the device is live; what follows waits.
        alice.send(&talk, "hello").await;
        while !matches!(phone.receive().await.unwrap().body, Some(Body::Message(message)) if message.text == "hello") {}
        for _ in 0..20 {
            alice.send(&talk, "waits").await;
        }
        // It logs in elsewhere, and this connection is closed.
        let _elsewhere = server.session(&bob).await;
        sleep(SILENCE).await;
        let mut bodies = Vec::new();
        while let Ok(frame) = phone.receive().await {
            bodies.push(frame.body.unwrap());
        }
        let messages = bodies.iter().filter(|body| matches!(body, Body::Message(_))).count();
        assert_eq!(messages, 20, "{transport}: {bodies:?}");
        let last = bodies.last();
        assert!(
            matches!(last, Some(Body::Goaway(goaway)) if goaway.reason == "replaced"),
            "{transport}: {last:?}"
        );
    }
}
