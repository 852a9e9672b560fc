//! The admin port: metrics, health and readiness.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_directory::Directory;
use antiphon_kv::{Kv, KvError};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use crate::{
    ctl::{
        api::{self, DirectoryCell},
        store::{self, StoreCell},
    },
    metrics::{observe_directory, observe_process},
};

/// A store that has not answered a read of one key by then is not healthy.
const STORE_ANSWER: Duration = Duration::from_secs(1);
/// How often it is looked whether the disk has failed.
const LOOK_FOR_FAILURE: Duration = Duration::from_millis(200);
/// How often histograms are folded, so that they do not grow between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What has to be true before this node takes traffic. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Readiness {
    state: Arc<ReadinessState>,
}

#[derive(Default)]
struct ReadinessState {
    directory: DirectoryCell,
    store: StoreCell,
    slots_granted: AtomicBool,
    gateway_listens: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// The store is open.
    pub(crate) fn store_opened(&self, kv: Kv) {
        let _ = self.state.store.set(kv);
    }

    /// This node is part of several regions.
    pub(crate) fn directory_opened(&self, directory: Directory) {
        let _ = self.state.directory.set(directory);
    }

    /// This node serves its slots.
    pub(crate) fn slots_granted(&self) {
        self.state.slots_granted.store(true, Ordering::Release);
    }

    /// The gateway takes connections.
    pub(crate) fn gateway_listens(&self) {
        self.state.gateway_listens.store(true, Ordering::Release);
    }

    /// This node sends its sessions away; it never becomes ready again.
    pub(crate) fn drains(&self) {
        self.state.draining.store(true, Ordering::Release);
    }

    /// Waits until what this node stores cannot be trusted to be stored; why. Only another process on the same folder ends that: what a
    /// failed write has left of the store in memory is not what is on the disk.
    pub(crate) async fn failed(&self) -> String {
        loop {
            if let Some(kv) = self.state.store.get()
                && let Err(KvError::Io(error)) = kv.health().await
            {
                return format!("the store failed: {error}");
            }
            let directory = self.state.directory.get();
            if let Some(error) = directory.and_then(|directory| directory.status().failure) {
                return format!("the directory's node has stopped: {error}");
            }
            time::sleep(LOOK_FOR_FAILURE).await;
        }
    }

    /// Why this node takes no traffic; empty when it does.
    pub(crate) async fn reasons(&self) -> Vec<String> {
        let state = &self.state;
        let mut reasons = Vec::new();
        if state.draining.load(Ordering::Acquire) {
            reasons.push("the node is draining".to_owned());
        }
        match state.store.get() {
            None => reasons.push("the store is not open yet".to_owned()),
            Some(kv) => reasons.extend(store_fault(kv).await),
        }
        let failure = state.directory.get().and_then(|directory| directory.status().failure);
        reasons.extend(failure.map(|failure| format!("the directory has stopped here: {failure}")));
        if !state.slots_granted.load(Ordering::Acquire) {
            reasons.push("no slots are granted yet".to_owned());
        }
        if !state.gateway_listens.load(Ordering::Acquire) {
            reasons.push("the gateway does not listen yet".to_owned());
        }
        reasons
    }
}

async fn store_fault(kv: &Kv) -> Option<String> {
    // A store that cannot write may well be read.
    if let Err(error) = kv.health().await {
        return Some(error.to_string());
    }
    let read = kv.transact(|txn| async move { txn.snapshot_get(&[0]).await });
    let answer: Result<_, KvError> = match time::timeout(STORE_ANSWER, read).await {
        Ok(answer) => answer,
        Err(_) => {
            return Some(format!(
                "the store has not answered within {} ms",
                STORE_ANSWER.as_millis()
            ));
        }
    };
    answer.err().map(|error| error.to_string())
}

/// The running admin port.
pub(crate) struct Admin {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: PrometheusHandle,
    started: Instant,
}

impl Admin {
    /// Serves `/metrics`, `/healthz` and `/readyz` on `listener`.
    pub(crate) fn start(listener: TcpListener, readiness: Readiness, metrics: PrometheusHandle) -> Self {
        let stop = CancellationToken::new();
        let (directory, store) = (readiness.state.directory.clone(), readiness.state.store.clone());
        let shared = Shared {
            readiness,
            metrics: metrics.clone(),
            started: Instant::now(),
        };
        let router = Router::new()
            .route("/metrics", get(render_metrics))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .with_state(shared)
            .merge(api::routes(directory))
            .merge(store::routes(store));
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(token.clone().cancelled_owned());
            let upkeep = fold(metrics, token);
            let (served, ()) = tokio::join!(server, upkeep);
            if let Err(error) = served {
                tracing::error!(%error, "the admin port failed");
            }
        });
        Self { stop, task }
    }

    /// Stops; the last step of a shutdown, so that its progress can be watched. A connection that stays is cut.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if time::timeout(Duration::from_secs(1), self.task).await.is_err() {
            abort.abort();
        }
    }
}

async fn fold(metrics: PrometheusHandle, stop: CancellationToken) {
    while stop.run_until_cancelled(time::sleep(UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
}

async fn render_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    observe_process(shared.started);
    if let Some(directory) = shared.readiness.state.directory.get() {
        observe_directory(&directory.status(), &directory.state());
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        shared.metrics.render(),
    )
}

async fn health(State(shared): State<Shared>) -> impl IntoResponse {
    Json(json!({
        "status": "alive",
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeS": shared.started.elapsed().as_secs(),
    }))
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.readiness.reasons().await;
    if reasons.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(json!({ "status": "notReady", "reasons": reasons })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use antiphon_kv::EmbeddedOptions;

    use super::*;
    use crate::metrics;

    async fn start(readiness: Readiness) -> (Admin, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        (
            Admin::start(listener, readiness, metrics::recorder().unwrap().handle()),
            base,
        )
    }

    async fn get(url: String) -> (u16, String) {
        let answer = antiphon_client::http_client(None).get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_is_alive_and_says_why() {
        let (admin, base) = start(Readiness::default()).await;
        assert_eq!(get(format!("{base}/healthz")).await.0, 200);
        let (status, body) = get(format!("{base}/readyz")).await;
        assert_eq!(status, 503);
        for reason in [
            "the store is not open yet",
            "no slots are granted yet",
            "the gateway does not listen yet",
        ] {
            assert!(body.contains(reason), "{body}");
        }
        admin.stop().await;
    }
    #[tokio::test]
    async fn a_node_is_ready_until_it_drains_or_its_store_fails() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().join("store"),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        let readiness = Readiness::default();
        readiness.store_opened(kv.clone());
        readiness.slots_granted();
        readiness.gateway_listens();
        let (admin, base) = start(readiness.clone()).await;
        assert_eq!(
            get(format!("{base}/readyz")).await,
            (200, r#"{"status":"ready"}"#.to_owned())
        );

        kv.close().await.unwrap();
        let (status, body) = get(format!("{base}/readyz")).await;
        assert!(status == 503 && body.contains("closed"), "{body}");
        readiness.drains();
        assert!(get(format!("{base}/readyz")).await.1.contains("the node is draining"));
        admin.stop().await;
    }
}
