use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use antiphon_client::{Codec, Connector, Transport};
use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_recv_buffer_size;

/// Over QUIC, as many devices have one socket where there are more of them.
const DEVICES_OF_SOCKET: usize = 1_000;
/// Of such a socket: its devices are answered at the same moment.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// Ways of devices to the edges of a server. To make one reads the system's authorities; so there is one of each, to be cloned.
#[derive(Debug)]
pub(crate) struct Connectors {
    web_socket: Connector,
    web_transport: Connector,
    quic: Connector,
    /// Where devices share sockets: the latest, and how many more may have it.
    sharing: Option<Mutex<(Connector, usize)>>,
}

impl Connectors {
    /// For so many devices.
    pub(crate) fn new(certificate_sha256: Option<&str>, codec: Codec, devices: usize) -> Self {
        let over = |transport| first(transport, codec, certificate_sha256);
        let quic = over(Transport::Quic);
        Self {
            web_socket: over(Transport::WebSocket),
            web_transport: over(Transport::WebTransport),
            sharing: (devices > DEVICES_OF_SOCKET).then(|| Mutex::new((quic.clone(), 0))),
            quic,
        }
    }

    /// Of one more device, over this transport alone.
    ///
    /// # Errors
    /// When a socket for it and others cannot be opened.
    pub(crate) fn of(&self, transport: Transport) -> io::Result<Connector> {
        let known = match transport {
            Transport::WebSocket => &self.web_socket,
            Transport::WebTransport => &self.web_transport,
            Transport::Quic => &self.quic,
        };
        let (Transport::Quic, Some(sharing)) = (transport, &self.sharing) else {
            return Ok(known.clone());
        };
        let (latest, left) = &mut *sharing.lock();
        if *left == 0 {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES)?;
            latest.share_socket(socket)?;
            *left = DEVICES_OF_SOCKET;
        }
        *left -= 1;
        Ok(latest.clone())
    }
}

/// Of a device that was never connected: nothing that others keep open serves it.
pub(crate) fn first(transport: Transport, codec: Codec, certificate_sha256: Option<&str>) -> Connector {
    let mut connector = Connector::new(Some(transport), Duration::ZERO, certificate_sha256);
    connector.speak(codec);
    connector
}
