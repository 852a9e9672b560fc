use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use antiphon_types::trace;
use futures_util::{Stream, future::BoxFuture};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{
        Error, Server,
        server::{Connected, TcpIncoming},
    },
};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    NodeTls, PeerRegion,
    far::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
};

/// Streams of one connection: requests of a whole region share it.
const STREAMS_MAX: u32 = 4_096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// Serves this node's services to the nodes of other regions until `shutdown` ends. A peer without a certificate of the deployment is
/// refused in the handshake.
///
/// # Errors
/// What the listener or the certificates are refused for.
pub async fn serve_nodes(
    listener: TcpListener,
    services: Routes,
    tls: &NodeTls,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    // The builder's own setting counts only for listeners that it makes itself. Without it a small frame behind another waits for the
    // peer's delayed acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().tls_config(tls.server().timeout(HANDSHAKE_TIMEOUT))?;
    serve(server, incoming, services, shutdown).await
}

/// As [`serve_nodes`], over connections that come as they are: whoever makes them knows that the peers are nodes of the deployment.
///
/// # Errors
/// What `incoming` ends with.
pub async fn serve_wires<I>(
    incoming: impl Stream<Item = io::Result<I>>,
    services: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    serve(Server::builder(), incoming, services, shutdown).await
}

async fn serve<I>(
    server: Server,
    incoming: impl Stream<Item = io::Result<I>>,
    services: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    server
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .layer(ArrivalLayer)
        .add_routes(services)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}

/// Says whose request it is, and continues the trace of its sender.
#[derive(Clone, Copy)]
struct ArrivalLayer;

impl<S> Layer<S> for ArrivalLayer {
    type Service = Arrival<S>;

    fn layer(&self, inner: S) -> Arrival<S> {
        Arrival { inner }
    }
}

#[derive(Clone)]
struct Arrival<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Arrival<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match PeerRegion::of_connection(request.extensions()) {
            Some(peer) => {
                request.extensions_mut().insert(peer);
            }
            None if PeerRegion::is_needed(request.extensions()) => {
                let refused = Status::permission_denied("the certificate names no region");
                return Box::pin(std::future::ready(Ok(refused.into_http())));
            }
            None => {}
        }
        let traceparent = request
            .headers()
            .get("traceparent")
            .and_then(|value| value.to_str().ok());
        let span = match traceparent {
            Some(traceparent) => {
                let span = tracing::debug_span!("rpc", path = request.uri().path());
                trace::continue_from(&span, traceparent);
                span
            }
            None => tracing::Span::none(),
        };
        Box::pin(self.inner.call(request).instrument(span))
    }
}
