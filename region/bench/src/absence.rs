use std::{sync::Arc, time::Duration};

use antiphon_client::{Connector, Tokens, Transport};
use antiphon_proto::client::{Ping, client_frame::Body};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout_at},
};

use crate::{
    Figures, Say, Server,
    device::Device,
    figures::{float, histogram},
    follower::{Came, Follower},
    people::{self, Progress, Team},
    usage::Usage,
    write::write_to_all,
};

/// Handshakes under way at once, of those who were not away yet.
const AT_ONCE: usize = 64;
/// Until a device that has not come back counts as lost.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a device asks again for what was refused.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Devices that are away while somebody writes to them, and all come back at the same moment.
#[derive(Debug, Clone)]
pub struct AbsenceOptions {
    /// As the figures call it.
    pub scenario: &'static str,
    /// What they are connected over.
    pub transport: Transport,
    /// How many writers; each has listeners and conversations of its own.
    pub teams: usize,
    /// Listeners of each.
    pub listeners: usize,
    /// Conversations of each, among all of the team.
    pub conversations: usize,
    /// Messages that each conversation gets meanwhile.
    pub missed: u64,
    /// Bytes of each text.
    pub text_bytes: usize,
}

/// One device.
struct Listener {
    connector: Connector,
    url: String,
    user: Tokens,
    conversation_ids: Arc<[String]>,
    follower: Follower,
}

/// A device that is back.
struct Back {
    device: Device,
    /// Since the moment of return.
    whole_after: Duration,
    refused: u64,
    lost: u64,
}

/// How long it takes until everybody who returns has everything.
///
/// # Errors
/// When the teams cannot be made, or a device is not welcomed within five minutes.
pub async fn absence(server: &Server, options: &AbsenceOptions, say: Say) -> Result<Figures> {
    let teams = people::teams(server, options.teams, options.listeners, options.conversations, say).await?;
    let mut listeners = Vec::new();
    for Team {
        members,
        conversation_ids,
        ..
    } in &teams
    {
        for user in members {
            listeners.push(Listener {
                connector: server.connector(options.transport),
                url: server.url(listeners.len()).to_owned(),
                user: user.clone(),
                conversation_ids: conversation_ids.clone(),
                follower: Follower::default(),
            });
        }
    }
    let count = listeners.len();

    sleep(SETTLE).await;
    let empty = server.usage()?;
    let progress = Progress::new("devices connected", count, say);
    let progress = &progress;
    let connecting = stream::iter(listeners).map(|mut listener| async move {
        let device = Device::open(&mut listener.connector, &listener.url, &listener.user.access_token, &[]).await?;
        progress.step();
        Ok::<_, anyhow::Error>((device, listener))
    });
    let connected: Vec<(Device, Listener)> = connecting.buffer_unordered(AT_ONCE).try_collect().await?;
    sleep(SETTLE).await;
    let full = server.usage()?;

    say(&format!("{count} devices go away"));
    let listeners: Vec<Listener> = connected.into_iter().map(|(_, listener)| listener).collect();
    write_to_all(server, &teams, options.missed, options.text_bytes).await?;

    say(&format!("{count} devices come back"));
    let (server_before, load_before) = (server.usage()?, Usage::of(std::process::id())?);
    let start = Arc::new(Barrier::new(count + 1));
    let mut returning = JoinSet::new();
    for listener in listeners {
        let (start, missed) = (start.clone(), options.missed);
        returning.spawn(async move {
            start.wait().await;
            listener.come_back(missed).await
        });
    }
    start.wait().await;
    let began = Instant::now();
    let mut latencies = histogram();
    let (mut devices, mut refused, mut lost) = (Vec::new(), 0, 0);
    let progress = Progress::new("devices have everything", count, say);
    while let Some(back) = returning.join_next().await {
        let back = back??;
        latencies.saturating_record(u64::try_from(back.whole_after.as_micros())?);
        refused += back.refused;
        lost += back.lost;
        devices.push(back.device);
        progress.step();
    }
    let all_back = began.elapsed();
    let (server_used, load_used) = (
        server.usage()? - server_before,
        Usage::of(std::process::id())? - load_before,
    );
    sleep(SETTLE).await;
    // All of them are there still.
    for device in &mut devices {
        device.send(1, Body::Ping(Ping {})).await?;
        device.receive().await.context("a device that came back")?;
    }

    let messages = u64::try_from(count * options.conversations)? * options.missed;
    let mut figures = Figures {
        scenario: options.scenario,
        transport: options.transport.name(),
        deliveries_per_s: Some(float(messages - lost) / all_back.as_secs_f64()),
        all_back_ms: Some(all_back.as_secs_f64() * 1_000.0),
        connections: Some(count),
        bytes_per_connection: Some((full.rss_bytes.saturating_sub(empty.rss_bytes)) / u64::try_from(count.max(1))?),
        refused: Some(refused),
        lost: Some(lost),
        ..Figures::default()
    };
    figures.set_latencies(&latencies);
    figures.set_costs(messages, server_used, load_used);
    figures.server_rss_bytes = Some(server.usage()?.rss_bytes);
    Ok(figures)
}

impl Listener {
    /// Connects, as often as it takes, and waits for everything that was written meanwhile.
    async fn come_back(mut self, missed: u64) -> Result<Back> {
        let began = Instant::now();
        let given_up = began + PATIENCE;
        let cursors = self.follower.cursors(&self.conversation_ids);
        let token = &self.user.access_token;
        let (mut device, refused) = Device::reopen(&mut self.connector, &self.url, token, &cursors, given_up).await?;
        let mut looks = interval(LOOK_INTERVAL);
        let ids = self.conversation_ids.clone();
        let lost = |follower: &Follower| ids.iter().map(|id| follower.missing(id, missed)).sum::<u64>();
        while lost(&self.follower) > 0 {
            tokio::select! {
                frame = timeout_at(given_up, device.receive()) => {
                    let Ok(frame) = frame else { break };
                    // What else comes while somebody returns is of no interest.
                    let (Came::Messages(_) | Came::Frame(_)) = self.follower.take(&mut device, frame?).await?;
                }
                _ = looks.tick() => self.follower.fetch_again(&mut device).await?,
            }
        }
        let whole_after = began.elapsed();
        self.follower.acknowledge(&mut device).await?;
        Ok(Back {
            device,
            whole_after,
            refused,
            lost: lost(&self.follower),
        })
    }
}
