//! What an operator sees and does.

use crate::support::{Server, Session, number, text};

#[tokio::test]
async fn metrics_and_health_tell_what_happens() {
    let server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (mut b, _) = Session::open(&server, &bob, &[]).await;
    server.send(&alice, &conversation, "k", "text").await;
    b.event_of("message").await;
    let metrics = server.metrics().await;
    for name in [
        "antiphon_messages_total 1",
        "antiphon_write_seconds",
        "antiphon_commit_batch_messages",
        "antiphon_fsync_seconds",
        "antiphon_delivery_lag_seconds",
        "antiphon_push_total",
        "antiphon_sessions 1",
    ] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    server.send(&bob, "c_00000000000000000000000000", "k", "text").await;
    assert!(server.metrics().await.contains("antiphon_rejections_total"));
    let health = reqwest::get(format!("{}/healthz", server.admin_url())).await.unwrap();
    assert_eq!(health.status(), 200);
}

#[tokio::test]
async fn sigterm_sends_sessions_away_and_ends_in_order() {
    let mut server = Server::start().await;
    let (alice, bob, conversation) = server.pair().await;
    let (mut b, _) = Session::open(&server, &bob, &[]).await;
    server.send(&alice, &conversation, "k", "text").await;
    server.terminate();
    let goaway = b.event_of("goaway").await;
    assert_eq!(text(&goaway, "reason"), "draining");
    assert_eq!(server.ended().await, Some(0));
    server.launch().await;
    let seqs: Vec<u64> = server
        .history(&alice, &conversation)
        .await
        .iter()
        .map(|m| number(m, "seq"))
        .collect();
    assert_eq!(seqs, [1]);
}

#[tokio::test]
async fn the_openapi_document_names_every_path_of_the_public_face() {
    let server = Server::start().await;
    let (status, document) = server.get("/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    for (path, method) in [
        ("/v1/accounts", "post"),
        ("/v1/tokens", "post"),
        ("/v1/tokens", "delete"),
        ("/v1/tokens/refresh", "post"),
        ("/.well-known/jwks.json", "get"),
        ("/v1/conversations", "post"),
        ("/v1/conversations", "get"),
        ("/v1/conversations/{id}/members", "post"),
        ("/v1/conversations/{id}/members/{userId}", "delete"),
        ("/v1/conversations/{id}/messages", "post"),
        ("/v1/conversations/{id}/messages", "get"),
        ("/v1/conversations/{id}/read", "put"),
    ] {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path} is not described"
        );
    }
}

#[tokio::test]
async fn more_than_a_bucket_holds_is_refused_with_a_time() {
    let server = Server::start_with(&[("edge.user_rate_per_second", "1"), ("edge.user_rate_burst", "3")]).await;
    let alice = server.person("alice").await;
    let mut refused = None;
    for _ in 0..20 {
        let (status, answer) = server.get("/v1/conversations", Some(&alice)).await;
        if status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("no limit");
    assert_eq!(text(&refused, "code"), "RATE_LIMITED");
    assert!(refused["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
}
