use std::time::Duration;

use antiphon_client::Transport;
use anyhow::Result;
use tokio::time::sleep;

use crate::{
    Figures, Say, Server,
    crowd::{Crowd, Member},
    device::Device,
    people,
};

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

/// Memory that a connection costs which is there and says nothing but that it is.
///
/// # Errors
/// When a connection is refused or lost.
pub async fn idle(server: &Server, options: &IdleOptions, say: Say) -> Result<Figures> {
    let users = people::register(server, options.connections.div_ceil(SESSIONS_OF_EACH), say).await?;
    let member = |at: usize| Member {
        url: server.url(at).to_owned(),
        access_token: users[at / SESSIONS_OF_EACH].access_token.clone(),
        conversation_ids: [].into(),
    };
    let members: Vec<Member> = (0..options.connections).map(member).collect();
    // What the first connection alone costs is not each one's.
    if let Some(first) = members.first() {
        let mut connector = server.connector(options.transport)?;
        let device = Device::open(&mut connector, &first.url, &first.access_token, &[]).await?;
        device.close().await;
    }
    sleep(options.settle).await;
    let before = server.usage()?;
    let mut crowd = Crowd::connect(server, options.transport, &members, say).await?;
    sleep(options.settle).await;
    let after = server.usage()?;
    crowd.answer().await?;
    let added = after.rss_bytes.saturating_sub(before.rss_bytes);
    Ok(Figures {
        scenario: "idle",
        transport: options.transport.name(),
        server_rss_bytes: Some(after.rss_bytes),
        bytes_per_connection: Some(added / u64::try_from(options.connections.max(1))?),
        connections: Some(options.connections),
        ..Figures::default()
    })
}
