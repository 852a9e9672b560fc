//! Two people talk.

use antiphon_proto::client::{Fetch, Ping, Send, client_frame, server_frame};
use reqwest::Method;
use serde_json::json;

use crate::support::{Server, binary::BinarySession, number, text, until};

#[tokio::test]
async fn two_people_talk() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    assert_eq!(a.welcome["userId"], alice.id.as_str());
    assert!(
        number(&a.welcome["heartbeatMs"]) > 0 && !text(&a.welcome["region"]).is_empty(),
        "{}",
        a.welcome
    );

    assert_eq!(a.send(&talk, "m1", "hello").await, 1);
    let message = b.event("message").await;
    assert_eq!(message["conversationId"], talk.as_str());
    assert_eq!(number(&message["seq"]), 1);
    assert_eq!(message["senderId"], alice.id.as_str());
    assert_eq!(
        (&message["clientMsgId"], &message["text"]),
        (&json!("m1"), &json!("hello"))
    );
    assert!(number(&message["sentAtMs"]) > 1_600_000_000_000, "{message}");

    assert_eq!(b.send(&talk, "m1", "hello to you").await, 2);
    let answer = a
        .event_where("message", |message| message["senderId"] == bob.id.as_str())
        .await;
    assert_eq!(
        (number(&answer["seq"]), text(&answer["text"]).as_str()),
        (2, "hello to you")
    );
}

#[tokio::test]
async fn each_device_of_a_user_sees_what_the_others_send() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let laptop = alice.on("alice-laptop").await;
    let talk = alice.direct(&bob).await;
    let (mut phone, mut on_laptop) = (server.session(&alice).await, server.session(&laptop).await);
    phone.send(&talk, "m1", "from the phone").await;
    assert_eq!(on_laptop.event("message").await["text"], "from the phone");
}

#[tokio::test]
async fn numbers_of_json_frames_are_text_and_defaults_are_left_out() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let mut a = server.session(&alice).await;
    let page = a.request("fetch", &json!({"conversationId": talk})).await;
    assert_eq!(page["page"].get("tailSeq"), None, "{page}");
    let body = json!({"conversationId": talk, "clientMsgId": "m1", "text": "hello"});
    let sent = a.request("send", &body).await;
    assert_eq!(sent["sent"]["seq"], "1");
    assert!(sent["sent"]["sentAtMs"].is_string(), "{sent}");
    let ping = a.request("ping", &json!({})).await;
    assert!(ping["pong"].is_object(), "{ping}");
}

#[tokio::test]
async fn the_binary_protocol_says_the_same() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let mut a = BinarySession::open(server.port(), &alice).await;
    let mut b = server.session(&bob).await;
    let send = Send {
        conversation_id: talk.clone(),
        client_msg_id: "m1".to_owned(),
        text: "in binary".to_owned(),
    };
    a.ask("s", client_frame::Body::Send(send)).await;
    let sent = a.next_where(|frame| match frame.body {
        Some(server_frame::Body::Sent(sent)) => Some((frame.id, sent.seq)),
        _ => None,
    });
    assert_eq!(sent.await, ("s".to_owned(), 1));
    assert_eq!(b.event("message").await["text"], "in binary");

    b.send(&talk, "m2", "in JSON").await;
    let message = a.next_where(|frame| match frame.body {
        Some(server_frame::Body::Message(message)) if message.sender_id == bob.id => Some(message),
        _ => None,
    });
    let message = message.await;
    assert_eq!((message.seq, message.text.as_str()), (2, "in JSON"));

    let fetch = Fetch {
        conversation_id: talk,
        after_seq: Some(0),
        ..Fetch::default()
    };
    a.ask("f", client_frame::Body::Fetch(fetch)).await;
    let page = a.next_where(|frame| match frame.body {
        Some(server_frame::Body::Page(page)) => Some(page),
        _ => None,
    });
    let seqs: Vec<u64> = page.await.messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [1, 2]);
    a.ask("p", client_frame::Body::Ping(Ping {})).await;
    a.next_where(|frame| matches!(frame.body, Some(server_frame::Body::Pong(_))).then_some(()))
        .await;
}

#[tokio::test]
async fn history_is_read_both_ways_in_pages() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    for at in 1..=10 {
        assert_eq!(alice.send(&talk, &format!("text {at}")).await, at);
    }
    for (query, expected) in [
        ("afterSeq=0&limit=3", vec![1, 2, 3]),
        ("afterSeq=3&limit=3", vec![4, 5, 6]),
        ("afterSeq=9&limit=3", vec![10]),
        ("afterSeq=10", vec![]),
        ("afterSeq=1000", vec![]),
        ("beforeSeq=11&limit=3", vec![8, 9, 10]),
        ("beforeSeq=8&limit=3", vec![5, 6, 7]),
        ("beforeSeq=2&limit=3", vec![1]),
        ("beforeSeq=1", vec![]),
        ("limit=4", vec![7, 8, 9, 10]),
    ] {
        let page = bob.page(&talk, query).await;
        let seqs: Vec<u64> = page.iter().map(|message| number(&message["seq"])).collect();
        assert_eq!(seqs, expected, "{query}");
        assert!(
            page.iter()
                .all(|message| message["text"] == format!("text {}", message["seq"]))
        );
    }
    let path = format!("/v1/conversations/{talk}/messages?afterSeq=1&beforeSeq=5");
    bob.get(&path).await.expect_problem(400, "INVALID_ARGUMENT");

    let mut b = server.session(&bob).await;
    let body = json!({"conversationId": talk, "beforeSeq": "4", "limit": 2});
    let page = b.request("fetch", &body).await["page"].clone();
    let seqs: Vec<u64> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| number(&message["seq"]))
        .collect();
    assert_eq!((seqs, number(&page["tailSeq"])), (vec![2, 3], 10));
}

#[tokio::test]
async fn the_same_client_msg_id_is_one_message_and_another_text_is_refused() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let first = alice.send_as(&talk, "m1", "hello").await.expect(201);
    assert_eq!(alice.send_as(&talk, "m1", "hello").await.expect(200), first);
    alice
        .send_as(&talk, "m1", "other")
        .await
        .expect_problem(409, "IDEMPOTENCY_MISMATCH");
    // The key is the sender's own.
    assert_eq!(number(&bob.send_as(&talk, "m1", "hello").await.expect(201)["seq"]), 2);
    assert_eq!(bob.page(&talk, "afterSeq=0").await.len(), 2);
}

#[tokio::test]
async fn what_was_not_read_is_counted_until_it_is_read() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    for at in 1..=4 {
        alice.send(&talk, &format!("text {at}")).await;
    }
    let listed = |unread: u64| {
        let (bob, talk) = (bob.clone(), talk.clone());
        async move {
            bob.listed(&talk)
                .await
                .filter(|entry| number(&entry["unread"]) == unread)
        }
    };
    let entry = until("four unread", || listed(4)).await;
    assert_eq!((number(&entry["lastSeq"]), number(&entry["readSeq"])), (4, 0));
    assert_eq!(entry["lastMessage"]["text"], "text 4");
    assert_eq!(
        (entry["kind"].as_str(), entry["peerId"].as_str()),
        (Some("direct"), Some(alice.id.as_str()))
    );

    let read = format!("/v1/conversations/{talk}/read");
    let answer = bob.ask(Method::PUT, &read, Some(&json!({"seq": 3}))).await;
    assert!([200, 204].contains(&answer.status), "{answer:?}");
    let entry = until("one unread", || listed(1)).await;
    assert_eq!((number(&entry["readSeq"]), number(&entry["deliveredSeq"])), (3, 3));
    // I6: it never goes back.
    bob.ask(Method::PUT, &read, Some(&json!({"seq": 1}))).await;
    assert_eq!(number(&bob.listed(&talk).await.unwrap()["readSeq"]), 3);
    // What one sends oneself is not unread.
    assert_eq!(number(&alice.listed(&talk).await.unwrap()["unread"]), 0);
}

#[tokio::test]
async fn delivered_and_read_reach_the_sender_and_stay_below_the_end() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    a.send(&talk, "m1", "hello").await;
    a.send(&talk, "m2", "hello again").await;
    let of_bob = |receipt: &serde_json::Value| receipt["userId"] == bob.id.as_str();

    b.request("ack", &json!({"conversationId": talk, "deliveredSeq": "2"}))
        .await;
    let receipt = a
        .event_where("receipt", |receipt| {
            of_bob(receipt) && number(&receipt["deliveredSeq"]) == 2
        })
        .await;
    assert_eq!(number(&receipt["readSeq"]), 0);
    b.request("read", &json!({"conversationId": talk, "seq": "1"})).await;
    let receipt = a
        .event_where("receipt", |receipt| of_bob(receipt) && number(&receipt["readSeq"]) == 1)
        .await;
    assert_eq!(number(&receipt["deliveredSeq"]), 2);
    // Beyond the end there is nothing to have read.
    b.request("read", &json!({"conversationId": talk, "seq": "99"})).await;
    let entry = bob.listed(&talk).await.unwrap();
    assert!(
        number(&entry["readSeq"]) <= 2 && number(&entry["deliveredSeq"]) <= 2,
        "{entry}"
    );
}

#[tokio::test]
async fn typing_reaches_the_other_and_is_not_stored() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    a.request("typing", &json!({"conversationId": talk})).await;
    let event = b.event("typing").await;
    assert_eq!(
        (event["conversationId"].as_str(), event["userId"].as_str()),
        (Some(talk.as_str()), Some(alice.id.as_str()))
    );
    assert!(bob.page(&talk, "afterSeq=0").await.is_empty());
}

#[tokio::test]
async fn a_conversation_opened_while_the_other_is_connected_reaches_them() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let mut b = server.session(&bob).await;
    let talk = alice.direct(&bob).await;
    let event = b.event("conversation").await;
    assert_eq!(
        (event["conversationId"].as_str(), event["change"].as_str()),
        (Some(talk.as_str()), Some("added"))
    );
    alice.send(&talk, "hello").await;
    assert_eq!(b.event("message").await["text"], "hello");
}

#[tokio::test]
async fn conversations_are_listed_most_recently_active_first() {
    let server = Server::start().await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let (with_bob, with_carol) = (alice.direct(&bob).await, alice.direct(&carol).await);
    let mut a = server.session(&alice).await;
    for (sender, talk) in [(&bob, &with_bob), (&carol, &with_carol), (&bob, &with_bob)] {
        sender.send(talk, "hello").await;
        let answer = a.request("sync", &json!({})).await;
        assert_eq!(
            answer["conversations"]["conversations"][0]["conversationId"],
            talk.as_str(),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn sends_that_are_pipelined_get_their_seqs_in_the_order_of_the_wire() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let mut session = server.session(&alice).await;
    let mut asked = Vec::new();
    for number in 0..100 {
        let body =
            json!({"conversationId": conversation, "clientMsgId": format!("m-{number}"), "text": number.to_string()});
        asked.push(session.ask("send", &body).await);
    }
    for (id, seq) in asked.iter().zip(1_u64..) {
        let answer = session.reply(id).await;
        assert_eq!(number(&answer["sent"]["seq"]), seq, "{answer}");
    }
}
