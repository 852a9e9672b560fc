//! The form of REST: what is served, and how it refuses.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::support::{Server, http::PASSWORD};

/// What clients are written against.
const PUBLIC: [(&str, &str); 15] = [
    ("post", "/v1/accounts"),
    ("post", "/v1/tokens"),
    ("post", "/v1/tokens/refresh"),
    ("delete", "/v1/tokens"),
    ("get", "/.well-known/jwks.json"),
    ("post", "/v1/conversations"),
    ("get", "/v1/conversations"),
    ("get", "/v1/conversations/{id}/members"),
    ("post", "/v1/conversations/{id}/members"),
    ("delete", "/v1/conversations/{id}/members/{userId}"),
    ("patch", "/v1/conversations/{id}/members/{userId}"),
    ("post", "/v1/conversations/{id}/messages"),
    ("get", "/v1/conversations/{id}/messages"),
    ("put", "/v1/conversations/{id}/read"),
    ("get", "/v1/connect"),
];

#[tokio::test]
async fn the_document_names_everything_that_clients_are_written_against() {
    let server = Server::start().await;
    let document = server.http().get("/v1/openapi.json").await.expect(200);
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .keys()
                .map(move |method| (method.as_str(), path.as_str()))
        })
        .collect();
    let missing: Vec<_> = PUBLIC.iter().filter(|entry| !described.contains(*entry)).collect();
    assert!(missing.is_empty(), "{missing:?} of {described:?}");
}

#[tokio::test]
async fn every_refusal_is_a_problem_document_with_a_code() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let http = server.http();
    http.get("/v1/nothing").await.expect_problem(404, "NOT_FOUND");
    http.get("/").await.expect_problem(404, "NOT_FOUND");
    http.ask(Method::PUT, "/v1/accounts", None, None)
        .await
        .expect_problem(405, "INVALID_ARGUMENT");
    http.get("/v1/connect").await.expect_problem(400, "INVALID_ARGUMENT");
    for body in [
        "",
        "{",
        "[]",
        "null",
        r#"{"username":"bob"}"#,
        r#"{"username":7,"password":"x"}"#,
        "\u{0}",
    ] {
        http.post_text("/v1/accounts", body.to_owned())
            .await
            .expect_problem(400, "INVALID_ARGUMENT");
    }
    for name in ["", "a", "1name", "has space", "é", &"x".repeat(33)] {
        let body = json!({"username": name, "password": PASSWORD});
        http.post("/v1/accounts", &body)
            .await
            .expect_problem(400, "INVALID_ARGUMENT");
    }
    let body = json!({"username": "bob", "password": ""});
    http.post("/v1/accounts", &body)
        .await
        .expect_problem(400, "INVALID_ARGUMENT");
    let large = format!(r#"{{"username":"bob","password":"{}"}}"#, "x".repeat(1 << 20));
    http.post_text("/v1/accounts", large)
        .await
        .expect_problem(413, "TOO_LARGE");

    alice
        .get("/v1/conversations/x/messages")
        .await
        .expect_problem(400, "INVALID_ARGUMENT");
    alice
        .get(&format!("/v1/conversations/{}/messages", alice.id))
        .await
        .expect_problem(400, "INVALID_ARGUMENT");
    alice
        .get("/v1/conversations?limit=many")
        .await
        .expect_problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn conversations_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let (alice, bob, carol) = (
        server.person("alice").await,
        server.person("bob").await,
        server.person("carol").await,
    );
    let unknown = {
        let (front, back) = bob.id.split_at(bob.id.len() - 4);
        format!("{front}{}", if back == "0000" { "0008" } else { "0000" })
    };
    for (body, status) in [
        (json!({"kind": "direct", "memberIds": []}), 400),
        (json!({"kind": "direct", "memberIds": [bob.id, carol.id]}), 400),
        (json!({"kind": "direct", "memberIds": [alice.id]}), 400),
        (json!({"kind": "direct", "memberIds": ["bob"]}), 400),
        (json!({"kind": "channel", "memberIds": [bob.id]}), 400),
        (
            json!({"kind": "group", "memberIds": [bob.id], "title": "x".repeat(10_000)}),
            400,
        ),
        (json!({"kind": "direct", "memberIds": [unknown]}), 404),
        (json!({"kind": "group", "memberIds": [unknown], "title": "crew"}), 404),
    ] {
        let answer = alice.ask(Method::POST, "/v1/conversations", Some(&body)).await;
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (status, "application/problem+json"),
            "{body}: {answer:?}"
        );
    }
    let list = alice.get("/v1/conversations").await.expect(200);
    assert_eq!(list["conversations"], json!([]));
}

#[tokio::test]
async fn a_rate_over_its_limit_says_when_to_come_back() {
    let limits = [
        ("edge.credential_rate_per_second", "1"),
        ("edge.credential_rate_burst", "4"),
    ];
    let server = Server::with(&limits).await;
    server.person("alice").await;
    let mut refused = None;
    for _ in 0..5 {
        let answer = server.http().log_in("alice", PASSWORD, "d").await;
        if answer.status == 429 {
            refused = Some(answer.expect_problem(429, "RATE_LIMITED"));
            break;
        }
        answer.expect(200);
    }
    let refused = refused.expect("more than the burst was taken");
    assert!(
        (1..=2_000).contains(&refused["retryAfterMs"].as_u64().unwrap()),
        "{refused}"
    );
}
