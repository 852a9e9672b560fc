use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ahash::AHashMap;
use antiphon_directory::Route;
use antiphon_identity::TokenVerifier;
use antiphon_session::{CloseReason, SessionOptions};
use antiphon_types::Clock;
use axum::Router;
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayOptions,
    auth::Auth,
    calls::Calls,
    hub::{Hub, SessionHandle},
    limits::{Connections, Limits},
    presence::Presence,
    rest, serve,
};

/// Pages of history that are read at once to bring sessions up.
const CATCH_UPS_AT_ONCE: usize = 256;
/// How often buckets that are full again are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);
/// How soon keys that could not be read are asked for again.
const KEYS_RETRY_MS: u64 = 1_000;

/// An edge. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What every part of an edge has at hand.
pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) session_options: Arc<SessionOptions>,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) hub: Arc<Hub>,
    pub(crate) presence: Presence,
    pub(crate) admitted: Connections,
    pub(crate) newcomers: Newcomers,
    pub(crate) catch_ups: Semaphore,
    /// Every connection, HTTP or WebSocket; each ends by itself or by the drain.
    pub(crate) connections: TaskTracker,
    pub(crate) stop_accepting: CancellationToken,
    /// Tasks that live as long as the edge.
    tasks: TaskTracker,
    stop: CancellationToken,
    next_key: AtomicU64,
    /// Makes session ids of this run differ from those of the last.
    run_id: u64,
}

impl Gateway {
    /// Starts an edge that reaches the services by `route`. The keys of `verifier` are read from the identity service from time to
    /// time, and at the first token of a key that is not known. Call it inside a tokio runtime.
    #[must_use]
    pub fn new(route: Route, verifier: TokenVerifier, clock: Clock, options: GatewayOptions) -> Self {
        let calls = Calls::new(route, options.call_timeout());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = Hub::start(calls.clone(), clock.clone(), options.resume_push_max, &tasks, &stop);
        let interval = Duration::from_millis(options.presence_interval_ms.max(1));
        let presence = Presence::start(
            calls.clone(),
            hub.clone(),
            options.edge_id.clone(),
            interval,
            &tasks,
            &stop,
        );
        let shared = Arc::new(Shared {
            session_options: Arc::new(options.session.clone()),
            auth: Auth::new(calls.clone(), clock.clone(), verifier),
            limits: Limits::new(&options),
            admitted: Connections::new(options.connections_max, options.connections_per_address_max),
            newcomers: Newcomers::default(),
            catch_ups: Semaphore::new(CATCH_UPS_AT_ONCE),
            connections: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
            tasks,
            stop,
            next_key: AtomicU64::new(1),
            run_id: rand::rng().random(),
            hub,
            presence,
            calls,
            clock,
            options,
        });
        shared.tasks.spawn(look_after(shared.clone()));
        Self { shared }
    }

    /// The routes, for whoever serves them. [`Gateway::serve`] adds what belongs to connections: their count, their time limits.
    pub fn router(&self) -> Router {
        rest::router(&self.shared).0
    }

    /// The OpenAPI document of the routes, as JSON.
    #[must_use]
    pub fn openapi(&self) -> String {
        rest::router(&self.shared).1
    }

    /// Takes connections until [`Gateway::drain`] is called or `shutdown` ends.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let stopped = self.shared.stop_accepting.clone();
        tokio::select! {
            () = serve::accept(&self.shared, listener, self.router()) => {}
            () = stopped.cancelled() => {}
            () = shutdown => self.shared.stop_accepting.cancel(),
        }
    }

    /// Takes no more connections, tells each session when to come back, lets requests in flight finish, closes every
    /// connection and ends the edge's tasks; all of it within `deadline`. True when every connection ended by itself.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let shared = &self.shared;
        shared.stop_accepting.cancel();
        shared.connections.close();
        let until = tokio::time::Instant::now() + deadline;
        let ended = tokio::time::timeout_at(until, async {
            loop {
                shared.send_all_away();
                // A session whose Hello was answered meanwhile is told in the next round.
                tokio::select! {
                    () = shared.connections.wait() => return,
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                }
            }
        })
        .await;
        shared.stop.cancel();
        shared.tasks.close();
        let _ = tokio::time::timeout_at(
            until.max(tokio::time::Instant::now() + Duration::from_millis(100)),
            shared.tasks.wait(),
        )
        .await;
        ended.is_ok()
    }
}

impl Shared {
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn session_id(&self, key: u64) -> String {
        format!("{:016x}-{key:x}", self.run_id)
    }

    /// Spreads the return of all sessions evenly over the window; dice would leave heaps.
    fn send_all_away(&self) {
        let sessions = self.hub.people().all();
        let (now_ms, count) = (self.clock.now_ms(), sessions.len().max(1) as u64);
        for (number, handle) in (0_u64..).zip(sessions) {
            let spread_ms = u64::from(self.options.reconnect_window_ms) * number / count;
            let reconnect_after_ms = u32::try_from(spread_ms).unwrap_or(u32::MAX);
            handle.go_away(CloseReason::Draining, reconnect_after_ms, now_ms);
        }
        self.newcomers
            .all()
            .iter()
            .for_each(|handle| handle.go_away(CloseReason::Draining, 0, now_ms));
    }
}

/// Connections that have not said Hello yet.
#[derive(Default)]
pub(crate) struct Newcomers {
    handles: Mutex<AHashMap<u64, Arc<SessionHandle>>>,
}

impl Newcomers {
    pub(crate) fn insert(&self, handle: &Arc<SessionHandle>) {
        self.handles.lock().insert(handle.key, handle.clone());
    }

    pub(crate) fn remove(&self, handle: &SessionHandle) {
        self.handles.lock().remove(&handle.key);
    }

    fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.handles.lock().values().cloned().collect()
    }
}

/// Reads the keys of tokens again and forgets full buckets, from time to time.
async fn look_after(shared: Arc<Shared>) {
    let forgetting = async {
        let mut interval = tokio::time::interval(FORGET_INTERVAL);
        loop {
            interval.tick().await;
            shared.limits.forget_full();
        }
    };
    let reading_keys = async {
        loop {
            let wait_ms = match shared.auth.reread().await {
                Ok(()) => shared.options.jwks_interval_ms,
                Err(refusal) => {
                    tracing::debug!(code = %refusal.code, "the keys of tokens could not be read");
                    shared.options.jwks_interval_ms.min(KEYS_RETRY_MS)
                }
            };
            tokio::time::sleep(Duration::from_millis(wait_ms.max(1))).await;
        }
    };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = forgetting => {}
        () = reading_keys => {}
    }
}
