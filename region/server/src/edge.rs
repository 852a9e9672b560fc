//! Where a node listens for devices, and what it needs for that.

use std::{
    future, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
};

use antiphon_gateway::{CertificateError, Certificates, Gateway, QuicSockets, ResetKey};
use antiphon_types::Clock;
use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
    task::JoinHandle,
};

use crate::{config::Config, metrics::observe_tasks};

/// After `node.base_port`: WebTransport and QUIC, on UDP.
const WEB_TRANSPORT_OFFSET: u16 = 2;
const QUIC_OFFSET: u16 = 3;
/// Connections that may wait to be taken, as far as the kernel allows (`net.core.somaxconn`). Whoever finds no room tries again after 1, 2, 4, 8
/// seconds (RFC 6298, 5.5).
const TCP_BACKLOG: u32 = 65_535;
/// Of every device's datagrams, until the edge comes to read them: what does not fit is lost, and sent again after a second or more.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Files in the node's folder: the secret that resets are made with, and the certificate of an edge that was given none.
const RESET_KEY_FILE: &str = "quic-reset-key";
const CERTIFICATE_FILE: &str = "development-certificate.pem";

/// The threads that serve devices. However much comes from them at once, the node's own (its lease, votes, replication) do not stand in
/// one queue with it.
pub(crate) struct Threads(Option<runtime::Runtime>);

impl Threads {
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("edge")
            .enable_all()
            .build();
        let runtime = runtime.context("the threads of the edge")?;
        runtime.spawn(observe_tasks("edge"));
        Ok(Self(Some(runtime)))
    }

    /// Makes an edge and lets it take connections, on these threads.
    ///
    /// # Errors
    /// When the sockets cannot be used.
    pub(crate) fn serve(&self, edge: Edge, make: impl FnOnce() -> Gateway) -> Result<(Gateway, JoinHandle<()>)> {
        let Some(runtime) = &self.0 else {
            bail!("the threads of the edge have ended");
        };
        let _here = runtime.enter();
        let gateway = make();
        // A socket wakes the threads that it was registered with.
        let tcp = edge.tcp.into_std().and_then(TcpListener::from_std)?;
        if let Some(certificates) = &edge.certificates {
            gateway.look_after(certificates.clone());
        }
        if let Some(certificates) = edge.certificates.clone().filter(|_| edge.https) {
            gateway.speak_tls(certificates).context("HTTPS")?;
        }
        let connections = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(tcp, future::pending()).await }
        });
        if let (Some(udp), Some(certificates)) = (edge.udp, edge.certificates) {
            gateway
                .listen_quic(udp.sockets, certificates, &udp.reset_key)
                .context("QUIC and WebTransport")?;
        }
        Ok((gateway, connections))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Without waiting, which a task may not do.
            runtime.shutdown_background();
        }
    }
}

/// What devices connect to.
pub(crate) struct Edge {
    /// HTTP and WebSocket.
    pub(crate) tcp: TcpListener,
    /// Whether over TLS.
    pub(crate) https: bool,
    /// What devices are shown, if TLS is spoken at all.
    pub(crate) certificates: Option<Certificates>,
    /// QUIC and WebTransport, unless they are turned off.
    pub(crate) udp: Option<Udp>,
}

pub(crate) struct Udp {
    pub(crate) sockets: QuicSockets,
    /// Lasts as long as the node's folder: a device hears from the process that takes a killed one's place that its session is gone.
    pub(crate) reset_key: ResetKey,
}

impl Edge {
    /// Listens as the configuration says; `folder` is the node's own.
    ///
    /// # Errors
    /// Names the port that is in use, or the file that cannot be used.
    pub(crate) fn listen(config: &Config, folder: &Path) -> Result<Self> {
        let (host, port) = (config.node.host, config.node.base_port);
        let mut edge = Self {
            tcp: listen(host, port)?,
            https: config.edge.https,
            certificates: None,
            udp: None,
        };
        if config.edge.https || config.edge.quic {
            edge.certificates = Some(certificates(config, folder).context("the certificate of the edge")?);
        }
        if !config.edge.quic {
            return Ok(edge);
        }
        let sockets = QuicSockets {
            web_transport: bind(host, port.saturating_add(WEB_TRANSPORT_OFFSET))?,
            quic: bind(host, port.saturating_add(QUIC_OFFSET))?,
        };
        let key_file = folder.join(RESET_KEY_FILE);
        edge.udp = Some(Udp {
            sockets,
            reset_key: ResetKey::kept(&key_file)
                .with_context(|| format!("the key of resets, {}", key_file.display()))?,
        });
        Ok(edge)
    }
}

fn certificates(config: &Config, folder: &Path) -> Result<Certificates, CertificateError> {
    let (certificate, key) = (&config.edge.tls_certificate_file, &config.edge.tls_key_file);
    if certificate.as_os_str().is_empty() {
        let names = vec!["localhost".to_owned(), config.node.host.to_string()];
        return Certificates::development(names, &folder.join(CERTIFICATE_FILE), Clock::system());
    }
    Certificates::from_files(certificate, key)
}

/// Listens on a TCP port.
///
/// # Errors
/// Names the port, and says so when it is in use.
pub(crate) fn listen(host: IpAddr, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    listen_at(address, TCP_BACKLOG).or_else(|error| refuse(&error, "port", address))
}

/// Listens at an address, where connections may wait to be taken, as many as that.
///
/// # Errors
/// Those of the system.
pub(crate) fn listen_at(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart finds connections of the process before it that are not over yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// As much buffer as the kernel gives of what is asked for (udp(7): up to `net.core.rmem_max` and `wmem_max`).
fn bind(host: IpAddr, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(host, port);
    let socket = UdpSocket::bind(address).or_else(|error| refuse(&error, "UDP port", address))?;
    let enlarged = set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES)
        .and_then(|()| set_socket_send_buffer_size(&socket, UDP_BUFFER_BYTES));
    enlarged.with_context(|| format!("buffers of {UDP_BUFFER_BYTES} bytes for UDP port {port} of {host}"))?;
    Ok(socket)
}

fn refuse<T>(error: &io::Error, what: &str, address: SocketAddr) -> Result<T> {
    let (port, host) = (address.port(), address.ip());
    if error.kind() == io::ErrorKind::AddrInUse {
        bail!("{what} {port} of {host} is in use: is another antiphon running? Choose other ports with --base-port");
    }
    bail!("cannot listen on {what} {port} of {host}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_on_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = listener.local_addr().unwrap();
        let error = format!("{:#}", listen(taken.ip(), taken.port()).unwrap_err());
        let expected = format!("port {} of 127.0.0.1 is in use", taken.port());
        assert!(error.contains(&expected) && !error.contains('\n'), "{error}");

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let error = bind(taken.ip(), taken.port()).unwrap_err().to_string();
        let expected = format!("UDP port {} of 127.0.0.1 is in use", taken.port());
        assert!(error.contains(&expected), "{error}");
    }
}
