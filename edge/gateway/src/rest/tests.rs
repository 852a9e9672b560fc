//! The document against the routes, and refusals against RFC 9457.

use std::collections::BTreeSet;

use antiphon_directory::{Route, Table, TableWatch};
use antiphon_identity::TokenVerifier;
use antiphon_types::Clock;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
    response::Response,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{accounts, conversations, members, messages, presence, tokens, users};
use crate::{Gateway, GatewayOptions, Problem, Rate};

/// Everything that the issue's public face names, and what was added to it.
const SERVED: [(&str, &str); 20] = [
    ("post", "/v1/accounts"),
    ("post", "/v1/tokens"),
    ("delete", "/v1/tokens"),
    ("post", "/v1/tokens/refresh"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/v1/users/by-name/{username}"),
    ("get", "/v1/users/{userId}"),
    ("post", "/v1/conversations"),
    ("get", "/v1/conversations"),
    ("get", "/v1/conversations/{id}/members"),
    ("post", "/v1/conversations/{id}/members"),
    ("delete", "/v1/conversations/{id}/members/{userId}"),
    ("patch", "/v1/conversations/{id}/members/{userId}"),
    ("post", "/v1/conversations/{id}/messages"),
    ("get", "/v1/conversations/{id}/messages"),
    ("put", "/v1/conversations/{id}/read"),
    ("get", "/v1/presence"),
    ("get", "/v1/transports"),
    ("get", "/v1/connect"),
    ("get", "/v1/openapi.json"),
];

fn gateway(options: GatewayOptions) -> Gateway {
    let route = Route::new("r1", TableWatch::new(Table::single("r1")));
    let verifier = TokenVerifier::new("antiphon", r#"{"keys":[]}"#).unwrap();
    Gateway::new(route, verifier, Clock::manual(1_000), options)
}

async fn ask(router: &Router, request: Request<Body>) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    builder.body(body.into()).unwrap()
}

async fn problem(response: Response) -> Problem {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
    let problem: Problem = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((problem.status, problem.kind.as_str()), (status, "about:blank"));
    assert!(!problem.detail.is_empty() && !problem.code.is_empty(), "{problem:?}");
    problem
}

fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .keys()
            .map(move |method| (method.clone(), path.clone()))
    });
    operations.collect()
}

#[tokio::test]
async fn the_document_names_every_route_and_every_route_of_it_is_served() {
    let gateway = gateway(GatewayOptions::default());
    let router = gateway.router();
    let document: Value = serde_json::from_str(&gateway.openapi()).unwrap();
    let documented = documented(&document);
    let served: BTreeSet<_> = SERVED
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(documented, served);

    let paths: BTreeSet<&String> = documented.iter().map(|(_, path)| path).collect();
    for path in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            let status = ask(&router, request(method, path, "{}")).await.status();
            let is_served = documented.contains(&(method.to_owned(), path.clone()));
            assert_ne!(status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(
                status != StatusCode::METHOD_NOT_ALLOWED,
                is_served,
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_made() {
    let gateway = gateway(GatewayOptions::default());
    let response = ask(&gateway.router(), request("get", "/v1/openapi.json", "")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let bytes = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    assert_eq!(bytes, gateway.openapi());
}

#[tokio::test]
async fn a_page_of_another_origin_may_ask_with_a_token_of_its_own() {
    let gateway = gateway(GatewayOptions::default());
    let preflight = Request::builder()
        .method("OPTIONS")
        .uri("/v1/conversations")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let answer = ask(&gateway.router(), preflight.body("".into()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(
        answer.headers()["access-control-allow-headers"],
        "authorization,content-type"
    );
    assert!(!answer.headers().contains_key("access-control-allow-credentials"));
}

#[tokio::test]
async fn whatever_needs_a_token_says_so_and_refuses_without_one() {
    let gateway = gateway(GatewayOptions::default());
    let document: Value = serde_json::from_str(&gateway.openapi()).unwrap();
    for (method, path) in documented(&document) {
        let secured = document["paths"][&path][&method].get("security").is_some();
        let is_open = [
            "/v1/accounts",
            "/v1/tokens",
            "/v1/tokens/refresh",
            "/.well-known/jwks.json",
            "/v1/openapi.json",
            "/v1/connect",
            "/v1/transports",
        ];
        assert_eq!(secured, !is_open.contains(&path.as_str()), "{method} {path}");
        if secured {
            let response = ask(&gateway.router(), request(&method, &path, "{}")).await;
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(problem(response).await.code, "UNAUTHENTICATED", "{method} {path}");
        }
    }
}

/// Looks up a `$ref`.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => schema,
    }
}

/// A value of the form that a schema describes.
fn example(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(one_of) = schema.get("oneOf").and_then(Value::as_array) {
        let present = one_of.iter().find(|schema| schema["type"] != "null").unwrap();
        return example(document, present);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words[0].clone();
    }
    let kind = schema["type"]
        .as_str()
        .or_else(|| schema["type"][0].as_str())
        .unwrap_or_default();
    match kind {
        "object" => {
            let properties = schema["properties"].as_object().unwrap();
            properties
                .iter()
                .map(|(name, schema)| (name.clone(), example(document, schema)))
                .collect()
        }
        "array" => json!([example(document, &schema["items"])]),
        "integer" => json!(1),
        "boolean" => json!(true),
        "string" => json!("text"),
        other => panic!("a schema of type {other:?}: {schema}"),
    }
}

#[tokio::test]
async fn a_value_of_each_documented_form_is_read_and_written_back_the_same() {
    fn survives<T: serde::de::DeserializeOwned + serde::Serialize>(document: &Value, name: &str) {
        let value = example(document, &document["components"]["schemas"][name]);
        let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{name}: {error}: {value}"));
        assert_eq!(serde_json::to_value(&read).unwrap(), value, "{name}");
    }
    let document: Value = serde_json::from_str(&gateway(GatewayOptions::default()).openapi()).unwrap();
    survives::<accounts::Register>(&document, "Register");
    survives::<accounts::Registered>(&document, "Registered");
    survives::<tokens::LogIn>(&document, "LogIn");
    survives::<tokens::RefreshToken>(&document, "RefreshToken");
    survives::<tokens::Tokens>(&document, "Tokens");
    survives::<users::User>(&document, "User");
    survives::<conversations::Create>(&document, "Create");
    survives::<conversations::Created>(&document, "Created");
    survives::<conversations::Conversations>(&document, "Conversations");
    survives::<members::Members>(&document, "Members");
    survives::<members::Add>(&document, "Add");
    survives::<members::SetRole>(&document, "SetRole");
    survives::<messages::Send>(&document, "Send");
    survives::<messages::Sent>(&document, "Sent");
    survives::<messages::Page>(&document, "Page");
    survives::<messages::Read>(&document, "Read");
    survives::<messages::Inbox>(&document, "Inbox");
    survives::<presence::Presences>(&document, "Presences");
    survives::<Problem>(&document, "Problem");
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let router = gateway(GatewayOptions {
        body_bytes_max: 100,
        ..GatewayOptions::default()
    })
    .router();
    let long = format!(r#"{{"username":"{}","password":""}}"#, "x".repeat(200));
    for (method, path, body, status, code) in [
        ("get", "/nothing", "", 404, "NOT_FOUND"),
        ("put", "/v1/accounts", "", 405, "INVALID_ARGUMENT"),
        ("post", "/v1/accounts", "{", 400, "INVALID_ARGUMENT"),
        ("post", "/v1/accounts", "\u{0}", 400, "INVALID_ARGUMENT"),
        (
            "post",
            "/v1/accounts",
            r#"{"username":"alice"}"#,
            400,
            "INVALID_ARGUMENT",
        ),
        (
            "post",
            "/v1/accounts",
            r#"{"username":"a","password":"x"}"#,
            400,
            "INVALID_ARGUMENT",
        ),
        ("post", "/v1/accounts", &long, 413, "TOO_LARGE"),
        (
            "post",
            "/v1/tokens/refresh",
            r#"{"refreshToken":"x"}"#,
            401,
            "UNAUTHENTICATED",
        ),
        ("get", "/.well-known/jwks.json", "", 503, "UNAVAILABLE"),
        ("get", "/v1/connect", "", 400, "INVALID_ARGUMENT"),
    ] {
        let problem = problem(ask(&router, request(method, path, body.to_owned())).await).await;
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (status, code),
            "{method} {path} {body:?}: {problem:?}"
        );
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let router = gateway(GatewayOptions::default()).router();
    let request = Request::builder()
        .method("POST")
        .uri("/v1/accounts")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(problem(ask(&router, request).await).await.status, 415);
}

#[tokio::test]
async fn log_ins_of_one_address_have_a_bucket_of_their_own() {
    let options = GatewayOptions {
        credential_rate: Rate::new(1, 2),
        ..GatewayOptions::default()
    };
    let router = gateway(options).router();
    let attempt = || {
        request(
            "post",
            "/v1/tokens",
            r#"{"username":"alice","password":"x","deviceId":"d"}"#,
        )
    };
    for _ in 0..2 {
        assert_eq!(problem(ask(&router, attempt()).await).await.code, "UNAVAILABLE");
    }
    let refused = problem(ask(&router, attempt()).await).await;
    assert_eq!((refused.status, refused.code.as_str()), (429, "RATE_LIMITED"));
    assert!(refused.retry_after_ms.is_some());
    assert_eq!(
        ask(&router, request("get", "/v1/openapi.json", "")).await.status(),
        StatusCode::OK
    );
}
