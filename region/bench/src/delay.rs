//! A path to a server that takes its time: TCP and UDP, in user space.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Pieces under way in one direction of one connection.
const PIECES_MAX: usize = 4_096;
/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A path to a server, closed when it is dropped.
#[derive(Debug)]
pub struct DelayedPath {
    delay: Duration,
    /// Of the near end: HTTP and WebSocket, WebTransport, QUIC.
    near: [u16; 3],
    tcp_connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl DelayedPath {
    /// Opens one to the server that is, or will be, at `base_port`. It takes `delay` in each direction.
    ///
    /// # Errors
    /// When the system has no port left.
    pub async fn open(base_port: u16, delay: Duration) -> Result<Self> {
        let to = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, base_port + offset));
        let tcp_connections = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let anywhere = (Ipv4Addr::LOCALHOST, 0);
        let listener = TcpListener::bind(anywhere).await.context("a slow path")?;
        let mut near = [listener.local_addr()?.port(), 0, 0];
        tasks.spawn(accept(listener, to(0), delay, tcp_connections.clone()));
        for (port, offset) in near.iter_mut().skip(1).zip([2, 3]) {
            let socket = UdpSocket::bind(anywhere).await.context("a slow path")?;
            *port = socket.local_addr()?.port();
            tasks.spawn(pass(Arc::new(socket), to(offset), delay));
        }
        Ok(Self {
            delay,
            near,
            tcp_connections,
            _tasks: tasks,
        })
    }

    /// What the server has to be told, so that it offers the near end.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let [_, web_transport, quic] = self.near;
        vec![
            format!("edge.web_transport_url=https://127.0.0.1:{web_transport}/v1/connect"),
            format!("edge.quic_url=quic://127.0.0.1:{quic}"),
        ]
    }

    pub(crate) const fn delay(&self) -> Duration {
        self.delay
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.near[0])
    }

    /// How many have come so far.
    pub(crate) fn tcp_connections(&self) -> usize {
        self.tcp_connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, delay: Duration, count: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        connections.spawn(async move {
            let far = TcpStream::connect(to).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::try_join!(copy(near_in, far_out, delay), copy(far_in, near_out, delay))?;
            io::Result::Ok(())
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        loop {
            let mut piece = Vec::with_capacity(16 << 10);
            if from.read_buf(&mut piece).await? == 0 || sender.send((Instant::now() + delay, piece)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(drop)
}

/// Each device has a socket of its own towards the server, as behind a NAT.
async fn pass(near: Arc<UdpSocket>, to: SocketAddr, delay: Duration) {
    let mut devices: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, device)) = near.recv_from(&mut buffer).await {
        let piece = (Instant::now() + delay, buffer[..length].to_vec());
        if let Some(known) = devices.get(&device) {
            // A full path drops.
            let _ = known.try_send(piece);
            continue;
        }
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let _ = sender.try_send(piece);
        devices.insert(device, sender);
        tasks.spawn(mapping(near.clone(), device, to, pieces, delay));
    }
}

async fn mapping(
    near: Arc<UdpSocket>,
    device: SocketAddr,
    to: SocketAddr,
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    delay: Duration,
) -> io::Result<()> {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    far.connect(to).await?;
    let out = async {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            far.send(&piece).await?;
        }
        io::Result::Ok(())
    };
    let (sender, mut back) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = far.recv(&mut buffer).await?;
            // A full path drops.
            if let Err(mpsc::error::TrySendError::Closed(_)) =
                sender.try_send((Instant::now() + delay, buffer[..length].to_vec()))
            {
                return io::Result::Ok(());
            }
        }
    };
    let returning = async {
        while let Some((due, piece)) = back.recv().await {
            sleep_until(due).await;
            near.send_to(&piece, device).await?;
        }
        io::Result::Ok(())
    };
    tokio::try_join!(out, reading, returning).map(drop)
}
