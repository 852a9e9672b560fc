//! Where a region dials to reach another one.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{LinkState, connection::Road};
use crate::edge::listen_at;

/// Connections that the kernel makes while this process accepts none, as over a blackhole; further ones hang.
const BACKLOG: u32 = 128;
/// Connections of one link.
const CONNECTIONS_MAX: usize = 1_024;
/// Between two tries to listen again, or to accept when the process has too many files open.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Takes the port of a link.
///
/// # Errors
/// Those of the system, with the address named.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen_at(address, BACKLOG).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("port {} of {}: {error}", address.port(), address.ip()),
        )
    })
}

/// Accepts while both ways are up, leaves diallers waiting over a blackhole and refuses them over a reset link.
pub(super) async fn serve(listener: TcpListener, address: SocketAddr, road: Road, stop: CancellationToken) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let (mut out, mut back) = (road.out.watch(), road.back.watch());
    loop {
        let states = [
            out.borrow_and_update().settings.state,
            back.borrow_and_update().settings.state,
        ];
        let refuses = states.contains(&LinkState::Reset);
        let accepts = states == [LinkState::Up; 2] && connections.len() < CONNECTIONS_MAX;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = bind(address)
                .inspect_err(|error| tracing::warn!(%error, "a link that was reset cannot listen again yet"))
                .ok();
        }
        road.out.set_connections(connections.len());
        tokio::select! {
            () = stop.cancelled() => break,
            _ = out.changed() => {}
            _ = back.changed() => {}
            Some(_) = connections.join_next() => {}
            () = sleep(TRY_AGAIN), if listener.is_none() && !refuses => {}
            dialler = accept(listener.as_ref()), if accepts => match dialler {
                Ok(dialler) => {
                    connections.spawn(road.clone().carry(dialler));
                }
                Err(error) => {
                    tracing::warn!(%error, "a link cannot accept");
                    sleep(TRY_AGAIN).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(dialler, _)| dialler),
        None => std::future::pending().await,
    }
}
