//! Sessions over real sockets, in front of a home in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test expects and does not find ends it"
)]
#![allow(missing_docs, unreachable_pub, reason = "a test")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use antiphon_gateway::{GatewayOptions, Rate};
use antiphon_session::SessionOptions;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use support::{Edge, World, conversation, user};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

/// A group of users 1 and 2 with some messages.
fn group(world: &World, messages: u64) -> antiphon_types::ConversationId {
    let id = conversation(1);
    world.set_member(id, user(1), true, false);
    world.set_member(id, user(2), true, false);
    (0..messages).for_each(|_| _ = world.send(id, user(1), "before", false));
    id
}

#[tokio::test]
async fn what_is_sent_after_welcome_reaches_every_member() {
    let world = World::new();
    let id = group(&world, 3);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, welcome) = edge.hello(user(1), "phone", &[]).await;
    assert_eq!(
        (welcome["userId"].as_str().unwrap(), welcome["region"].as_str().unwrap()),
        (&*user(1).to_string(), "r1")
    );
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    alice
        .say(&json!({"id": "1", "send": {"conversationId": id.to_string(), "clientMsgId": "a", "text": "hi"}}))
        .await;
    assert_eq!(bob.next().await.unwrap()["message"]["text"], "hi");
    let (first, second) = (alice.next().await.unwrap(), alice.next().await.unwrap());
    let sent = [&first, &second].into_iter().find(|frame| frame["id"] == "1").unwrap();
    assert_eq!(sent["sent"]["seq"], "4");
    assert!(
        [&first, &second]
            .into_iter()
            .any(|frame| frame["message"]["seq"] == "4")
    );
}

#[tokio::test]
async fn resume_brings_what_was_missed_in_order_and_then_what_is_new() {
    let world = World::new();
    let id = group(&world, 250);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut bob, welcome) = edge.hello(user(2), "laptop", &[(id, 7)]).await;
    assert_eq!(welcome["resumed"][0]["tailSeq"], "250");
    assert_eq!(bob.seqs_until(250).await, (8..=250).collect::<Vec<u64>>());
    world.send(id, user(1), "new", false);
    assert_eq!(bob.seqs_until(251).await, [251]);
}

#[tokio::test]
async fn a_device_too_far_behind_is_told_to_fetch() {
    let world = World::new();
    let id = group(&world, 60);
    let edge = Edge::start(
        &world,
        GatewayOptions {
            resume_push_max: 50,
            ..GatewayOptions::default()
        },
    )
    .await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[(id, 0)]).await;
    assert_eq!(
        bob.next().await.unwrap()["lagged"],
        json!({"conversationId": id.to_string(), "tailSeq": "60"})
    );
    world.send(id, user(1), "new", false);
    assert_eq!(bob.seqs_until(61).await, [61]);
}

#[tokio::test]
async fn what_the_feed_loses_is_fetched() {
    let world = World::new();
    let id = group(&world, 1);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    for lost in [true, true, false, true, false] {
        world.send(id, user(1), "x", lost);
    }
    assert_eq!(bob.seqs_until(6).await, [2, 3, 4, 5, 6]);
    assert!(world.fills.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_broken_feed_is_followed_again_without_a_hole() {
    let world = World::new();
    let id = group(&world, 1);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    world.send(id, user(1), "x", false);
    assert_eq!(bob.seqs_until(2).await, [2]);
    world.break_feed();
    for _ in 0..5 {
        world.send(id, user(1), "x", false);
    }
    assert_eq!(bob.seqs_until(7).await, [3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_member_who_was_removed_gets_nothing_that_was_sent_after() {
    let world = World::new();
    let id = group(&world, 1);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    world.send(id, user(1), "before", false);
    world.set_member(id, user(2), false, true);
    world.send(id, user(1), "after", false);
    assert_eq!(alice.seqs_until(3).await, [2, 3]);
    let frames = bob.until_pong().await;
    let texts: Vec<_> = frames
        .iter()
        .filter_map(|frame| frame["message"]["text"].as_str())
        .collect();
    assert_eq!(texts, ["before"]);
    assert!(
        frames.iter().any(|frame| frame["conversation"]["change"] == "removed"),
        "{frames:?}"
    );
}

#[tokio::test]
async fn a_removal_that_the_feed_lost_is_found_when_it_is_followed_again() {
    let world = World::new();
    let id = group(&world, 1);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    world.break_feed();
    world.set_member(id, user(2), false, false);
    world.send(id, user(1), "after", false);
    assert_eq!(alice.seqs_until(2).await, [2]);
    assert_eq!(bob.until_pong().await, Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn a_new_member_gets_what_is_sent_from_then_on() {
    let world = World::new();
    let id = conversation(1);
    world.set_member(id, user(1), true, false);
    world.send(id, user(1), "before", false);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut bob, _) = edge.hello(user(2), "laptop", &[]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.set_member(id, user(2), true, true);
    world.send(id, user(1), "first", false);
    world.send(id, user(1), "second", false);
    assert_eq!(bob.next().await.unwrap()["conversation"]["change"], "added");
    assert_eq!(bob.seqs_until(3).await, [2, 3]);
}

#[tokio::test]
async fn who_is_no_member_gets_nothing_whatever_cursor_it_names() {
    let world = World::new();
    let id = group(&world, 5);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut eve, welcome) = edge.hello(user(3), "phone", &[(id, 0)]).await;
    assert_eq!(welcome.get("resumed"), None);
    world.send(id, user(1), "secret", false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(eve.until_pong().await, Vec::<serde_json::Value>::new());
    eve.say(&json!({"id": "1", "fetch": {"conversationId": id.to_string()}}))
        .await;
    assert_eq!(eve.next().await.unwrap()["error"]["code"], "NOT_FOUND");
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
async fn bad_input_is_answered_with_its_fault() {
    let world = World::new();
    let session = SessionOptions {
        frame_bytes_max: 1_000,
        hello_timeout_ms: 200,
        ..SessionOptions::default()
    };
    let edge = Edge::start(
        &world,
        GatewayOptions {
            session,
            ..GatewayOptions::default()
        },
    )
    .await;
    let code = |frame: serde_json::Value| frame["error"]["code"].as_str().map(str::to_owned).unwrap();

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
    assert!(connect_async(request()).await.is_err());
    drop(alice);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(connect_async(request()).await.is_ok());
}

#[tokio::test]
async fn a_reader_that_never_reads_slows_nobody_and_is_told_what_it_missed() {
    let world = World::new();
    let id = group(&world, 0);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (mut stuck, _) = edge.hello(user(2), "stuck", &[]).await;
    let text = "x".repeat(8_000);
    let sending = async {
        for _ in 0..3_000 {
            world.send(id, user(1), &text, false);
            tokio::task::yield_now().await;
        }
    };
    let reading = alice.seqs_until(3_000);
    let (seqs, ()) = tokio::join!(reading, sending);
    assert_eq!(seqs, (1..=3_000).collect::<Vec<u64>>());
    let mut last = 0;
    loop {
        let frame = stuck.next().await.unwrap();
        if let Some(tail) = frame["lagged"]["tailSeq"].as_str() {
            assert!(tail.parse::<u64>().unwrap() > last, "the tail is past what was pushed");
            break;
        }
        let seq: u64 = frame["message"]["seq"].as_str().unwrap().parse().unwrap();
        assert_eq!(seq, last + 1);
        last = seq;
    }
    assert!(last < 3_000);
}

#[tokio::test]
async fn a_session_that_comes_and_goes_is_reported() {
    let world = World::new();
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    let (mut alice, _) = edge.hello(user(1), "phone", &[]).await;
    let (bob, _) = edge.hello(user(2), "phone", &[]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let query = json!({"id": "q", "presence": {"userIds": [user(2).to_string()]}});
    alice.say(&query).await;
    assert_eq!(alice.next().await.unwrap()["presences"]["presences"][0]["online"], true);
    drop(bob);
    tokio::time::sleep(Duration::from_millis(100)).await;
    alice.say(&query).await;
    let answer = alice.next().await.unwrap();
    assert_eq!(answer["presences"]["presences"][0].get("online"), None, "{answer}");
    let _ = alice.socket.next();
}
