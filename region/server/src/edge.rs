//! Where a node listens for devices, and what it needs for that.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use antiphon_gateway::{Certificates, QuicSockets};
use antiphon_types::Clock;
use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;

use crate::config::Config;

/// After `node.base_port`: WebTransport and QUIC, on UDP.
const WEB_TRANSPORT_OFFSET: u16 = 2;
const QUIC_OFFSET: u16 = 3;
/// The file, in the node's folder, of the secret that resets are made with.
const RESET_KEY_FILE: &str = "quic-reset-key";

/// What devices connect to.
pub(crate) struct Edge {
    /// HTTP and WebSocket.
    pub(crate) tcp: TcpListener,
    /// QUIC and WebTransport, unless they are turned off.
    pub(crate) udp: Option<Udp>,
}

pub(crate) struct Udp {
    pub(crate) sockets: QuicSockets,
    pub(crate) certificates: Certificates,
    /// Lasts as long as the node's folder: a device hears from the process that takes a killed one's place that its session is gone.
    pub(crate) reset_key: [u8; 32],
}

impl Edge {
    /// Listens as the configuration says; `folder` is the node's own.
    ///
    /// # Errors
    /// Names the port that is in use, or the file that cannot be used.
    pub(crate) async fn listen(config: &Config, folder: &Path) -> Result<Self> {
        let (host, port) = (config.node.host, config.node.base_port);
        let tcp = listen(host, port).await?;
        if !config.edge.quic {
            return Ok(Self { tcp, udp: None });
        }
        let sockets = QuicSockets {
            web_transport: bind(host, port.saturating_add(WEB_TRANSPORT_OFFSET))?,
            quic: bind(host, port.saturating_add(QUIC_OFFSET))?,
        };
        let (certificate, key) = (&config.edge.tls_certificate_file, &config.edge.tls_key_file);
        let certificates = if certificate.as_os_str().is_empty() {
            Certificates::development(vec!["localhost".to_owned(), host.to_string()], Clock::system())
        } else {
            Certificates::from_files(certificate, key)
        };
        let udp = Udp {
            sockets,
            certificates: certificates.context("the certificate of the edge")?,
            reset_key: reset_key(&folder.join(RESET_KEY_FILE))?,
        };
        Ok(Self { tcp, udp: Some(udp) })
    }
}

/// Listens on a TCP port.
///
/// # Errors
/// Names the port, and says so when it is in use.
pub(crate) async fn listen(host: IpAddr, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address)
        .await
        .or_else(|error| refuse(&error, "port", address))
}

fn bind(host: IpAddr, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(host, port);
    UdpSocket::bind(address).or_else(|error| refuse(&error, "UDP port", address))
}

fn refuse<T>(error: &io::Error, what: &str, address: SocketAddr) -> Result<T> {
    let (port, host) = (address.port(), address.ip());
    if error.kind() == io::ErrorKind::AddrInUse {
        bail!("{what} {port} of {host} is in use: is another antiphon running? Choose other ports with --base-port");
    }
    bail!("cannot listen on {what} {port} of {host}: {error}")
}

/// The key in the file, which is made when it is not there.
fn reset_key(path: &Path) -> Result<[u8; 32]> {
    let unusable = || format!("the key of resets, {}", path.display());
    let mut key = [0; 32];
    match fs::File::open(path) {
        Ok(mut file) => file.read_exact(&mut key).with_context(unusable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            key = rand::random();
            // Whole or not at all: a start that is killed leaves no half of a file.
            let draft = path.with_extension("new");
            let mut options = fs::OpenOptions::new();
            let file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft);
            file.and_then(|mut file| file.write_all(&key))
                .and_then(|()| fs::rename(&draft, path))
                .with_context(unusable)?;
        }
        Err(error) => return Err(error).with_context(unusable),
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_on_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = listener.local_addr().unwrap();
        let error = format!("{:#}", listen(taken.ip(), taken.port()).await.unwrap_err());
        let expected = format!("port {} of 127.0.0.1 is in use", taken.port());
        assert!(error.contains(&expected) && !error.contains('\n'), "{error}");

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let error = bind(taken.ip(), taken.port()).unwrap_err().to_string();
        let expected = format!("UDP port {} of 127.0.0.1 is in use", taken.port());
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn the_key_of_resets_outlives_the_process_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RESET_KEY_FILE);
        let key = reset_key(&path).unwrap();
        assert_eq!(reset_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        let error = format!("{:#}", reset_key(&path).unwrap_err());
        assert!(error.contains(RESET_KEY_FILE), "{error}");
    }
}
