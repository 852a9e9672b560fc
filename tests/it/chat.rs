//! People talk.

use std::time::Duration;

use antiphon_proto::client::{ClientFrame, Hello, Send, ServerFrame, client_frame, server_frame};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Server, Session, number, text};

const QUIET: Duration = Duration::from_millis(400);

#[tokio::test]
async fn two_people_chat_over_websocket() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (mut a, welcome) = Session::open(&server, &alice, &[]).await;
    assert_eq!(welcome["welcome"]["userId"], alice.user_id.as_str());
    let (mut b, _) = Session::open(&server, &bob, &[]).await;

    let sent = a.send(&conversation, "k1", "hello").await;
    assert_eq!(number(&sent["sent"], "seq"), 1, "{sent}");
    let message = b.event_of("message").await;
    assert_eq!(
        (text(&message, "text"), text(&message, "senderId")),
        ("hello".to_owned(), alice.user_id.clone())
    );
    assert_eq!(number(&message, "seq"), 1);

    b.request("read", json!({ "conversationId": conversation, "seq": "1" }))
        .await
        .unwrap();
    let receipt = a.event_of("receipt").await;
    assert_eq!(
        (text(&receipt, "userId"), number(&receipt, "readSeq")),
        (bob.user_id.clone(), 1)
    );

    b.post("typing", json!({ "conversationId": conversation }))
        .await
        .unwrap();
    assert_eq!(text(&a.event_of("typing").await, "userId"), bob.user_id);

    b.send(&conversation, "k2", "hello yourself").await;
    let page = a
        .request("fetch", json!({ "conversationId": conversation, "afterSeq": "0" }))
        .await
        .unwrap();
    let texts: Vec<_> = page["page"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| text(m, "text"))
        .collect();
    assert_eq!(texts, ["hello", "hello yourself"]);
    let list = a.request("sync", json!({})).await.unwrap();
    assert_eq!(
        number(&list["conversations"]["conversations"][0], "unread"),
        1,
        "{list}"
    );
}

#[tokio::test]
async fn two_people_chat_over_rest() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    for seq in 1..=5 {
        let (status, sent) = server
            .send(&alice, &conversation, &format!("k{seq}"), &format!("text {seq}"))
            .await;
        assert_eq!((status / 100, number(&sent, "seq")), (2, seq));
    }
    let path = format!("/v1/conversations/{conversation}/messages");
    let (_, newest) = server.get(&format!("{path}?beforeSeq=5&limit=2"), Some(&bob)).await;
    let seqs: Vec<_> = newest["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| number(m, "seq"))
        .collect();
    assert_eq!(seqs, [3, 4]);
    let (_, list) = server.get("/v1/conversations", Some(&bob)).await;
    assert_eq!(
        (
            list["conversations"][0]["unread"].as_u64(),
            list["conversations"][0]["lastSeq"].as_u64()
        ),
        (Some(5), Some(5))
    );
    let read = json!({ "seq": 4 });
    let (status, _) = server
        .ask(
            reqwest::Method::PUT,
            &format!("/v1/conversations/{conversation}/read"),
            Some(&bob),
            Some(read),
        )
        .await;
    assert_eq!(status / 100, 2);
    let (_, list) = server.get("/v1/conversations", Some(&bob)).await;
    assert_eq!(list["conversations"][0]["unread"].as_u64(), Some(1));
}

#[tokio::test]
async fn binary_frames_say_the_same() {
    let server = Server::start().await;
    let (alice, _, conversation) = server.pair().await;
    let mut session = Session::connect(&server, "antiphon.v1").await.unwrap();
    let hello = Hello {
        access_token: alice.access_token.clone(),
        device_id: alice.device_id.clone(),
        cursors: vec![],
    };
    let send = Send {
        conversation_id: conversation,
        client_msg_id: "k".into(),
        text: "binary".into(),
    };
    for (id, body) in [
        ("1", client_frame::Body::Hello(hello)),
        ("2", client_frame::Body::Send(send)),
    ] {
        let frame = ClientFrame {
            id: id.into(),
            body: Some(body),
        };
        session
            .socket
            .send(Message::Binary(frame.encode_to_vec().into()))
            .await
            .unwrap();
        loop {
            let Message::Binary(bytes) = session.socket.next().await.unwrap().unwrap() else {
                continue;
            };
            let frame = ServerFrame::decode(bytes).unwrap();
            if frame.id == id {
                let fits = matches!(
                    (id, &frame.body),
                    ("1", Some(server_frame::Body::Welcome(_))) | ("2", Some(server_frame::Body::Sent(_)))
                );
                assert!(fits, "{frame:?}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_removed_member_receives_nothing_sent_after_the_removal() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let body = json!({ "kind": "group", "title": "tea", "memberIds": [bob.user_id] });
    let (_, created) = server.post("/v1/conversations", Some(&alice), body).await;
    let group = text(&created, "conversationId");
    let (mut b, _) = Session::open(&server, &bob, &[]).await;
    server.send(&alice, &group, "before", "before").await;
    assert_eq!(text(&b.event_of("message").await, "text"), "before");

    let path = format!("/v1/conversations/{group}/members/{}", bob.user_id);
    let (status, _) = server.ask(reqwest::Method::DELETE, &path, Some(&alice), None).await;
    assert_eq!(status / 100, 2);
    server.send(&alice, &group, "after", "after").await;
    assert_eq!(b.quiet("message", QUIET).await, Vec::<serde_json::Value>::new());
    let (status, refused) = server
        .get(&format!("/v1/conversations/{group}/messages"), Some(&bob))
        .await;
    assert_eq!((status, text(&refused, "code")), (404, "NOT_FOUND".to_owned()));
    let (status, _) = server.send(&bob, &group, "mine", "let me in").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn who_is_added_live_hears_of_it_and_of_what_follows() {
    let server = Server::start().await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let body = json!({ "kind": "group", "title": "tea", "memberIds": [bob.user_id] });
    let (_, created) = server.post("/v1/conversations", Some(&alice), body).await;
    let group = text(&created, "conversationId");
    let (mut c, _) = Session::open(&server, &carol, &[]).await;
    let path = format!("/v1/conversations/{group}/members");
    let (status, refused) = server.post(&path, Some(&bob), json!({ "userId": carol.user_id })).await;
    assert_eq!(
        (status, text(&refused, "code")),
        (403, "FORBIDDEN".to_owned()),
        "a plain member may not add"
    );
    let (status, answer) = server
        .post(&path, Some(&alice), json!({ "userId": carol.user_id }))
        .await;
    assert_eq!(status / 100, 2, "{answer}");
    assert_eq!(text(&c.event_of("conversation").await, "conversationId"), group);
    server.send(&alice, &group, "k", "welcome").await;
    assert_eq!(text(&c.event_of("message").await, "text"), "welcome");
}
