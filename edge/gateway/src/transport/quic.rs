//! QUIC (RFC 9000) on two sockets: the protocol itself, and WebTransport.
//!
//! Threats:
//! - Garbage and handshakes of forged addresses cost a datagram's reading; above [`crate::GatewayOptions::quic_retry_above`] handshakes
//!   under way an address has to show that it can be reached (Retry, RFC 9000 section 8.1.2), and above twice as many all are refused.
//!   Before an address is validated no more than three times what came from it goes there.
//! - What is sent early (0-RTT) may be recorded and sent again. A resumption ticket is good for one connection and remembered by this
//!   process alone, so that what is replayed is not read early, and cannot be read later.
//! - A process that was killed and came back knows no connection; devices are told so by resets that only it can make (RFC 9000
//!   section 10.3), for which its key has to be that of the process before.

use std::{
    io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_proto::Codec;
use antiphon_session::{CloseReason, SessionOptions};
use bytes::Bytes;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig, TransportConfig,
    VarInt, crypto::rustls::QuicServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::server::ServerSessionMemoryCache;
use tokio::time::timeout;

use super::{
    Certificates, ResetKey,
    stream::{Link, StreamTransport},
    webtransport,
};
use crate::{connection, limits::counted, shared::Shared};

/// The name by which TLS agrees on the protocol (ALPN).
pub const QUIC_PROTOCOL: &[u8] = b"antiphon/1";

/// Sessions that can be resumed: each takes about a kibibyte of memory until it is, or is pushed out by newer ones.
const RESUMABLE_MAX: usize = 16_384;
/// Bytes that may be under way to a device; more waits in its session, which has its own bound.
const SEND_WINDOW_BYTES: u64 = 256 * 1024;
/// Bytes of datagrams that may wait, in each direction.
const DATAGRAM_BYTES: usize = 16 * 1024;
/// Connections that wait to be looked at, and bytes of one that come before it is: most are a packet or two.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES: u64 = 64 * 1024;
/// Streams that HTTP/3 has besides the session's: the control stream and QPACK's two; its CONNECT request.
const HTTP3_UNI_STREAMS: u32 = 8;
const HTTP3_BI_STREAMS: u32 = 2;
/// A connection says nothing for this much longer than a session may before it is forgotten.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// The close code of a connection that is refused: an HTTP status, for want of a better word.
const TOO_MANY: u32 = 4429;

/// Where an edge listens for what runs over UDP.
#[derive(Debug)]
pub struct QuicSockets {
    /// For WebTransport.
    pub web_transport: UdpSocket,
    /// For QUIC.
    pub quic: UdpSocket,
}

/// What listens on UDP, and the certificate that it shows.
pub(crate) struct Udp {
    pub(crate) web_transport: Endpoint,
    pub(crate) quic: Endpoint,
    pub(crate) certificates: Certificates,
}

impl Udp {
    /// Opens both endpoints. `reset_key` is the same for every process that takes this one's place.
    pub(crate) fn open(
        sockets: QuicSockets,
        certificates: Certificates,
        reset_key: &ResetKey,
        session: &SessionOptions,
    ) -> io::Result<Self> {
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &reset_key.0);
        // The process after this one has to know an id of a connection that there was from one that somebody has made up.
        let tag = hmac::sign(&reset_key, b"connection ids");
        let ids_key = tag
            .as_ref()
            .iter()
            .take(8)
            .fold(0, |key, byte| key << 8 | u64::from(*byte));
        let reset_key = Arc::new(reset_key);
        let open = |socket: UdpSocket, config: ServerConfig| {
            socket.set_nonblocking(true)?;
            let mut endpoint = EndpointConfig::new(reset_key.clone());
            endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids_key)));
            Endpoint::new(endpoint, Some(config), socket, Arc::new(quinn::TokioRuntime))
        };
        let quic = server_config(&certificates, QUIC_PROTOCOL, u32::MAX, transport(session, 1, 0))?;
        let http3 = transport(session, HTTP3_BI_STREAMS, HTTP3_UNI_STREAMS);
        let web_transport = server_config(&certificates, wtransport::tls::WEBTRANSPORT_ALPN, 0, http3)?;
        Ok(Self {
            web_transport: open(sockets.web_transport, web_transport)?,
            quic: open(sockets.quic, quic)?,
            certificates,
        })
    }

    /// Takes connections of both kinds, and refuses them once the edge takes no more; until it ends.
    pub(crate) async fn accept(&self, shared: &Arc<Shared>) {
        let handshakes = Handshakes::default();
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                Some(incoming) = self.quic.accept() => {
                    if let Some((incoming, handshake)) = admit(shared, &handshakes, incoming) {
                        shared.connections.spawn(serve(shared.clone(), open(incoming), handshake));
                    }
                }
                Some(incoming) = self.web_transport.accept() => {
                    if let Some((incoming, handshake)) = admit(shared, &handshakes, incoming) {
                        shared.connections.spawn(serve(shared.clone(), webtransport::open(incoming), handshake));
                    }
                }
                else => return,
            }
        }
    }

    /// Cuts what is still connected, and tells it so.
    pub(crate) async fn close(&self) {
        let reason = CloseReason::Draining;
        for endpoint in [&self.web_transport, &self.quic] {
            endpoint.close(VarInt::from_u32(reason.code().into()), reason.as_str().as_bytes());
        }
        // The word is repeated for three round trips to whoever has not heard it; nobody is waited for longer.
        let told = async { tokio::join!(self.web_transport.wait_idle(), self.quic.wait_idle()) };
        let _ = timeout(Duration::from_millis(100), told).await;
    }
}

fn server_config(
    certificates: &Certificates,
    protocol: &[u8],
    early_data_bytes: u32,
    transport: TransportConfig,
) -> io::Result<ServerConfig> {
    let mut tls = certificates.tls(&[&rustls::version::TLS13], protocol)?;
    // Kept here and not in the ticket itself: only so is each good for one connection.
    tls.session_storage = ServerSessionMemoryCache::new(RESUMABLE_MAX);
    tls.send_tls13_tickets = 1;
    tls.max_early_data_size = early_data_bytes;
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64 / 16);
    Ok(config)
}

/// The bounds of one connection.
fn transport(session: &SessionOptions, bi_streams: u32, uni_streams: u32) -> TransportConfig {
    let silent = Duration::from_millis(u64::from(session.heartbeat_ms) * 2) + IDLE_GRACE;
    let frame_bytes = u32::try_from(session.frame_bytes_max.saturating_mul(2)).unwrap_or(u32::MAX / 4);
    let stream_bytes = frame_bytes.clamp(64 * 1024, u32::MAX / 4);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(bi_streams.into())
        .max_concurrent_uni_streams(uni_streams.into())
        .stream_receive_window(stream_bytes.into())
        .receive_window((stream_bytes * 2).into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .max_idle_timeout(IdleTimeout::try_from(silent).ok());
    config
}

/// Handshakes under way.
#[derive(Debug, Default, Clone)]
struct Handshakes(Arc<AtomicUsize>);

impl Handshakes {
    fn begin(&self) -> Handshake {
        self.0.fetch_add(1, Ordering::Relaxed);
        Handshake(self.0.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Handshake(Arc<AtomicUsize>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a handshake may begin. Limits of an address are held against it once it is known to be its own.
fn admit(shared: &Shared, handshakes: &Handshakes, incoming: Incoming) -> Option<(Incoming, Handshake)> {
    let (under_way, retry_above) = (handshakes.count(), shared.options.quic_retry_above);
    let is_validated = incoming.remote_address_validated();
    let address = counted(incoming.remote_address().ip());
    if shared.stop_accepting.is_cancelled() {
        note("refused");
        incoming.refuse();
    } else if !is_validated && under_way >= retry_above {
        note("retry");
        let _ = incoming.retry();
    } else if under_way >= retry_above.saturating_mul(2)
        || is_validated && shared.limits.handshakes.take(&address).is_err()
    {
        // Not silence: the device would repeat itself until its token is too old, when it can go elsewhere now or come again.
        note("refused");
        incoming.refuse();
    } else {
        return Some((incoming, handshakes.begin()));
    }
    None
}

fn note(result: &'static str) {
    metrics::counter!("antiphon_quic_handshakes_total", "result" => result).increment(1);
}

/// A connection on which the device has opened its stream.
pub(super) struct Opened<L: Link> {
    pub(super) link: L,
    pub(super) streams: (L::Writer, L::Reader),
    pub(super) codec: Codec,
}

async fn open(incoming: Incoming) -> Option<Opened<Connection>> {
    // What comes early can be answered early: for a server this never fails.
    let (link, _) = incoming.accept().ok()?.into_0rtt().ok()?;
    let streams = link.accept_bi().await.ok()?;
    let codec = Codec::Binary;
    Some(Opened { link, streams, codec })
}

async fn serve<L: Link>(
    shared: Arc<Shared>,
    opening: impl Future<Output = Option<Opened<L>>> + Send,
    handshake: Handshake,
) {
    let within = Duration::from_millis(shared.options.session.hello_timeout_ms);
    let opened = timeout(within, opening).await.ok().flatten();
    drop(handshake);
    let Some(Opened { link, streams, codec }) = opened else {
        return note("failed");
    };
    let address = link.connection().remote_address().ip();
    let guard = match shared.options.trusted_proxies {
        0 => shared.admitted.admit(address),
        _ => shared.admitted.admit_anyone(),
    };
    if guard.is_none() {
        metrics::counter!("antiphon_connections_refused_total").increment(1);
        let reason = b"too many connections of this address, or of all";
        return link.connection().close(VarInt::from_u32(TOO_MANY), reason);
    }
    note("done");
    let bytes_max = shared.options.session.frame_bytes_max.saturating_mul(2);
    let transport = StreamTransport::new(link, streams, codec, bytes_max);
    connection::run(shared, transport, codec).await;
    drop(guard);
}

impl Link for Connection {
    const NAME: &'static str = "quic";
    type Writer = SendStream;
    type Reader = RecvStream;

    fn send_datagram(&self, frame: Bytes) -> Result<(), Bytes> {
        Self::send_datagram(self, frame.clone()).map_err(|_| frame)
    }

    async fn receive_datagram(&self) -> Option<Bytes> {
        self.read_datagram().await.ok()
    }

    async fn finish(writer: &mut SendStream) {
        if writer.finish().is_ok() {
            let _ = writer.stopped().await;
        }
    }

    fn connection(&self) -> &Connection {
        self
    }
}
