//! What must hold when everybody does the same at once.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Server, Session, number};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_that_open_the_same_direct_conversation_get_one() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let opened = (0..50).map(|number| {
        if number % 2 == 0 {
            server.direct(&alice, &bob)
        } else {
            server.direct(&bob, &alice)
        }
    });
    let ids: BTreeSet<String> = join_all(opened).await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_msg_id_from_twenty_connections_is_one_message() {
    let server = Arc::new(Server::start().await);
    let (alice, bob, conversation) = server.pair().await;
    let mut sessions = Vec::new();
    for device in 0..10 {
        for (name, _) in [("alice", &alice), ("alice", &bob)] {
            let person = server
                .log_in(name, &format!("device-{device}-{}", sessions.len()))
                .await;
            sessions.push(person);
        }
    }
    // Sixteen sessions a user is the default bound; the rest sends over REST.
    let sends = sessions.iter().enumerate().map(|(at, person)| {
        let (server, conversation) = (server.clone(), conversation.clone());
        async move {
            if at < 12 {
                let (mut session, _) = Session::open(&server, person, &[]).await;
                number(&session.send(&conversation, "the-key", "once").await["sent"], "seq")
            } else {
                number(&server.send(person, &conversation, "the-key", "once").await.1, "seq")
            }
        }
    });
    let seqs: BTreeSet<u64> = join_all(sends).await.into_iter().collect();
    assert_eq!(seqs, BTreeSet::from([1]));
    assert_eq!(server.history(&bob, &conversation).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_registrations_of_one_name_make_one_account() {
    let server = Server::start().await;
    let register = |number: u32| {
        server.post(
            "/v1/accounts",
            None,
            json!({ "username": "dora", "password": format!("password {number}") }),
        )
    };
    let statuses: Vec<u16> = join_all((0..20).map(register))
        .await
        .into_iter()
        .map(|(status, _)| status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses.iter().all(|status| [201, 409, 429, 503].contains(status)),
        "{statuses:?}"
    );
}
