use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use antiphon_directory::{
    Dial,
    domain::{Addresses, RegionId},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, split},
    net::TcpStream,
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::transport::Endpoint;

/// The ways between regions, without TLS. They can be cut, and be long.
#[derive(Default)]
pub(crate) struct Links {
    pub(crate) cut: watch::Sender<Cut>,
    /// How long everything takes to arrive.
    pub(crate) delay: Duration,
}

/// What nothing passes.
#[derive(Default)]
pub(crate) struct Cut {
    /// Nodes that nothing gets to or from.
    pub(crate) nodes: BTreeSet<u64>,
    /// Ways between two nodes, whoever dials.
    pub(crate) ways: BTreeSet<[u64; 2]>,
}

/// One way, from end to end.
#[derive(Clone)]
struct Way {
    ends: [u64; 2],
    cut: watch::Receiver<Cut>,
    delay: Duration,
}

impl Links {
    pub(crate) fn dial(&self, from: u64) -> Dial {
        let (cut, delay) = (self.cut.subscribe(), self.delay);
        Arc::new(move |to: &RegionId, addresses: &Addresses| {
            let (ends, cut, address) = ([from, to.0], cut.clone(), addresses.rpc.clone());
            let way = Way { ends, cut, delay };
            let connector = tower::service_fn(move |_: http::Uri| {
                let (way, address) = (way.clone(), address.clone());
                async move { connect(way, &address).await.map(TokioIo::new) }
            });
            Endpoint::from_static("http://region")
                .connect_timeout(Duration::from_secs(1))
                .connect_with_connector_lazy(connector)
        })
    }
}

async fn connect(mut way: Way, address: &str) -> io::Result<DuplexStream> {
    way.open().await;
    let stream = TcpStream::connect(address).await?;
    let (near, far) = tokio::io::duplex(64 << 10);
    let ((from_far, to_far), (from_stream, to_stream)) = (split(far), split(stream));
    tokio::spawn(carry(from_far, to_stream, way.clone()));
    tokio::spawn(carry(from_stream, to_far, way));
    Ok(near)
}

async fn carry<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>, mut way: Way) {
    let delay = way.delay;
    let (depart, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(1_000);
    let reading = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if depart
                .send((Instant::now() + delay, buffer[..length].to_vec()))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = arrive.recv().await {
            tokio::time::sleep_until(at).await;
            way.open().await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

impl Way {
    /// Waits until nothing cuts it.
    async fn open(&mut self) {
        let [from, to] = self.ends;
        let open = self.cut.wait_for(|cut| {
            let is_cut = cut.ways.contains(&[from, to]) || cut.ways.contains(&[to, from]);
            !is_cut && !cut.nodes.contains(&from) && !cut.nodes.contains(&to)
        });
        if open.await.is_err() {
            // The world has ended.
            std::future::pending::<()>().await;
        }
    }
}
