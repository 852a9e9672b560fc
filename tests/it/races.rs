//! Many at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Server, http::PASSWORD, number};

/// I8.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_open_the_same_direct_conversation_and_there_is_one() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let opened = join_all((0..50).map(|at| {
        let (from, to) = if at % 2 == 0 {
            (alice.clone(), bob.clone())
        } else {
            (bob.clone(), alice.clone())
        };
        tokio::spawn(async move { from.direct(&to).await })
    }));
    let ids: BTreeSet<String> = opened.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    for person in [&alice, &bob] {
        let list = person.get("/v1/conversations").await.expect(200);
        assert_eq!(list["conversations"].as_array().unwrap().len(), 1, "{list}");
    }
}

/// I5.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_msg_id_from_twenty_connections_is_one_message() {
    let server = Server::with(&[("edge.device_policy", "any"), ("edge.sessions_per_user_max", "32")]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let sessions = join_all((0..20).map(|_| server.session(&alice))).await;
    let sent = join_all(sessions.into_iter().map(|mut session| {
        let talk = talk.clone();
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for round in 0..10 {
                seqs.push(session.send(&talk, &format!("m{round}"), "the same").await);
            }
            seqs
        })
    }));
    let answers: BTreeSet<Vec<u64>> = sent.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let seqs: Vec<u64> = bob
        .page(&talk, "afterSeq=0")
        .await
        .iter()
        .map(|message| number(&message["seq"]))
        .collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_twenty_register_at_once_is_one_account() {
    let server = Server::start().await;
    let asked = join_all((0..20).map(|_| {
        let http = server.http();
        tokio::spawn(async move {
            http.post("/v1/accounts", &json!({"username": "alice", "password": PASSWORD}))
                .await
        })
    }));
    let mut statuses: Vec<u16> = asked.await.into_iter().map(|answer| answer.unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses.remove(0), 201);
    assert!(statuses.iter().all(|status| *status == 409), "{statuses:?}");
    server.http().log_in("alice", PASSWORD, "d").await.expect(200);
}

/// I2: whoever sends, seqs are 1..n.
#[tokio::test(flavor = "multi_thread")]
async fn seqs_have_no_gap_however_many_send_at_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let sent = join_all((0..40).map(|at| {
        let (sender, talk) = (if at % 2 == 0 { alice.clone() } else { bob.clone() }, talk.clone());
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for _ in 0..5 {
                seqs.push(sender.send(&talk, "text").await);
            }
            seqs
        })
    }));
    let mut seqs: Vec<u64> = sent.await.into_iter().flat_map(Result::unwrap).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}
