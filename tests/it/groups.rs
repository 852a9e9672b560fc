//! Groups: who may do what, and who receives what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Person, SILENCE, Server, number};

async fn add(who: &Person, group: &str, whom: &Person) -> u16 {
    let path = format!("/v1/conversations/{group}/members");
    who.ask(Method::POST, &path, Some(&json!({"userId": whom.id})))
        .await
        .status
}

async fn remove(who: &Person, group: &str, whom: &Person) -> u16 {
    who.ask(
        Method::DELETE,
        &format!("/v1/conversations/{group}/members/{}", whom.id),
        None,
    )
    .await
    .status
}

async fn set_role(who: &Person, group: &str, whom: &Person, role: &str) -> u16 {
    let path = format!("/v1/conversations/{group}/members/{}", whom.id);
    who.ask(Method::PATCH, &path, Some(&json!({"role": role}))).await.status
}

#[tokio::test]
async fn roles_say_who_may_add_and_remove() {
    let server = Server::start().await;
    let [owner, admin, member, other] = ["owner", "admin", "member", "other"].map(|name| server.person(name));
    let (owner, admin, member, other) = (owner.await, admin.await, member.await, other.await);
    let group = owner.group("crew", &[&admin, &member]).await;
    assert_eq!(owner.listed(&group).await.unwrap()["role"], "owner");

    assert_eq!(add(&member, &group, &other).await, 403);
    assert_eq!(remove(&member, &group, &admin).await, 403);
    assert_eq!(set_role(&member, &group, &member, "admin").await, 403);
    assert_eq!(set_role(&owner, &group, &admin, "admin").await, 204);
    assert_eq!(add(&admin, &group, &other).await, 204);
    assert_eq!(remove(&admin, &group, &owner).await, 403);
    assert_eq!(remove(&admin, &group, &other).await, 204);
    // Leaving needs no role.
    assert_eq!(remove(&member, &group, &member).await, 204);

    let path = format!("/v1/conversations/{group}/members");
    let members = owner.get(&path).await.expect(200);
    let roles = members["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["userId"].clone(), entry["role"].clone()));
    let mut roles: Vec<(String, String)> = roles
        .map(|(id, role)| (id.as_str().unwrap().to_owned(), role.as_str().unwrap().to_owned()))
        .collect();
    roles.sort();
    let mut expected = vec![
        (owner.id.clone(), "owner".to_owned()),
        (admin.id.clone(), "admin".to_owned()),
    ];
    expected.sort();
    assert_eq!(roles, expected);
    // Who is no member is not told that the group is there.
    member.get(&path).await.expect_problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_group_reaches_all_of_its_members() {
    let server = Server::start().await;
    let [a, b, c] = ["anna", "ben", "cleo"].map(|name| server.person(name));
    let (anna, ben, cleo) = (a.await, b.await, c.await);
    let group = anna.group("crew", &[&ben, &cleo]).await;
    let (mut b, mut c) = (server.session(&ben).await, server.session(&cleo).await);
    anna.send(&group, "one").await;
    ben.send(&group, "two").await;
    assert_eq!(b.messages(&group, 2).await, [1, 2]);
    assert_eq!(c.messages(&group, 2).await, [1, 2]);
    let entry = cleo.listed(&group).await.unwrap();
    assert_eq!((&entry["kind"], &entry["title"]), (&json!("group"), &json!("crew")));
}

/// I7.
#[tokio::test]
async fn a_removed_member_receives_nothing_sent_after() {
    let server = Server::start().await;
    let [a, b, c] = ["anna", "ben", "cleo"].map(|name| server.person(name));
    let (anna, ben, cleo) = (a.await, b.await, c.await);
    let group = anna.group("crew", &[&ben, &cleo]).await;
    let (mut b, mut c) = (server.session(&ben).await, server.session(&cleo).await);
    anna.send(&group, "before").await;
    assert_eq!(
        (b.messages(&group, 1).await, c.messages(&group, 1).await),
        (vec![1], vec![1])
    );

    assert_eq!(remove(&anna, &group, &ben).await, 204);
    for at in 2..=5 {
        assert_eq!(anna.send(&group, "after").await, at);
    }
    assert_eq!(c.messages(&group, 4).await, [2, 3, 4, 5]);
    let event = b
        .event_where("conversation", |event| event["userId"] == ben.id.as_str())
        .await;
    assert_eq!(event["change"], "removed");
    assert_eq!(b.event_within("message", SILENCE).await, None);
    let refused =
        |answer: &Value| ["NOT_FOUND", "FORBIDDEN"].contains(&answer["error"]["code"].as_str().unwrap_or_default());
    let send = json!({"conversationId": group, "clientMsgId": "m", "text": "let me in"});
    let answer = b.request("send", &send).await;
    assert!(refused(&answer), "{answer}");
    let answer = b.request("fetch", &json!({"conversationId": group})).await;
    assert!(refused(&answer), "{answer}");
    // Nor does coming back with a cursor help.
    let mut again = crate::support::RawSession::open(server.port(), &ben, &[(&group, 1)]).await;
    assert_eq!(again.welcome.get("resumed"), None, "{}", again.welcome);
    anna.send(&group, "still after").await;
    assert_eq!(c.messages(&group, 1).await, [6]);
    assert_eq!(again.event_within("message", SILENCE).await, None);
    assert!(ben.listed(&group).await.is_none());
}

#[tokio::test]
async fn in_a_large_group_only_a_members_own_devices_hear_what_it_has_read() {
    let server = Server::with(&[("message.receipts_members_max", "2")]).await;
    let [a, b, c] = ["anna", "ben", "cleo"].map(|name| server.person(name));
    let (anna, ben, cleo) = (a.await, b.await, c.await);
    let group = anna.group("crew", &[&ben]).await;
    let bens_tablet = ben.on("tablet").await;
    let (mut a, mut b) = (server.session(&anna).await, server.session(&ben).await);
    let mut tablet = server.session(&bens_tablet).await;
    let read = |seq: u64| {
        let of = ben.id.as_str();
        move |receipt: &Value| receipt["userId"] == of && number(&receipt["readSeq"]) == seq
    };
    anna.send(&group, "to two").await;
    b.request("read", &json!({"conversationId": group, "seq": "1"})).await;
    a.event_where("receipt", read(1)).await;

    assert_eq!(add(&anna, &group, &cleo).await, 204);
    anna.send(&group, "to three").await;
    let ack = json!({"conversationId": group, "deliveredSeq": "2"});
    assert!(b.request("ack", &ack).await.get("ok").is_some());
    b.request("read", &json!({"conversationId": group, "seq": "2"})).await;
    tablet.event_where("receipt", read(2)).await;
    // What the group is told afterwards has reached anna, and no receipt before it.
    anna.send(&group, "the last").await;
    a.event_where("message", |message| number(&message["seq"]) == 3).await;
    while let Some(receipt) = a.event_within("receipt", SILENCE).await {
        assert!(
            number(&receipt["deliveredSeq"]) < 2 || receipt["userId"] != ben.id.as_str(),
            "{receipt}"
        );
    }
}

#[tokio::test]
async fn who_was_added_is_told_and_receives_what_follows() {
    let server = Server::start().await;
    let [a, b] = ["anna", "ben"].map(|name| server.person(name));
    let (anna, ben) = (a.await, b.await);
    let group = anna.group("crew", &[]).await;
    anna.send(&group, "before").await;
    let mut b = server.session(&ben).await;
    assert_eq!(add(&anna, &group, &ben).await, 204);
    let event = b
        .event_where("conversation", |event| event["userId"] == ben.id.as_str())
        .await;
    assert_eq!(
        (&event["conversationId"], &event["change"]),
        (&json!(group), &json!("added"))
    );
    let seq = anna.send(&group, "after").await;
    let message = b.event_where("message", |message| message["text"] == "after").await;
    assert_eq!(number(&message["seq"]), seq);
}
