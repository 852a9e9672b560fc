//! How sessions end, and what is refused.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_gateway::{GatewayOptions, Rate};
use antiphon_session::SessionOptions;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

use crate::support::{Edge, World, conversation, user};

async fn edge_with(world: &Arc<World>, session: SessionOptions) -> Edge {
    let options = GatewayOptions {
        session,
        ..GatewayOptions::default()
    };
    Edge::start(world, options).await
}

#[tokio::test]
async fn a_new_session_of_a_device_replaces_the_old_one_and_tells_it() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut old, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut other, _) = edge.hello(user(1), "laptop", &[]).await;
    let (mut new, _) = edge.hello(user(1), "phone", &[]).await;
    assert_eq!(old.next().await.unwrap()["goaway"]["reason"], "replaced");
    assert_eq!(old.next().await, Err((4409, "replaced".to_owned())));
    assert!(other.until_pong().await.is_empty() && new.until_pong().await.is_empty());
}

#[tokio::test]
async fn a_revoked_login_ends_its_sessions() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut phone, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut laptop, _) = edge.hello(user(1), "laptop", &[]).await;
    world.revoke(user(1), "phone");
    assert_eq!(phone.next().await.unwrap()["goaway"]["reason"], "revoked");
    assert_eq!(phone.next().await, Err((4403, "revoked".to_owned())));
    assert!(laptop.until_pong().await.is_empty());
}

#[tokio::test]
async fn sessions_of_a_user_are_bounded() {
    let world = World::new();
    let edge = Edge::start(
        &world,
        GatewayOptions {
            sessions_per_user_max: 1,
            ..GatewayOptions::default()
        },
    )
    .await;
    let _first = edge.hello(user(1), "phone", &[]).await;
    let mut second = edge.connect().await;
    second.say_hello(user(1), "laptop", &[]).await;
    let refused = second.next().await.unwrap();
    assert_eq!(
        (refused["id"].as_str(), refused["error"]["code"].as_str()),
        (Some("h"), Some("RATE_LIMITED"))
    );
    assert_eq!(second.next().await, Err((4401, "refused".to_owned())));
}

#[tokio::test]
async fn a_hello_waits_for_its_turn_and_is_told_when_to_come_back_if_it_does_not_come() {
    let world = World::new();
    let silent = conversation(1);
    world.set_member(silent, user(1), true, true);
    world.set_member(silent, user(2), true, true);
    world.silent.lock().insert(silent);
    let options = GatewayOptions {
        hellos_max: 1,
        hello_wait_timeout_ms: 1_500,
        summary_timeout_ms: 1_000,
        ..GatewayOptions::default()
    };
    let edge = Edge::start(&world, options).await;
    let (mut first, mut second, mut third) = (edge.connect().await, edge.connect().await, edge.connect().await);
    let mut stranger = edge.connect().await;
    // Each of the first two is worked at for a second.
    first.say_hello(user(1), "phone", &[]).await;
    sleep(Duration::from_millis(100)).await;
    second.say_hello(user(2), "phone", &[]).await;
    sleep(Duration::from_millis(100)).await;
    third.say_hello(user(3), "phone", &[]).await;
    // A stranger is told so at once.
    let hello = json!({"id": "h", "hello": {"accessToken": "nonsense", "deviceId": "d"}});
    stranger.say(&hello).await;
    let refused = timeout(Duration::from_millis(700), stranger.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused["error"]["code"], "UNAUTHENTICATED");
    // Where the line is long nobody is let in.
    assert!(timeout(Duration::from_millis(200), edge.connect()).await.is_err());

    assert!(first.next().await.unwrap()["welcome"].is_object());
    let refused = third.next().await.unwrap();
    let error = &refused["error"];
    assert_eq!(error["code"], "RESOURCE_EXHAUSTED", "{refused}");
    // One was before it and has had its turn.
    assert_eq!(error["retryAfterMs"], "1500", "{refused}");
    assert!(error["message"].as_str().unwrap().contains("1500 ms"), "{refused}");
    assert_eq!(third.next().await, Err((4401, "refused".to_owned())));
    assert!(second.next().await.unwrap()["welcome"].is_object());
    let (mut again, _) = edge.hello(user(3), "phone", &[]).await;
    assert!(again.until_pong().await.is_empty());
}

#[tokio::test]
async fn drain_tells_each_session_its_moment_and_closes_it() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut bob, _) = edge.hello(user(2), "phone", &[]).await;
    let mut stranger = edge.connect().await;
    let gateway = edge.gateway.clone();
    let draining = tokio::spawn(async move { gateway.drain(Duration::from_secs(5)).await });
    let mut moments = Vec::new();
    for device in [&mut alice, &mut bob] {
        let goaway = device.next().await.unwrap();
        assert_eq!(goaway["goaway"]["reason"], "draining");
        moments.push(goaway["goaway"]["reconnectAfterMs"].as_u64().unwrap_or(0));
        assert_eq!(device.next().await, Err((1001, "draining".to_owned())));
    }
    moments.sort_unstable();
    assert_eq!(moments, [0, 2_500]);
    assert_eq!(stranger.next().await.unwrap_err().0, 1001);
    drop((alice, bob, stranger));
    assert!(draining.await.unwrap(), "every connection has ended by itself");
}

#[tokio::test]
async fn what_has_come_in_time_keeps_a_session_that_an_edge_reads_late() {
    let world = World::new();
    let session = SessionOptions {
        heartbeat_ms: 250,
        ..SessionOptions::default()
    };
    let edge = edge_with(&world, session).await;
    // Which an edge looks at first that has both to look at, the time or the connection, is left to chance.
    for device in 0..8 {
        let (mut device, _) = edge.hello(user(1), &format!("device-{device}"), &[]).await;
        device.say(&json!({"id": "p", "ping": {}})).await;
        #[expect(
            clippy::disallowed_methods,
            reason = "the edge has no other thread, and is to be late"
        )]
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(device.next().await.map(|frame| frame["id"].clone()), Ok(json!("p")));
    }
}

#[tokio::test]
async fn bad_input_is_answered_with_its_fault() {
    let world = World::new();
    let session = SessionOptions {
        frame_bytes_max: 1_000,
        hello_timeout_ms: 200,
        ..SessionOptions::default()
    };
    let edge = edge_with(&world, session).await;
    let code = |frame: Value| frame["error"]["code"].as_str().map(str::to_owned).unwrap();

    let mut silent = edge.connect().await;
    assert_eq!(code(silent.next().await.unwrap()), "DEADLINE_EXCEEDED");
    assert_eq!(silent.next().await, Err((4408, "hello_timeout".to_owned())));

    let mut forger = edge.connect().await;
    forger
        .say(&json!({"id": "h", "hello": {"accessToken": "nonsense", "deviceId": "d"}}))
        .await;
    assert_eq!(code(forger.next().await.unwrap()), "UNAUTHENTICATED");
    assert_eq!(forger.next().await, Err((4401, "refused".to_owned())));

    let (mut large, _) = edge.hello(user(1), "large", &[]).await;
    large
        .socket
        .send(tungstenite::Message::Text("x".repeat(1_500).into()))
        .await
        .unwrap();
    assert_eq!(code(large.next().await.unwrap()), "TOO_LARGE");
    assert!(large.until_pong().await.is_empty(), "the session lives");
    large
        .socket
        .send(tungstenite::Message::Text("x".repeat(10_000).into()))
        .await
        .unwrap();
    assert_eq!(code(large.next().await.unwrap()), "TOO_LARGE");
    assert_eq!(large.next().await, Err((1009, "too_large".to_owned())));

    let (mut garbled, _) = edge.hello(user(1), "garbled", &[]).await;
    let raw = tungstenite::protocol::frame::Frame::message(
        vec![0xff, 0xfe],
        tungstenite::protocol::frame::coding::OpCode::Data(tungstenite::protocol::frame::coding::Data::Text),
        true,
    );
    garbled.socket.send(tungstenite::Message::Frame(raw)).await.unwrap();
    assert_eq!(code(garbled.next().await.unwrap()), "MALFORMED_FRAME");
    assert_eq!(garbled.next().await, Err((1007, "malformed".to_owned())));
}

#[tokio::test]
async fn a_connection_without_a_known_subprotocol_is_refused_with_both_names() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let mut request = format!("ws://{}/v1/connect", edge.address)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let Err(tungstenite::Error::Http(response)) = connect_async(request).await else {
        panic!("connected")
    };
    assert_eq!(response.status(), 400);
    let body = String::from_utf8(response.body().clone().unwrap()).unwrap();
    assert!(body.contains("antiphon.v1 or antiphon.v1.json"), "{body}");
}

#[tokio::test]
async fn a_session_over_its_rate_is_told_when_to_retry() {
    let world = World::new();
    let edge = Edge::start(
        &world,
        GatewayOptions {
            session_rate: Rate::new(1, 1),
            ..GatewayOptions::default()
        },
    )
    .await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    for id in ["1", "2"] {
        alice.say(&json!({"id": id, "sync": {}})).await;
    }
    assert!(alice.next().await.unwrap()["conversations"].is_object());
    let refused = alice.next().await.unwrap();
    assert_eq!(
        (refused["id"].as_str(), refused["error"]["code"].as_str()),
        (Some("2"), Some("RATE_LIMITED"))
    );
    assert!(refused["error"]["retryAfterMs"].is_string());
}

#[tokio::test]
async fn a_slot_with_too_much_to_do_is_not_asked_again_before_it_may_be() {
    let world = World::new();
    world.set_member(conversation(1), user(1), true, false);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    *world.busy.lock() = Some(60_000);
    for id in ["1", "2"] {
        let send = json!({"conversationId": conversation(1).to_string(), "clientMsgId": id, "text": "hello"});
        alice.say(&json!({"id": id, "send": send})).await;
        let refused = alice.next().await.unwrap();
        assert_eq!(
            (refused["id"].as_str(), refused["error"]["code"].as_str()),
            (Some(id), Some("RESOURCE_EXHAUSTED")),
            "{refused}"
        );
        assert!(refused["error"]["retryAfterMs"].is_string(), "{refused}");
    }
    assert_eq!(world.writes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_a_device_holds_is_told_again_to_a_slot_that_could_not_take_it() {
    let world = World::new();
    world.set_member(conversation(1), user(1), true, false);
    world.send(conversation(1), user(1), "hello", false);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[(conversation(1), 1)]).await;
    *world.busy.lock() = Some(20);
    let ack = json!({"conversationId": conversation(1).to_string(), "deliveredSeq": "1"});
    alice.say(&json!({"id": "1", "ack": ack})).await;
    let done = alice.next().await.unwrap();
    assert!(done["ok"].is_object(), "{done}");
    assert_eq!(world.delivered.lock().len(), 0);
    *world.busy.lock() = None;
    timeout(Duration::from_secs(10), async {
        while world.delivered.lock().get(&(conversation(1), user(1))) != Some(&1) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    // And only until it has.
    let writes = world.writes.load(Ordering::SeqCst);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(world.writes.load(Ordering::SeqCst), writes);
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_and_counted_until_they_end() {
    let world = World::new();
    let edge = Edge::start(
        &world,
        GatewayOptions {
            connections_per_address_max: 1,
            ..GatewayOptions::default()
        },
    )
    .await;
    let (alice, _) = edge.hello(user(1), "phone", &[]).await;
    let request = || {
        let mut request = format!("ws://{}/v1/connect", edge.address)
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "antiphon.v1".parse().unwrap());
        request
    };
    let Err(tungstenite::Error::Http(response)) = connect_async(request()).await else {
        panic!("no answer")
    };
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "5")
    );
    drop(alice);
    sleep(Duration::from_millis(100)).await;
    assert!(connect_async(request()).await.is_ok());
}

#[tokio::test]
async fn a_session_that_comes_and_goes_is_reported() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (bob, _) = edge.hello(user(2), "phone", &[]).await;
    sleep(Duration::from_millis(50)).await;
    let query = json!({"id": "q", "presence": {"userIds": [user(2).to_string()]}});
    alice.say(&query).await;
    assert_eq!(alice.next().await.unwrap()["presences"]["presences"][0]["online"], true);
    drop(bob);
    sleep(Duration::from_millis(100)).await;
    alice.say(&query).await;
    let answer = alice.next().await.unwrap();
    assert_eq!(answer["presences"]["presences"][0].get("online"), None, "{answer}");
}
