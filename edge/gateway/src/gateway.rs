use std::{
    io,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use antiphon_directory::Route;
use antiphon_identity::TokenVerifier;
use antiphon_types::Clock;
use axum::Router;
use rand::RngExt as _;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayOptions,
    acks::Acks,
    auth::Auth,
    calls::Calls,
    hub::Hub,
    limits::{Connections, Limits},
    presence::Presence,
    rest, serve,
    shared::{Https, Newcomers, Shared},
    transport::{Certificates, QuicSockets, ResetKey, Udp},
    turns::Turns,
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

impl Gateway {
    /// Starts an edge that reaches the services by `route`. The keys of `verifier` are read from the identity service from time to
    /// time, and at the first token of a key that is not known. Call it inside a tokio runtime.
    #[must_use]
    pub fn new(route: Route, verifier: TokenVerifier, clock: Clock, options: GatewayOptions) -> Self {
        let calls = Calls::new(route, options.call_timeout(), options.summary_timeout());
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
            acks: Acks::new(calls.clone(), tasks.clone()),
            auth: Auth::new(calls.clone(), clock.clone(), verifier),
            limits: Limits::new(&options),
            admitted: Connections::new(options.connections_max, options.connections_per_address_max),
            newcomers: Newcomers::default(),
            https: OnceLock::new(),
            udp: OnceLock::new(),
            hellos: Turns::new(options.hellos_max, Duration::from_millis(options.hello_wait_timeout_ms)),
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

    /// From now on HTTP and WebSocket are spoken over TLS alone, with this certificate. Call it before [`Gateway::serve`].
    ///
    /// # Errors
    /// When TLS cannot be spoken.
    pub fn speak_tls(&self, certificates: Certificates) -> io::Result<()> {
        let acceptor = certificates.acceptor()?;
        let _ = self.shared.https.set(Https { certificates, acceptor });
        Ok(())
    }

    /// Keeps a certificate up to date that devices are shown, until [`Gateway::drain`] is called. Once for each.
    pub fn look_after(&self, certificates: Certificates) {
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            stop.run_until_cancelled(certificates.look_after()).await;
        });
    }

    /// Takes connections until [`Gateway::drain`] is called or `shutdown` ends.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let stopped = self.shared.stop_accepting.clone();
        let tls = self.shared.https.get().map(|https| https.acceptor.clone());
        tokio::select! {
            () = serve::accept(&self.shared, listener, tls, self.router()) => {}
            () = stopped.cancelled() => {}
            () = shutdown => self.shared.stop_accepting.cancel(),
        }
    }

    /// Takes connections of devices over QUIC and WebTransport too, until [`Gateway::drain`] is called. A device that talked to an edge
    /// which was killed hears of it from the one in its place, if that has the same `reset_key`. Call it once.
    ///
    /// # Errors
    /// When the sockets cannot be used, or it was called before.
    pub fn listen_quic(
        &self,
        sockets: QuicSockets,
        certificates: Certificates,
        reset_key: &ResetKey,
    ) -> io::Result<()> {
        let shared = &self.shared;
        let udp = Udp::open(sockets, certificates, reset_key, &shared.options.session)?;
        if shared.udp.set(udp).is_err() {
            return Err(io::Error::other("this edge listens on UDP already"));
        }
        let accepting = shared.clone();
        shared.tasks.spawn(async move {
            if let Some(udp) = accepting.udp.get() {
                udp.accept(&accepting).await;
            }
        });
        Ok(())
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
        if let Some(udp) = shared.udp.get() {
            udp.close().await;
        }
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
