use std::time::Duration;

use antiphon_client::Transport;
use antiphon_proto::client::{Ping, client_frame::Body};
use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use tokio::time::sleep;

use crate::{
    Figures, Say, Server,
    device::Device,
    people::{self, Progress},
};

/// Handshakes under way at once.
const AT_ONCE: usize = 32;
/// Sessions of one user.
const SESSIONS_OF_EACH: usize = 100;

/// Connections that say nothing.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    /// What they are connected over.
    pub transport: Transport,
    /// How many.
    pub connections: usize,
    /// How long the server is left alone before its memory is read.
    pub settle: Duration,
}

/// Memory that a connection costs which is there and says nothing.
///
/// # Errors
/// When a connection is refused or lost.
pub async fn idle(server: &Server, options: &IdleOptions, say: Say) -> Result<Figures> {
    let users = people::register(server, options.connections.div_ceil(SESSIONS_OF_EACH), say).await?;
    let progress = Progress::new("devices connected", options.connections, say);
    let open = |at: usize| {
        let token = users[at / SESSIONS_OF_EACH].access_token.clone();
        let progress = &progress;
        async move {
            let mut connector = server.connector(options.transport);
            let opened = Device::open(&mut connector, server.url(at), &token, &[]).await;
            progress.step();
            opened
        }
    };
    // What the first connection alone costs is not each one's.
    let first = open(0).await?;
    sleep(options.settle).await;
    let before = server.usage()?;
    let opening = stream::iter(1..options.connections).map(open).buffer_unordered(AT_ONCE);
    let mut devices: Vec<Device> = opening.try_collect().await?;
    sleep(options.settle).await;
    let after = server.usage()?;
    devices.push(first);
    // All of them are there still.
    try_join_all(devices.iter_mut().map(async |device| {
        device.send(1, Body::Ping(Ping {})).await?;
        device.receive().await
    }))
    .await?;
    let added = after.rss_bytes.saturating_sub(before.rss_bytes);
    let count = u64::try_from(options.connections.saturating_sub(1).max(1))?;
    Ok(Figures {
        scenario: "idle",
        transport: options.transport.name(),
        server_rss_bytes: Some(after.rss_bytes),
        bytes_per_connection: Some(added / count),
        connections: Some(options.connections),
        ..Figures::default()
    })
}
