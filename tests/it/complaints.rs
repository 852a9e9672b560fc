//! What users of other systems complain of (DESIGN, "What users of today's systems complain of"), as promises.

use serde_json::{Value, json};

use crate::{
    presence::{becomes, is_online},
    support::{
        Person, RawSession, SILENCE, Server, metrics::commits_rest, number, proxy::Proxy, until, wire::Transport,
    },
};

async fn pair(server: &Server) -> (Person, Person, String) {
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    (alice, bob, talk)
}

fn seqs(page: &[Value]) -> Vec<u64> {
    page.iter().map(|message| number(&message["seq"])).collect()
}

/// "Messages are missing after the laptop slept."
#[tokio::test]
async fn laptop_that_slept_misses_nothing() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    let group = alice.group("crew", &[&bob]).await;
    let network = Proxy::to(server.port()).await;
    let mut laptop = RawSession::open_over(Transport::WebSocket, network.port(), &bob).await;
    alice.send(&talk, "before").await;
    assert_eq!(laptop.messages(&talk, 1).await, [1]);
    // The lid closes: the connection is neither closed nor read.
    network.go_dead();
    for _ in 0..40 {
        alice.send(&talk, "while it slept").await;
        alice.send(&group, "while it slept").await;
    }
    let mut awake = RawSession::open(server.port(), &bob, &[(&talk, 1), (&group, 0)]).await;
    assert_eq!(awake.messages(&talk, 40).await, (2..=41).collect::<Vec<_>>());
    assert_eq!(awake.messages(&group, 40).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(awake.event_within("message", SILENCE).await, None);
    drop(laptop);
}

/// "A half-open connection swallows messages."
#[tokio::test]
async fn half_open_connection_swallows_no_message() {
    let server = Server::with(&[("edge.heartbeat_ms", "500")]).await;
    let (alice, bob, talk) = pair(&server).await;
    let network = Proxy::to(server.port()).await;
    let mut dead = RawSession::open_over(Transport::WebSocket, network.port(), &bob).await;
    alice.send(&talk, "one").await;
    assert_eq!(dead.messages(&talk, 1).await, [1]);
    network.go_dead();
    // What goes into a dead network is delivered to nobody, and nobody claims that it was.
    for _ in 0..5 {
        alice.send(&talk, "into the void").await;
    }
    dead.ask(
        "send",
        &json!({"conversationId": talk, "clientMsgId": "lost", "text": "into the void"}),
    )
    .await;
    assert_eq!(number(&bob.listed(&talk).await.unwrap()["deliveredSeq"]), 0);
    // The server finds out by itself that nobody is there.
    server.sessions_become(0.0).await;

    let mut back = RawSession::open(server.port(), &bob, &[(&talk, 1)]).await;
    assert_eq!(back.messages(&talk, 5).await, [2, 3, 4, 5, 6]);
    assert_eq!(back.send(&talk, "lost", "into the void").await, 7);
    drop(dead);
}

/// "Holes or repeats in seq after the counter's cache restarts."
#[tokio::test]
async fn seq_has_no_hole_after_restart() {
    let mut server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    for round in 0..4 {
        for at in 1..=5 {
            assert_eq!(alice.send(&talk, "text").await, round * 5 + at);
        }
        server.kill9().await;
        server.restart().await;
    }
    assert_eq!(bob.send(&talk, "text").await, 21);
    assert_eq!(
        seqs(&bob.page(&talk, "afterSeq=0&limit=100").await),
        (1..=21).collect::<Vec<_>>()
    );
}

/// "Logging in somewhere kicks every device."
#[tokio::test]
async fn logging_in_elsewhere_follows_the_device_policy_and_says_why() {
    let server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    let laptop = bob.on("bob-laptop").await;
    let (mut phone, mut on_laptop) = (server.session(&bob).await, server.session(&laptop).await);
    alice.send(&talk, "to both").await;
    assert_eq!(
        (phone.messages(&talk, 1).await, on_laptop.messages(&talk, 1).await),
        (vec![1], vec![1])
    );

    let mut phone_again = server.session(&bob).await;
    assert_eq!(phone.event("goaway").await["reason"], "replaced");
    phone.closed().await;
    alice.send(&talk, "to both again").await;
    assert_eq!(
        (phone_again.messages(&talk, 1).await, on_laptop.messages(&talk, 1).await),
        (vec![2], vec![2])
    );
}

#[tokio::test]
async fn the_policy_of_one_device_replaces_every_other_and_says_why() {
    let server = Server::with(&[("edge.device_policy", "single")]).await;
    let bob = server.person("bob").await;
    let mut phone = server.session(&bob).await;
    let mut laptop = server.session(&bob.on("bob-laptop").await).await;
    assert_eq!(phone.event("goaway").await["reason"], "replaced");
    phone.closed().await;
    assert!(laptop.request("ping", &json!({})).await["pong"].is_object());
}

/// "'Did I miss anything?' has no answer."
#[tokio::test]
async fn resume_after_a_week_is_explicit() {
    let server = Server::with(&[("edge.resume_push_max", "20")]).await;
    let (alice, bob, talk) = pair(&server).await;
    let quiet = alice.group("quiet", &[&bob]).await;
    alice.send(&quiet, "the only one").await;
    for _ in 0..120 {
        alice.send(&talk, "in that week").await;
    }
    let mut b = RawSession::open(server.port(), &bob, &[(&talk, 0), (&quiet, 1)]).await;
    // Each conversation asked for is answered, the one without news too.
    let resumed = b.welcome["resumed"].as_array().unwrap();
    let mut tails: Vec<(String, u64)> = resumed
        .iter()
        .map(|entry| {
            (
                entry["conversationId"].as_str().unwrap().to_owned(),
                number(&entry["tailSeq"]),
            )
        })
        .collect();
    let mut expected = vec![(talk.clone(), 120), (quiet.clone(), 1)];
    tails.sort();
    expected.sort();
    assert_eq!(tails, expected);
    // Too much to push is not left out in silence.
    let lagged = b.event("lagged").await;
    assert_eq!(
        (lagged["conversationId"].as_str(), number(&lagged["tailSeq"])),
        (Some(talk.as_str()), 120)
    );
    let mut held = 0;
    while held < 120 {
        let page = bob.page(&talk, &format!("afterSeq={held}")).await;
        assert_eq!(seqs(&page), (held + 1..=held + page.len() as u64).collect::<Vec<_>>());
        assert!(!page.is_empty());
        held += page.len() as u64;
    }
    // And a busy session sees at each heartbeat how far it should be.
    alice.send(&talk, "live").await;
    assert_eq!(b.messages(&talk, 1).await, [121]);
    let pong = b.request("ping", &json!({})).await;
    let tail = pong["pong"]["tails"]
        .as_array()
        .unwrap()
        .iter()
        .find(|tail| tail["conversationId"] == talk.as_str());
    assert_eq!(number(&tail.unwrap()["afterSeq"]), 121, "{pong}");
}

/// "A rolling restart shows connected users as offline."
#[tokio::test]
async fn restart_does_not_flap_presence() {
    let settings = [
        ("presence.write_pause_ms", "50"),
        ("presence.restored_ms", "120000"),
        ("presence.grace_ms", "60000"),
    ];
    let mut server = Server::with(&settings).await;
    let (alice, bob, _) = pair(&server).await;
    let mut a = server.session(&alice).await;
    let mut b = server.session(&bob).await;
    becomes(&mut a, &bob, true).await;
    commits_rest(&server.admin_url()).await;
    server.kill9().await;
    server.restart().await;

    // Bob has not come back yet, and is not shown as gone.
    let mut a = server.session(&alice).await;
    assert!(is_online(&mut a, &bob).await);
    assert!(b.any_event(SILENCE).await.is_none());
    let _b = server.session(&bob).await;
    assert!(is_online(&mut a, &bob).await);
    while let Some(event) = a.event_within("presence", SILENCE).await {
        assert!(event["online"].as_bool().unwrap_or_default(), "{event}");
    }
}

/// "One node down hides conversations."
#[tokio::test]
async fn lists_come_from_the_store_and_not_from_a_node() {
    let mut server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    alice.send(&talk, "hello").await;
    until("the message in the list", || async {
        bob.listed(&talk).await.filter(|entry| number(&entry["lastSeq"]) == 1)
    })
    .await;
    let before = bob.get("/v1/conversations").await.expect(200);
    server.kill9().await;
    server.restart().await;
    assert_eq!(bob.get("/v1/conversations").await.expect(200), before);
}

/// "Idempotency keys expire in minutes."
#[tokio::test]
async fn resend_long_after_returns_the_same_seq() {
    // A log that is trimmed at once: what remembers the key is not the log.
    let mut server = Server::with(&[("slot.log_entries_kept", "0")]).await;
    let (alice, bob, talk) = pair(&server).await;
    let first = alice.send_as(&talk, "m1", "hello").await.expect(201);
    for _ in 0..300 {
        bob.send(&talk, "and then").await;
    }
    server.kill9().await;
    server.restart().await;
    assert_eq!(alice.send_as(&talk, "m1", "hello").await.expect(200), first);
    let mut a = server.session(&alice).await;
    assert_eq!(a.send(&talk, "m1", "hello").await, number(&first["seq"]));
    assert_eq!(alice.send(&talk, "the next").await, 302);
}

/// "Acknowledged before it is durable."
#[tokio::test]
async fn an_acknowledged_message_survives_kill_9() {
    let mut server = Server::start().await;
    let (alice, bob, talk) = pair(&server).await;
    for round in 0..5 {
        let mut a = server.session(&alice).await;
        let mut asked = Vec::new();
        for at in 0..20 {
            let body = json!({"conversationId": talk, "clientMsgId": format!("m{round}-{at}"), "text": "hold this"});
            asked.push(a.ask("send", &body).await);
        }
        let mut last = 0;
        for id in &asked[..10] {
            last = number(&a.reply(id).await["sent"]["seq"]).max(last);
        }
        assert!(last > 0);
        // With ten acknowledged and ten under way.
        server.kill9().await;
        server.restart().await;
        let held = seqs(&bob.page(&talk, "afterSeq=0&limit=200").await);
        assert_eq!(held, (1..=held.len() as u64).collect::<Vec<_>>());
        assert!(held.contains(&last), "{last} of {held:?}");
    }
}
