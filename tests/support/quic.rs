//! A device over QUIC that is not the SDK, and a network that treats datagrams badly.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use quinn::{ClientConfig, Endpoint, TransportConfig, crypto::rustls::QuicClientConfig};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{net::UdpSocket, task::JoinHandle, time::sleep};

/// Of a node's ports.
pub(crate) const WEB_TRANSPORT: u16 = 2;
pub(crate) const QUIC: u16 = 3;

/// Takes any certificate: these tests are not about whom a device believes.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// For the protocol of this name. How long silence may last is the edge's word alone: quinn's own would end a session after 30 s.
pub(crate) fn client_config(protocol: &[u8]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.enable_early_data = true;
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(None);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// A connection to the edge whose HTTP is on this port.
pub(crate) async fn connect(port: u16) -> io::Result<quinn::Connection> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port + QUIC));
    let connecting = endpoint().connect_with(client_config(b"antiphon/1"), to, "localhost");
    connecting.map_err(io::Error::other)?.await.map_err(io::Error::other)
}

/// A session of JSON at the edge whose HTTP is on this port.
pub(crate) async fn connect_web_transport(port: u16) -> io::Result<wtransport::Connection> {
    let config = wtransport::ClientConfig::builder()
        .with_bind_default()
        .build_with_quic_config(client_config(b"h3"));
    let endpoint = wtransport::Endpoint::client(config)?;
    let url = format!(
        "https://127.0.0.1:{}/v1/connect?protocol=antiphon.v1.json",
        port + WEB_TRANSPORT
    );
    endpoint.connect(&url).await.map_err(io::Error::other)
}

/// How a path treats datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a hundred datagrams.
    pub(crate) lost_percent: u32,
    /// Of a hundred datagrams: those that come up to 30 ms late, behind later ones.
    pub(crate) late_percent: u32,
    /// Nothing passes.
    pub(crate) is_dead: bool,
}

/// A network between devices and an edge over UDP, with an address of its own towards the edge for each device, as a NAT has.
pub(crate) struct UdpPath {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    to: SocketAddr,
    weather: Weather,
    random: StdRng,
    /// By the device's address.
    mappings: HashMap<SocketAddr, Mapping>,
    /// Every datagram from devices, while somebody wants them.
    recorded: Option<Vec<Vec<u8>>>,
}

struct Mapping {
    socket: Arc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UdpPath {
    /// To nowhere yet.
    pub(crate) async fn new(seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let port = front.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            to: (Ipv4Addr::LOCALHOST, 9).into(),
            weather: Weather::default(),
            random: StdRng::seed_from_u64(seed),
            mappings: HashMap::new(),
            recorded: None,
        }));
        let task = tokio::spawn(carry(front, state.clone()));
        Self { port, state, task }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Leads to this port from now on.
    pub(crate) fn lead_to(&self, port: u16) {
        self.state.lock().to.set_port(port);
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// The NAT has forgotten every device: what they send next comes from another port.
    pub(crate) fn rebind(&self) {
        self.state.lock().mappings.clear();
    }

    /// From how many sockets something has come.
    pub(crate) fn sockets(&self) -> usize {
        self.state.lock().mappings.len()
    }

    /// Keeps what devices send from now on.
    pub(crate) fn record(&self) {
        self.state.lock().recorded = Some(Vec::new());
    }

    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        self.state.lock().recorded.take().unwrap_or_default()
    }
}

impl Drop for UdpPath {
    fn drop(&mut self) {
        self.task.abort();
        self.state.lock().mappings.clear();
    }
}

async fn carry(front: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok((len, device)) = front.recv_from(&mut buffer).await else {
            continue;
        };
        let datagram = buffer[..len].to_vec();
        if let Some(recorded) = &mut state.lock().recorded {
            recorded.push(datagram.clone());
        }
        let (known, to) = {
            let state = state.lock();
            (
                state.mappings.get(&device).map(|mapping| mapping.socket.clone()),
                state.to,
            )
        };
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                let task = tokio::spawn(back(socket.clone(), front.clone(), device, state.clone()));
                let mapping = Mapping {
                    socket: socket.clone(),
                    task,
                };
                state.lock().mappings.insert(device, mapping);
                socket
            }
        };
        pass(&state, socket, datagram, to);
    }
}

async fn back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, device: SocketAddr, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // A port that nobody listens on is told of: that is no reason to end.
        if let Ok(len) = socket.recv(&mut buffer).await {
            pass(&state, front.clone(), buffer[..len].to_vec(), device);
        }
    }
}

fn pass(state: &Mutex<State>, socket: Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr) {
    let late = {
        let mut state = state.lock();
        let weather = state.weather;
        if weather.is_dead || state.random.random_range(0..100) < weather.lost_percent {
            return;
        }
        let is_late = state.random.random_range(0..100) < weather.late_percent;
        is_late.then(|| Duration::from_millis(state.random.random_range(1..30)))
    };
    match late {
        None => {
            let _ = socket.try_send_to(&datagram, to);
        }
        Some(late) => {
            tokio::spawn(async move {
                sleep(late).await;
                let _ = socket.send_to(&datagram, to).await;
            });
        }
    }
}
