//! Opens connections: one transport, or whichever gets through first.

use std::{
    collections::HashMap,
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use antiphon_proto::{
    Codec,
    client::{ClientFrame, ServerFrame},
};
use futures_util::future::{BoxFuture, FutureExt as _};
use quinn::{IdleTimeout, TransportConfig, crypto::rustls::QuicClientConfig};
use tokio::time::{Instant, timeout};

use super::{
    Connection, Transport,
    offers::{Offer, Offers},
    race,
    stream::{Link, Stream, any_address},
    websocket::WebSocket,
};
use crate::tls::{client_config, http_client, https};

/// The name by which TLS agrees on the protocol (ALPN).
const QUIC_PROTOCOL: &[u8] = b"antiphon/1";
/// In this order they are tried while nothing is known of the network.
const PREFERENCE: [Transport; 3] = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
/// How long it counts that a transport got through when others did not: networks change without a word.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// The longest silence that the connection itself bears; the edge names a shorter one, which counts.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// What a client knows of the ways to its edges: what they offer, what got through last, and the sessions of TLS that can be resumed.
/// A clone knows the same, and goes on alone.
#[derive(Clone)]
pub struct Connector {
    /// The only transport to use.
    only: Option<Transport>,
    head_start: Duration,
    http: reqwest::Client,
    /// For WebSocket.
    https: Arc<rustls::ClientConfig>,
    /// Of WebSocket.
    codec: Codec,
    offers: HashMap<String, Offers>,
    /// What got through last on this network.
    worked: Option<(Transport, Instant)>,
    /// By protocol and certificate; each remembers the sessions that can be resumed.
    tls: HashMap<(Transport, Option<String>), rustls::ClientConfig>,
    /// Of every connection over QUIC, where they share one.
    shared_socket: Option<quinn::Endpoint>,
}

/// A connection before Hello, or one on which it is said already.
struct Ready {
    connection: Connection,
    said_hello: bool,
}

impl Connector {
    /// Over this transport alone, or whichever gets through first: each has this head start before the next one is tried beside it.
    /// Over HTTPS the certificate with this SHA-256 is taken and no other, or without one those that the system's authorities vouch for.
    #[must_use]
    pub fn new(only: Option<Transport>, head_start: Duration, certificate_sha256: Option<&str>) -> Self {
        Self {
            only,
            head_start,
            http: http_client(certificate_sha256),
            https: https(certificate_sha256).into(),
            codec: Codec::default(),
            offers: HashMap::new(),
            worked: None,
            tls: HashMap::new(),
            shared_socket: None,
        }
    }

    /// Over WebSocket frames are written so: for tools, as what an app sees is the same.
    pub const fn speak(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// Lets every connection over QUIC of this connector and of its clones use one socket, where each has its own otherwise: for a process
    /// that is many devices. None of them follows a change of the network then ([`crate::Client::network_changed`]).
    ///
    /// # Errors
    /// When the socket is of no use, or there is no Tokio runtime.
    pub fn share_socket(&mut self, socket: UdpSocket) -> io::Result<()> {
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)?;
        self.shared_socket = Some(endpoint);
        Ok(())
    }

    /// Nothing is known of the network any more.
    pub fn forget_network(&mut self) {
        self.worked = None;
    }

    /// No session of TLS is resumed: the next connection shakes hands in full.
    pub fn forget_sessions(&mut self) {
        self.tls.clear();
    }

    /// Connects to the edge of `server` (`http://…` or `https://…`), says hello and reads the answer.
    ///
    /// Hello is said to one connection alone, the first that is there: an edge takes a device's second session for its next one. Where
    /// a session is resumed it goes with the first packet; nothing but Hello may, as it could be sent again by others.
    ///
    /// # Errors
    /// Why each way failed, for people.
    pub async fn open(
        &mut self,
        server: &str,
        hello: &ClientFrame,
        within: Duration,
    ) -> Result<(Connection, ServerFrame), String> {
        let first = self.order().first().copied();
        let greeted = match timeout(within, self.greet(server, hello)).await {
            Ok(greeted) => greeted,
            Err(_) => Err(format!("no welcome within {} ms", within.as_millis())),
        };
        let got_through = greeted.as_ref().ok().map(|(connection, _)| connection.transport());
        if got_through != first {
            // It may offer something else by now.
            self.offers.remove(server);
        }
        self.worked = got_through.map(|transport| (transport, Instant::now()));
        greeted
    }

    async fn greet(&mut self, server: &str, hello: &ClientFrame) -> Result<(Connection, ServerFrame), String> {
        let Ready {
            mut connection,
            said_hello,
        } = self.connect(server, hello).await?;
        if !said_hello {
            connection.send(hello).await?;
        }
        let answer = connection.receive().await?;
        Ok((connection, answer))
    }

    async fn connect(&mut self, server: &str, hello: &ClientFrame) -> Result<Ready, String> {
        let order = self.order();
        let offers = match order.as_slice() {
            [Transport::WebSocket] => Offers::default(),
            _ => self.offers(server).await?,
        };
        let mut attempts: Vec<BoxFuture<'_, Result<Ready, String>>> = Vec::new();
        for transport in order {
            match (transport, &offers) {
                (Transport::Quic, Offers { quic: Some(offer), .. }) => {
                    let config = self.tls(transport, QUIC_PROTOCOL, offer);
                    let socket = self.shared_socket.clone();
                    attempts.push(named(
                        transport,
                        quic(offer.clone(), config, socket, hello, self.head_start),
                    ));
                }
                (
                    Transport::WebTransport,
                    Offers {
                        web_transport: Some(offer),
                        ..
                    },
                ) => {
                    let config = self.tls(transport, wtransport::tls::WEBTRANSPORT_ALPN, offer);
                    attempts.push(named(transport, web_transport(offer.clone(), config)));
                }
                (Transport::WebSocket, _) => {
                    attempts.push(named(transport, web_socket(server, self.https.clone(), self.codec)));
                }
                (Transport::Quic | Transport::WebTransport, _) => {}
            }
        }
        if attempts.is_empty() {
            let wanted = self.only.map_or("", Transport::name);
            return Err(format!("{server} does not offer {wanted}"));
        }
        race::first(attempts, self.head_start).await
    }

    /// The transports to try: what got through last first.
    fn order(&self) -> Vec<Transport> {
        if let Some(only) = self.only {
            return vec![only];
        }
        let worked = self.worked.filter(|(_, at)| at.elapsed() < REMEMBERED);
        let first = worked.map(|(transport, _)| transport);
        let others = PREFERENCE.into_iter().filter(|transport| Some(*transport) != first);
        first.into_iter().chain(others).collect()
    }

    /// An edge that does not say what it offers has WebSocket.
    async fn offers(&mut self, server: &str) -> Result<Offers, String> {
        if let Some(known) = self.offers.get(server) {
            return Ok(known.clone());
        }
        match Offers::ask(&self.http, server).await {
            Ok(offers) => {
                self.offers.insert(server.to_owned(), offers.clone());
                Ok(offers)
            }
            Err(reason) if self.only.is_some() => Err(reason),
            Err(_) => Ok(Offers::default()),
        }
    }

    fn tls(&mut self, transport: Transport, protocol: &[u8], offer: &Offer) -> rustls::ClientConfig {
        let key = (transport, offer.certificate_sha256.clone());
        if let Some(known) = self.tls.get(&key) {
            return known.clone();
        }
        let versions = [&rustls::version::TLS13];
        let mut config = client_config(&versions, protocol, offer.certificate_sha256.as_deref());
        config.enable_early_data = true;
        // A certificate that is not offered any more is of no use.
        self.tls.retain(|(of, _), _| *of != transport);
        self.tls.insert(key, config.clone());
        config
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("only", &self.only)
            .field("worked", &self.worked)
            .finish_non_exhaustive()
    }
}

fn named<'a>(
    transport: Transport,
    attempt: impl Future<Output = Result<Ready, String>> + Send + 'a,
) -> BoxFuture<'a, Result<Ready, String>> {
    attempt
        .map(move |result| result.map_err(|reason| format!("{transport}: {reason}")))
        .boxed()
}

async fn web_socket(server: &str, tls: Arc<rustls::ClientConfig>, codec: Codec) -> Result<Ready, String> {
    let socket = WebSocket::open(server, tls, codec).await?;
    Ok(Ready {
        connection: socket.into(),
        said_hello: false,
    })
}

fn transport_config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        // The edge opens none but WebTransport's own.
        .max_concurrent_bidi_streams(1_u32.into())
        .max_concurrent_uni_streams(8_u32.into())
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    Arc::new(config)
}

/// Tries each address of the host.
async fn quic(
    offer: Offer,
    tls: rustls::ClientConfig,
    shared_socket: Option<quinn::Endpoint>,
    hello: &ClientFrame,
    head_start: Duration,
) -> Result<Ready, String> {
    let authority = offer
        .url
        .strip_prefix("quic://")
        .unwrap_or(&offer.url)
        .trim_end_matches('/');
    let (host, _) = authority
        .rsplit_once(':')
        .ok_or_else(|| format!("{} has no port", offer.url))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config());
    let addresses = tokio::net::lookup_host(authority)
        .await
        .map_err(|error| error.to_string())?;
    let attempts =
        addresses.map(|address| quic_at(address, host, config.clone(), shared_socket.clone(), hello).boxed());
    race::first(attempts.collect(), head_start).await
}

async fn quic_at(
    address: SocketAddr,
    host: &str,
    config: quinn::ClientConfig,
    shared_socket: Option<quinn::Endpoint>,
    hello: &ClientFrame,
) -> Result<Ready, String> {
    let (endpoint, own_socket) = match shared_socket {
        Some(shared) => (shared, None),
        None => {
            let own = quinn::Endpoint::client(any_address(&address)).map_err(|error| error.to_string())?;
            (own.clone(), Some(own))
        }
    };
    let connecting = endpoint
        .connect_with(config, address, host)
        .map_err(|error| error.to_string())?;
    let open = async |connection: &quinn::Connection| {
        let (writer, reader) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let link = Link::Quic(own_socket.clone(), connection.clone());
        Ok::<Connection, String>(Stream::new(link, writer, reader).into())
    };
    match connecting.into_0rtt() {
        Ok((connection, accepted)) => {
            let mut early = open(&connection).await?;
            early.send(hello).await?;
            // It is not known yet whether anybody is there.
            if accepted.await {
                return Ok(Ready {
                    connection: early,
                    said_hello: true,
                });
            }
            if let Some(reason) = connection.close_reason() {
                return Err(reason.to_string());
            }
            // The edge has forgotten the session: what was said early was not heard.
            Ok(Ready {
                connection: open(&connection).await?,
                said_hello: false,
            })
        }
        Err(connecting) => {
            let connection = connecting.await.map_err(|error| error.to_string())?;
            Ok(Ready {
                connection: open(&connection).await?,
                said_hello: false,
            })
        }
    }
}

async fn web_transport(offer: Offer, tls: rustls::ClientConfig) -> Result<Ready, String> {
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = wtransport::ClientConfig::builder()
        .with_bind_default()
        .build_with_quic_config(quinn::ClientConfig::new(Arc::new(tls)));
    config.quic_config_mut().transport_config(transport_config());
    let endpoint = wtransport::Endpoint::client(config).map_err(|error| error.to_string())?;
    let connection = endpoint.connect(&offer.url).await.map_err(|error| error.to_string())?;
    let opening = connection.open_bi().await.map_err(|error| error.to_string())?;
    let (writer, reader) = opening.await.map_err(|error| error.to_string())?;
    let link = Link::WebTransport(connection);
    Ok(Ready {
        connection: Stream::new(link, writer, reader).into(),
        said_hello: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_got_through_last_is_tried_first_until_the_network_changes() {
        let head_start = Duration::from_millis(250);
        let mut connector = Connector::new(None, head_start, None);
        assert_eq!(connector.order(), PREFERENCE);
        connector.worked = Some((Transport::WebSocket, Instant::now()));
        let order = [Transport::WebSocket, Transport::Quic, Transport::WebTransport];
        assert_eq!(connector.order(), order);
        connector.forget_network();
        assert_eq!(connector.order(), PREFERENCE);
        assert_eq!(
            Connector::new(Some(Transport::Quic), head_start, None).order(),
            [Transport::Quic]
        );
    }
}
