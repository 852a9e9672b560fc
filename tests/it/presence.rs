//! Who is there.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{PATIENCE, Person, RawSession, Server};

/// Whether the session is told that `whom` is online.
pub(crate) async fn is_online(session: &mut RawSession, whom: &Person) -> bool {
    let answer = session.request("presence", &json!({"userIds": [whom.id]})).await;
    let presence = &answer["presences"]["presences"][0];
    assert_eq!(presence["userId"], whom.id.as_str(), "{answer}");
    presence["online"].as_bool().unwrap_or_default()
}

/// Waits until the session is told so.
pub(crate) async fn becomes(session: &mut RawSession, whom: &Person, online: bool) {
    let deadline = Instant::now() + PATIENCE;
    while is_online(session, whom).await != online {
        assert!(
            Instant::now() < deadline,
            "{} is not shown as online: {online}",
            whom.name
        );
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_comes_and_who_goes_is_seen_by_those_who_talk_with_them() {
    let server = Server::with(&[("presence.grace_ms", "300")]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    alice.direct(&bob).await;
    let mut a = server.session(&alice).await;
    assert!(!is_online(&mut a, &bob).await);
    let b = server.session(&bob).await;
    let of_bob = |online: bool| {
        let id = bob.id.clone();
        move |event: &Value| event["userId"] == id.as_str() && event["online"].as_bool().unwrap_or_default() == online
    };
    a.event_where("presence", of_bob(true)).await;
    becomes(&mut a, &bob, true).await;
    drop(b);
    a.event_where("presence", of_bob(false)).await;
    becomes(&mut a, &bob, false).await;
}

#[tokio::test]
async fn a_stranger_is_not_told_who_is_there() {
    let server = Server::start().await;
    let (bob, eve) = (server.person("bob").await, server.person("eve").await);
    let _b = server.session(&bob).await;
    let mut session = server.session(&eve).await;
    let answer = session.request("presence", &json!({"userIds": [bob.id]})).await;
    let told = answer["presences"]["presences"][0]["online"]
        .as_bool()
        .unwrap_or_default();
    assert!(!told, "{answer}");
}

#[tokio::test]
async fn one_device_of_two_that_goes_leaves_the_user_online() {
    let server = Server::with(&[("presence.grace_ms", "100")]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let laptop = bob.on("bob-laptop").await;
    alice.direct(&bob).await;
    let mut a = server.session(&alice).await;
    let (phone, _laptop) = (server.session(&bob).await, server.session(&laptop).await);
    becomes(&mut a, &bob, true).await;
    drop(phone);
    server.sessions_become(2.0).await;
    // Longer than the grace.
    let changed = a.event_within("presence", Duration::from_millis(600)).await;
    assert!(changed.is_none_or(|event| event["online"] == true));
    assert!(is_online(&mut a, &bob).await);
}

#[tokio::test]
async fn sessions_are_reported_again_before_they_are_forgotten() {
    let lease = ("presence.lease_ms", "4000");
    let restored = ("presence.restored_ms", "4000");
    let again = ("edge.presence_interval_ms", "500");
    let server = Server::with(&[("presence.grace_ms", "100"), lease, restored, again]).await;
    let alice = server.person("alice").await;
    let mut a = server.session(&alice).await;
    let mut here = Vec::new();
    for number in 0..12 {
        let friend = server.person(&format!("friend{number}")).await;
        alice.direct(&friend).await;
        here.push((server.session(&friend).await, friend));
    }
    for (_, friend) in &here {
        becomes(&mut a, friend, true).await;
    }
    // More than twice as long as they are known for.
    let until = Instant::now() + Duration::from_secs(9);
    while let Some(event) = a
        .event_within("presence", until.saturating_duration_since(Instant::now()))
        .await
    {
        assert!(event["online"] == true, "{event}");
    }
    for (_, friend) in &here {
        assert!(is_online(&mut a, friend).await, "{}", friend.name);
    }
}
