//! Takes connections: counts them, bounds the time that the head of a request may take, hands them to the router.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use antiphon_session::Refusal;
use antiphon_types::ErrorCode;
use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{limits::ConnectionGuard, problem::Problem, shared::Shared};

/// How long to wait after the system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When a connection that was refused may be tried again.
const REFUSED_RETRY_MS: u64 = 5_000;
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Who is at the other end. A clone is kept as long as the connection counts.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    _guard: Option<Arc<ConnectionGuard>>,
}

impl Peer {
    /// A caller of a router that is not served here.
    pub(crate) const fn unknown() -> Self {
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            _guard: None,
        }
    }

    /// The same connection, made by a proxy for `address`.
    pub(crate) fn on_behalf_of(&self, address: IpAddr) -> Self {
        Self {
            address,
            _guard: self._guard.clone(),
        }
    }
}

/// Takes connections for ever, of TLS where there is an acceptor. Those for which there is no time wait with the system, where they cost
/// nothing: with each one that is taken, less is left for those that were.
pub(crate) async fn accept(shared: &Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Everything else that can go on does so first.
                yield_now().await;
                shared.hellos.is_short().await;
                admit(shared, stream, address, tls.clone(), &router);
            }
            Err(error) => {
                // No file descriptor left, or the other end has gone already: neither ends the edge.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>, router: &Router) {
    let admitted = match shared.options.trusted_proxies {
        0 => shared.admitted.admit(address.ip()),
        _ => shared.admitted.admit_anyone(),
    };
    let Some(guard) = admitted else {
        metrics::counter!("antiphon_connections_refused_total").increment(1);
        // Nothing can be said over TLS before hands are shaken, which is what is saved.
        if tls.is_none() {
            refuse(stream);
        }
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let peer = Peer {
        address: address.ip(),
        _guard: Some(Arc::new(guard)),
    };
    let (shared, router) = (shared.clone(), router.clone());
    let tracker = shared.connections.clone();
    tracker.spawn(async move {
        let Some(tls) = tls else {
            return serve(shared, stream, peer, router).await;
        };
        match timeout(head_timeout(&shared), tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(shared, stream, peer, router).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection did not come to TLS"),
            Err(_) => tracing::debug!("a connection took too long to come to TLS"),
        }
    });
}

/// How long a connection may take to say what it wants.
fn head_timeout(shared: &Shared) -> Duration {
    Duration::from_millis(shared.options.header_timeout_ms.max(1))
}

/// Answers a connection that is over the limit as far as that goes without waiting for it.
fn refuse(stream: TcpStream) {
    let message = "too many connections of this address, or of all";
    let problem = Problem::from(Refusal::new(ErrorCode::RateLimited, message).retry_after(REFUSED_RETRY_MS));
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let head = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-type: application/problem+json";
    let answer = format!(
        "{head}\r\nretry-after: {}\r\ncontent-length: {}\r\n\r\n{body}",
        REFUSED_RETRY_MS / 1_000,
        body.len()
    );
    // The runtime does not know yet that the socket can be written; the system does.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(answer.as_bytes());
    }
}

async fn serve(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout(&shared))
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.stop_accepting.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended with an error");
    }
}
