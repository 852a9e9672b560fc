//! Tokens that are none.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::support::{Person, RawSession, Server, until};

fn encoded(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

/// What a forger would try with a token of their own.
fn forged(alice: &Person, bob: &Person) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = alice.token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("{} is no JWT", alice.token)
    };
    let (named, said) = (decoded(header), decoded(claims));
    let mut of_bob = said.clone();
    of_bob["sub"] = json!(bob.id);
    let mut longer = said.clone();
    longer["exp"] = json!(said["exp"].as_u64().unwrap() + 1_000_000);
    let with = |algorithm: &str| {
        let mut header = named.clone();
        header["alg"] = json!(algorithm);
        encoded(&header)
    };
    // A signature that is right under a key which the deployment does not know.
    let own_key = SigningKey::from_bytes(&[7; 32]);
    let signed = |header: &Value| {
        let text = format!("{}.{}", encoded(header), encoded(&of_bob));
        let signature = own_key.sign(text.as_bytes()).to_bytes();
        format!("{text}.{}", BASE64URL_NOPAD.encode(&signature))
    };
    let mut key_inside = named.clone();
    key_inside["jwk"] =
        json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(own_key.verifying_key().as_bytes())});
    let mut unknown_key = named.clone();
    unknown_key["kid"] = json!("nobody");
    let mut bent = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    bent[10] ^= 1;
    vec![
        ("nothing", String::new()),
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("not ASCII", "é.é.é".to_owned()),
        ("a very long one", "x".repeat(10_000)),
        (
            "another signature",
            format!("{header}.{claims}.{}", BASE64URL_NOPAD.encode(&bent)),
        ),
        ("no signature", format!("{header}.{claims}.")),
        (
            "a signature of zeros",
            format!("{header}.{claims}.{}", BASE64URL_NOPAD.encode(&[0; 64])),
        ),
        ("another user", format!("{header}.{}.{signature}", encoded(&of_bob))),
        ("a longer life", format!("{header}.{}.{signature}", encoded(&longer))),
        ("alg none", format!("{}.{claims}.", with("none"))),
        ("alg None", format!("{}.{}.", with("None"), encoded(&of_bob))),
        ("alg none, signed", format!("{}.{claims}.{signature}", with("none"))),
        ("alg HS256", format!("{}.{claims}.{signature}", with("HS256"))),
        (
            "an unknown key",
            format!("{}.{claims}.{signature}", encoded(&unknown_key)),
        ),
        ("a key of its own", signed(&named)),
        ("a key of its own, inside", signed(&key_inside)),
        ("a key of its own, named so", signed(&unknown_key)),
        ("the refresh token", alice.refresh_token.clone()),
    ]
}

#[tokio::test]
async fn a_forged_token_opens_no_session() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    for (what, token) in forged(&alice, &bob) {
        let mut session = RawSession::connect(server.port()).await;
        let answer = session.hello(&token, &alice.device_id, &[]).await;
        assert_eq!(answer["error"]["code"], "UNAUTHENTICATED", "{what}: {answer}");
        session.closed().await;
    }
    server.session(&alice).await;
}

#[tokio::test]
async fn a_forged_token_is_refused_by_rest() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    for (what, token) in forged(&alice, &bob).into_iter().filter(|(_, token)| token.is_ascii()) {
        let answer = Person { token, ..alice.clone() }.get("/v1/conversations").await;
        assert_eq!(answer.body["code"], "UNAUTHENTICATED", "{what}: {answer:?}");
        answer.expect_problem(401, "UNAUTHENTICATED");
    }
    server
        .http()
        .get("/v1/conversations")
        .await
        .expect_problem(401, "UNAUTHENTICATED");
    alice.get("/v1/conversations").await.expect(200);
}

#[tokio::test]
async fn a_token_of_another_device_opens_no_session() {
    let server = Server::start().await;
    let alice = server.person("alice").await;
    let mut session = RawSession::connect(server.port()).await;
    let answer = session.hello(&alice.token, "another-device", &[]).await;
    assert_eq!(answer["error"]["code"], "UNAUTHENTICATED", "{answer}");
}

#[tokio::test]
async fn an_expired_token_is_refused_and_says_that_it_has_expired() {
    let server = Server::with(&[("identity.access_token_ttl_s", "1")]).await;
    let alice = server.person("alice").await;
    let refused = until("the end of the token", || async {
        Some(alice.get("/v1/conversations").await).filter(|answer| answer.status != 200)
    });
    refused.await.expect_problem(401, "TOKEN_EXPIRED");
    let mut session = RawSession::connect(server.port()).await;
    let answer = session.hello(&alice.token, &alice.device_id, &[]).await;
    assert_eq!(answer["error"]["code"], "TOKEN_EXPIRED", "{answer}");
    // The refresh token lives on.
    server.http().refresh(&alice.refresh_token).await.expect(200);
}
