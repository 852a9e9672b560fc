use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use antiphon_client::{Connector, Transport};
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
    /// With a socket that its clones share, if there are many devices.
    quic: Vec<Connector>,
    next: AtomicUsize,
}

impl Connectors {
    /// For so many devices.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub(crate) fn new(certificate_sha256: Option<&str>, devices: usize) -> io::Result<Self> {
        let over = |transport| first(transport, certificate_sha256);
        let quic = match devices {
            ..=DEVICES_OF_SOCKET => vec![over(Transport::Quic)],
            many => {
                let sockets = 0..many.div_ceil(DEVICES_OF_SOCKET);
                let sharing = |_| {
                    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                    set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES)?;
                    let mut sharing = over(Transport::Quic);
                    sharing.share_socket(socket)?;
                    Ok(sharing)
                };
                sockets.map(sharing).collect::<io::Result<_>>()?
            }
        };
        Ok(Self {
            web_socket: over(Transport::WebSocket),
            web_transport: over(Transport::WebTransport),
            quic,
            next: AtomicUsize::new(0),
        })
    }

    /// Of one more device, over this transport alone.
    pub(crate) fn of(&self, transport: Transport) -> Connector {
        match transport {
            Transport::WebSocket => self.web_socket.clone(),
            Transport::WebTransport => self.web_transport.clone(),
            Transport::Quic => self.quic[self.next.fetch_add(1, Ordering::Relaxed) % self.quic.len()].clone(),
        }
    }
}

/// Of a device that was never connected: nothing that others keep open serves it.
pub(crate) fn first(transport: Transport, certificate_sha256: Option<&str>) -> Connector {
    Connector::new(Some(transport), Duration::ZERO, certificate_sha256)
}
