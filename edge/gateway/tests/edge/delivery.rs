//! What reaches whom, whatever the feed loses.

use std::{sync::atomic::Ordering, time::Duration};

use antiphon_gateway::GatewayOptions;
use antiphon_types::ConversationId;
use serde_json::{Value, json};

use crate::support::{Edge, World, conversation, user};

/// A group of users 1 and 2 with some messages.
fn group(world: &World, messages: u64) -> ConversationId {
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
    assert_eq!(bob.until_pong().await, Vec::<Value>::new());
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
async fn who_is_added_while_its_hello_is_answered_gets_each_message_once() {
    let world = World::new();
    let id = conversation(1);
    world.set_member(id, user(1), true, false);
    let edge = Edge::start(&world, GatewayOptions::default()).await;
    *world.joins_late.lock() = Some((id, user(2)));
    let (mut bob, _) = edge.hello(user(2), "laptop", &[(id, 0)]).await;
    world.send(id, user(1), "after", false);
    assert_eq!(bob.seqs_until(6).await, [1, 2, 3, 4, 5, 6]);
    let frames = bob.until_pong().await;
    assert!(frames.iter().all(|frame| !frame["message"].is_object()), "{frames:?}");
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
    assert_eq!(eve.until_pong().await, Vec::<Value>::new());
    eve.say(&json!({"id": "1", "fetch": {"conversationId": id.to_string()}}))
        .await;
    assert_eq!(eve.next().await.unwrap()["error"]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn a_slot_that_does_not_answer_hides_nothing_but_itself_and_is_resumed_when_it_does() {
    let world = World::new();
    let (lost, other) = (conversation(1), conversation(2));
    for id in [lost, other] {
        world.set_member(id, user(1), true, false);
        (0..3).for_each(|_| _ = world.send(id, user(1), "before", false));
    }
    world.silent.lock().insert(lost);
    let options = GatewayOptions {
        summary_timeout_ms: 100,
        ..GatewayOptions::default()
    };
    let edge = Edge::start(&world, options).await;
    let (mut alice, welcome) = edge.hello(user(1), "phone", &[(lost, 1), (other, 3)]).await;
    let of = |outcome: &str| -> Vec<&str> {
        let all = welcome[outcome].as_array().unwrap().iter();
        all.map(|it| it["conversationId"].as_str().unwrap()).collect()
    };
    assert_eq!(of("resumed"), [other.to_string()]);
    assert_eq!(of("unavailable"), [lost.to_string()]);
    assert_eq!(welcome["unavailable"][0]["retryAfterMs"], "1000");

    world.send(other, user(1), "live", false);
    assert_eq!(alice.seqs_until(4).await, [4]);
    alice.say(&json!({"id": "s", "sync": {}})).await;
    let listed = alice.next().await.unwrap()["conversations"]["conversations"].clone();
    let listed = listed.as_array().unwrap();
    let find = |id: ConversationId| listed.iter().find(|it| it["conversationId"] == id.to_string()).unwrap();
    assert_eq!(
        (find(lost)["unavailable"].as_bool(), find(lost).get("lastSeq")),
        (Some(true), None)
    );
    assert_eq!(find(other)["lastSeq"], "4");

    world.silent.lock().clear();
    let resumed = alice.next().await.unwrap();
    assert_eq!(
        resumed["resumed"],
        json!({"conversationId": lost.to_string(), "tailSeq": "3"})
    );
    assert_eq!(alice.seqs_until(3).await, [2, 3]);
    world.send(lost, user(1), "after", false);
    assert_eq!(alice.seqs_until(4).await, [4]);
}

#[tokio::test]
async fn who_has_no_cursor_gets_what_was_sent_while_a_slot_did_not_answer() {
    let world = World::new();
    let id = group(&world, 3);
    world.silent.lock().insert(id);
    let options = GatewayOptions {
        summary_timeout_ms: 100,
        ..GatewayOptions::default()
    };
    let edge = Edge::start(&world, options).await;
    let (mut alice, welcome) = edge.hello(user(1), "phone", &[]).await;
    assert_eq!(welcome["unavailable"][0]["conversationId"], id.to_string());
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.send(id, user(2), "meanwhile", false);
    world.silent.lock().clear();
    assert_eq!(alice.next().await.unwrap()["resumed"]["tailSeq"], "4");
    assert!(alice.seqs_until(4).await.ends_with(&[4]));
}

#[tokio::test]
async fn a_cursor_that_turns_out_to_be_of_no_conversation_of_the_users_is_said_to_be() {
    let world = World::new();
    let id = group(&world, 3);
    world.silent.lock().insert(id);
    let options = GatewayOptions {
        summary_timeout_ms: 100,
        ..GatewayOptions::default()
    };
    let edge = Edge::start(&world, options).await;
    let (mut eve, welcome) = edge.hello(user(3), "phone", &[(id, 0)]).await;
    assert_eq!(welcome["unavailable"][0]["conversationId"], id.to_string());
    world.send(id, user(1), "secret", false);
    world.silent.lock().clear();
    let told = eve.next().await.unwrap();
    assert_eq!(
        (&told["conversation"]["change"], &told["conversation"]["userId"]),
        (&json!("removed"), &json!(user(3).to_string()))
    );
    assert_eq!(eve.until_pong().await, Vec::<Value>::new());
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
