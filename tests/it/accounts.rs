//! Accounts and log-ins.

use serde_json::json;

use crate::support::{Person, Server, text};

fn code(answer: &(u16, serde_json::Value)) -> (u16, String) {
    (answer.0, text(&answer.1, "code"))
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let server = Server::start().await;
    server.person("alice").await;
    let again = server
        .post(
            "/v1/accounts",
            None,
            json!({ "username": "Alice", "password": "another one" }),
        )
        .await;
    assert_eq!(code(&again), (409, "ALREADY_EXISTS".to_owned()));
    let short = server
        .post("/v1/accounts", None, json!({ "username": "bob", "password": "short" }))
        .await;
    assert_eq!(code(&short), (400, "INVALID_ARGUMENT".to_owned()));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_the_same() {
    let server = Server::start().await;
    server.person("alice").await;
    let log_in = |name: &str| json!({ "username": name, "password": "guess number one", "deviceId": "d" });
    let wrong = server.post("/v1/tokens", None, log_in("alice")).await;
    let unknown = server.post("/v1/tokens", None, log_in("nobody")).await;
    assert_eq!(code(&wrong), (401, "UNAUTHENTICATED".to_owned()));
    assert_eq!(wrong, unknown);
}

#[tokio::test]
async fn a_reused_refresh_token_revokes_its_family() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let refresh = |token: String| server.post("/v1/tokens/refresh", None, json!({ "refreshToken": token }));
    let (status, second) = refresh(alice.refresh_token.clone()).await;
    assert_eq!(status, 200, "{second}");
    let second = text(&second, "refreshToken");
    assert_ne!(second, alice.refresh_token);

    assert_eq!(
        code(&refresh(alice.refresh_token).await),
        (401, "UNAUTHENTICATED".to_owned())
    );
    assert_eq!(
        code(&refresh(second).await),
        (401, "UNAUTHENTICATED".to_owned()),
        "the family lives on"
    );
}

#[tokio::test]
async fn a_log_out_ends_the_log_in() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let body = || json!({ "refreshToken": alice.refresh_token });
    let (status, _) = server
        .ask(reqwest::Method::DELETE, "/v1/tokens", None, Some(body()))
        .await;
    assert_eq!(status / 100, 2);
    assert_eq!(code(&server.post("/v1/tokens/refresh", None, body()).await).0, 401);
}

#[tokio::test]
async fn tokens_are_signed_with_a_published_key() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let (status, keys) = server.get("/.well-known/jwks.json", None).await;
    assert_eq!(status, 200);
    let kid = header(&alice)["kid"].clone();
    let keys = keys["keys"].as_array().unwrap();
    assert!(
        keys.iter().any(|key| key["kid"] == kid && key["crv"] == "Ed25519"),
        "{keys:?}"
    );
    assert!(keys.iter().all(|key| key["d"].is_null()), "a private key is published");
}

fn header(who: &Person) -> serde_json::Value {
    let header = who.access_token.split('.').next().unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).unwrap()).unwrap()
}
