use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A network between a device and the server that can die without a word: it stops forwarding and closes nothing.
pub(crate) struct Proxy {
    port: u16,
    forwards: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let forwards = Arc::new(watch::Sender::new(true));
        let switch = forwards.clone();
        let task = tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_device, to_device) = device.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_device, to_server, switch.subscribe()));
                tokio::spawn(forward(from_server, to_device, switch.subscribe()));
            }
        });
        Self {
            port: own,
            forwards,
            task,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, and nobody is told.
    pub(crate) fn go_dead(&self) {
        self.forwards.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut forwards: watch::Receiver<bool>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        tokio::select! {
            biased;
            is_dead = dead(&mut forwards) => {
                // Both halves stay open until the proxy itself goes.
                if is_dead {
                    std::future::pending::<()>().await;
                }
                return;
            }
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if to.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// True once nothing is to pass any more; false when the proxy is gone.
async fn dead(forwards: &mut watch::Receiver<bool>) -> bool {
    forwards.wait_for(|forwards| !forwards).await.is_ok()
}
