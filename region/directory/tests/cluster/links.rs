use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use antiphon_directory::{
    Dial,
    domain::{Addresses, RegionId},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, split},
    net::TcpStream,
    sync::watch,
};
use tonic::transport::Endpoint;

/// The ways between regions, without TLS, which can be cut.
#[derive(Default)]
pub(crate) struct Links {
    /// Regions that nothing gets to or from.
    pub(crate) cut: watch::Sender<BTreeSet<u64>>,
}

impl Links {
    pub(crate) fn dial(&self, from: u64) -> Dial {
        let cut = self.cut.subscribe();
        Arc::new(move |to: &RegionId, addresses: &Addresses| {
            let (cut, ends, address) = (cut.clone(), [from, to.0], addresses.rpc.clone());
            let connector = tower::service_fn(move |_: http::Uri| {
                let (cut, address) = (cut.clone(), address.clone());
                async move { connect(cut, ends, &address).await.map(TokioIo::new) }
            });
            Endpoint::from_static("http://region")
                .connect_timeout(Duration::from_secs(1))
                .connect_with_connector_lazy(connector)
        })
    }
}

async fn connect(mut cut: watch::Receiver<BTreeSet<u64>>, ends: [u64; 2], address: &str) -> io::Result<DuplexStream> {
    open(&mut cut, ends).await;
    let stream = TcpStream::connect(address).await?;
    let (near, far) = tokio::io::duplex(64 << 10);
    let ((from_far, to_far), (from_stream, to_stream)) = (split(far), split(stream));
    tokio::spawn(carry(from_far, to_stream, cut.clone(), ends));
    tokio::spawn(carry(from_stream, to_far, cut, ends));
    Ok(near)
}

async fn carry<R, W>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    mut cut: watch::Receiver<BTreeSet<u64>>,
    ends: [u64; 2],
) where
    R: tokio::io::AsyncRead,
    W: tokio::io::AsyncWrite,
{
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        open(&mut cut, ends).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits until the way is open.
async fn open(cut: &mut watch::Receiver<BTreeSet<u64>>, ends: [u64; 2]) {
    if cut
        .wait_for(|cut| ends.iter().all(|end| !cut.contains(end)))
        .await
        .is_err()
    {
        // The world has ended.
        std::future::pending::<()>().await;
    }
}
