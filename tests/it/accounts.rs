//! Accounts and tokens.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Server, http::PASSWORD, number, text};

#[tokio::test]
async fn a_name_is_taken_once_whatever_its_case() {
    let server = Server::start().await;
    server.person("alice").await;
    for name in ["alice", "Alice", "ALICE"] {
        let body = json!({"username": name, "password": PASSWORD});
        server
            .http()
            .post("/v1/accounts", &body)
            .await
            .expect_problem(409, "ALREADY_EXISTS");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_are_refused_alike() {
    let server = Server::start().await;
    server.person("alice").await;
    let http = server.http();
    let wrong = http
        .log_in("alice", "not the password", "d")
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    let unknown = http
        .log_in("nobody", "not the password", "d")
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    let impossible = http
        .log_in("no body!", "not the password", "d")
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, impossible);
}

#[tokio::test]
async fn a_refresh_gives_the_next_tokens_of_the_same_user() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let next = server.http().refresh(&alice.refresh_token).await.expect(200);
    assert_eq!(next["userId"], alice.id.as_str());
    assert_ne!(text(&next["refreshToken"]), alice.refresh_token);
    assert!(number(&next["expiresInS"]) > 0, "{next}");
    server
        .http()
        .ask(Method::GET, "/v1/conversations", next["accessToken"].as_str(), None)
        .await
        .expect(200);
    let third = server.http().refresh(&text(&next["refreshToken"])).await.expect(200);
    assert_ne!(third["refreshToken"], next["refreshToken"]);
}

#[tokio::test]
async fn a_spent_refresh_token_revokes_its_family_and_ends_its_sessions() {
    let server = Server::with(&[("identity.refresh_reuse_grace_ms", "0")]).await;
    let alice = server.person("alice").await;
    let laptop = alice.on("alice-laptop").await;
    let mut session = server.session(&alice).await;
    let next = server.http().refresh(&alice.refresh_token).await.expect(200);
    server
        .http()
        .refresh(&alice.refresh_token)
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    server
        .http()
        .refresh(&text(&next["refreshToken"]))
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    assert_eq!(session.event("goaway").await["reason"], "revoked");
    session.closed().await;
    // The other device is another family.
    server.http().refresh(&laptop.refresh_token).await.expect(200);
}

#[tokio::test]
async fn logging_out_ends_the_device_and_may_be_said_twice() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut session = server.session(&alice).await;
    let body = json!({"refreshToken": alice.refresh_token});
    let http = server.http();
    http.ask(Method::DELETE, "/v1/tokens", None, Some(&body))
        .await
        .expect(204);
    http.ask(Method::DELETE, "/v1/tokens", None, Some(&body))
        .await
        .expect(204);
    http.refresh(&alice.refresh_token)
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    assert_eq!(session.event("goaway").await["reason"], "revoked");
    session.closed().await;
}

#[tokio::test]
async fn a_refresh_token_that_never_was_is_refused() {
    let server = Server::start().await;
    for token in ["", "x", "é", &"A".repeat(200)] {
        server
            .http()
            .refresh(token)
            .await
            .expect_problem(401, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn access_tokens_are_signed_by_a_published_key_that_outlives_a_restart() {
    let mut server = Server::start().await;
    let alice = server.person("alice").await;
    let header = BASE64URL_NOPAD
        .decode(alice.token.split('.').next().unwrap().as_bytes())
        .unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["alg"], "EdDSA");
    let published = server.http().get("/.well-known/jwks.json").await.expect(200);
    let key = published["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == header["kid"]);
    let key = key.unwrap_or_else(|| panic!("{} is not among {published}", header["kid"]));
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert_eq!(key.get("d"), None, "the private half is published");

    server.kill9().await;
    server.restart().await;
    alice.get("/v1/conversations").await.expect(200);
    let after = server.http().get("/.well-known/jwks.json").await.expect(200);
    assert!(
        after["keys"]
            .as_array()
            .unwrap()
            .iter()
            .any(|key| key["kid"] == header["kid"]),
        "{after}"
    );
}

#[tokio::test]
async fn a_live_session_outlives_its_token_by_reauth() {
    let server = Server::with(&[("identity.access_token_ttl_s", "3"), ("edge.token_grace_ms", "500")]).await;
    let alice = server.person("alice").await;
    let mut session = server.session(&alice).await;
    let left = tokio::spawn(server.session(&alice.on("alice-laptop").await).await.closed());
    let mut refresh_token = alice.refresh_token.clone();
    while !left.is_finished() {
        let tokens = server.http().refresh(&refresh_token).await.expect(200);
        refresh_token = text(&tokens["refreshToken"]);
        let answer = session
            .request("reauth", &json!({"accessToken": tokens["accessToken"]}))
            .await;
        assert!(answer["ok"].is_object(), "{answer}");
        sleep(Duration::from_millis(200)).await;
    }
    // The one that did not refresh was told, and ended after the grace.
    let events = left.await.unwrap();
    assert!(
        events.iter().any(|event| event["error"]["code"] == "TOKEN_EXPIRED"),
        "{events:?}"
    );
    assert!(session.request("ping", &json!({})).await["pong"].is_object());
}

#[tokio::test]
async fn a_token_of_somebody_else_does_not_reauth() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let mut session = server.session(&alice).await;
    let answer = session.request("reauth", &json!({"accessToken": bob.token})).await;
    assert_eq!(answer["error"]["code"], "FORBIDDEN", "{answer}");
}

#[tokio::test]
async fn logging_in_again_on_a_device_leaves_its_session_alone_and_logging_out_ends_it() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut session = server.session(&alice).await;
    let again = alice.on(&alice.device_id).await;
    for _ in 0..2 {
        let answer = session.request("reauth", &json!({"accessToken": again.token})).await;
        assert!(answer["ok"].is_object(), "{answer}");
    }
    server
        .http()
        .refresh(&alice.refresh_token)
        .await
        .expect_problem(401, "UNAUTHENTICATED");

    let body = json!({"refreshToken": again.refresh_token});
    let answer = server.http().ask(Method::DELETE, "/v1/tokens", None, Some(&body)).await;
    assert_eq!(answer.status, 204);
    let events = session.closed().await;
    assert!(
        events.iter().any(|event| event["goaway"]["reason"] == "revoked"),
        "{events:?}"
    );
}
