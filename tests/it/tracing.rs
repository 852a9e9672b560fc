//! One trace follows a message from the edge to the slot, its log, the delivery worker and the edge again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use parking_lot::Mutex;
use prost::Message;
use tokio::{net::TcpListener, time::timeout};

use crate::support::{PATIENCE, server::Server};

/// The part of OTLP's trace request that is looked at (opentelemetry-proto, `trace/v1/trace.proto`).
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
}

type Spans = Arc<Mutex<Vec<Span>>>;

#[tokio::test]
async fn one_trace_follows_a_message_from_edge_to_edge() {
    let spans = Spans::default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(spans.clone());
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let server = Server::with(&[("telemetry.otlp_endpoint", &endpoint)]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let conversation = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    a.send(&conversation, "k", "follow me").await;
    b.event("message").await;

    let wanted = ["message.send", "slot.write", "log.commit", "delivery.pass", "push"];
    let complete = async {
        while !traces(&spans.lock())
            .values()
            .any(|names| wanted.iter().all(|name| names.contains(*name)))
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = timeout(PATIENCE, complete).await;
    assert!(
        found.is_ok(),
        "no trace holds all of {wanted:?}: {:?}",
        traces(&spans.lock())
    );
}

async fn collect(State(spans): State<Spans>, body: Bytes) {
    let export = Export::decode(body).unwrap();
    let scopes = export.resources.into_iter().flat_map(|resource| resource.scopes);
    spans.lock().extend(scopes.flat_map(|scope| scope.spans));
}

/// The names of the spans of each trace.
fn traces(spans: &[Span]) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
    let mut traces: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for span in spans {
        traces
            .entry(span.trace_id.clone())
            .or_default()
            .insert(span.name.clone());
    }
    traces
}
