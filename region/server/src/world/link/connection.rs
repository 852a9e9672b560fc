//! One connection between two regions.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use super::{
    path::Path,
    pump::{Ended, Torn, pump},
};

/// The way of the connections of one link.
#[derive(Clone)]
pub(super) struct Road {
    /// For what the dialler sends.
    pub(super) out: Arc<Path>,
    /// For what it is answered.
    pub(super) back: Arc<Path>,
    /// Where the other region listens.
    pub(super) target: SocketAddr,
}

impl Road {
    /// Carries one connection until it has ended both ways, or is torn. Dropping it resets both sides.
    pub(super) async fn carry(self, dialler: TcpStream) {
        let resets = (self.out.condition().resets, self.back.condition().resets);
        tokio::select! {
            biased;
            () = self.out.reset_after(resets.0) => {}
            () = self.back.reset_after(resets.1) => {}
            _ = self.talk(dialler) => {}
        }
    }

    async fn talk(&self, mut dialler: TcpStream) -> Result<(), Torn> {
        // However this ends, a side that is closed without more ado is reset: only an end in order takes that back.
        dialler.set_zero_linger()?;
        dialler.set_nodelay(true)?;
        // A handshake has to get there and back before the first byte is sent.
        self.out.up().await;
        sleep(self.out.condition().delay()).await;
        let dialled = dial(self.target).await;
        self.back.up().await;
        sleep(self.back.condition().delay()).await;
        let mut listener = dialled?;
        let (from_dialler, to_dialler) = dialler.split();
        let (from_listener, to_listener) = listener.split();
        let ended = tokio::try_join!(
            pump(from_dialler, to_listener, &self.out),
            pump(from_listener, to_dialler, &self.back),
        )?;
        if ended == (Ended::InOrder, Ended::InOrder) {
            close(&dialler)?;
            close(&listener)?;
        }
        Ok(())
    }
}

async fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_zero_linger()?;
    socket.set_nodelay(true)?;
    socket.connect(target).await
}

/// Lets the kernel send what it still holds.
#[expect(deprecated, reason = "a linger that waits would block; none waits for nothing")]
fn close(stream: &TcpStream) -> io::Result<()> {
    stream.set_linger(None)
}
