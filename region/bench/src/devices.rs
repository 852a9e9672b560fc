use std::{
    io::{BufWriter, Write as _, stdin, stdout},
    sync::Arc,
    thread,
    time::Duration,
};

use antiphon_client::{Codec, Connector, Transport};
use antiphon_proto::client::{Ping, client_frame::Body, server_frame};
use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

use crate::{
    connectors::Connectors,
    crowd::{Back, Job, Member, Order, Report},
    device::Device,
    follower::{Came, Follower},
};

/// Until a device that has not come back counts as lost.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a device asks again for what was refused.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Of one request.
const PING: u64 = 1;
/// Reports that are not told yet.
const REPORTS_MAX: usize = 1_024;
/// Orders that a device has not followed yet.
const ORDERS_MAX: usize = 4;

/// As many devices as one process may have: reads from standard input what they are to do, and tells on standard output what they have
/// done, one line of JSON each. Ends with its input.
///
/// # Errors
/// What has happened to a device.
pub async fn devices() -> Result<()> {
    let mut orders = lines();
    let job = orders.recv().await.context("nothing to do")?;
    let job: Job = serde_json::from_str(&job)?;
    let ways = [Transport::WebSocket, Transport::WebTransport, Transport::Quic];
    let transport = ways.into_iter().find(|way| way.name() == job.transport);
    let transport = transport.with_context(|| job.transport.clone())?;
    let codec = if job.is_json { Codec::Json } else { Codec::Binary };
    let connectors = Connectors::new(job.certificate_sha256.as_deref(), codec, job.members.len());
    let handshakes = Arc::new(Semaphore::new(job.at_once));
    let (ordering, _) = broadcast::channel(ORDERS_MAX);
    let (reporting, mut reports) = mpsc::channel(REPORTS_MAX);
    let mut devices = JoinSet::new();
    for member in job.members {
        let one = One {
            connector: connectors.of(transport).context("a socket of devices")?,
            member,
            follower: Follower::default(),
            orders: ordering.subscribe(),
            reports: reporting.clone(),
        };
        devices.spawn(one.run(handshakes.clone()));
    }
    let mut out = BufWriter::new(stdout());
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return Ok(()) };
                let order: Order = serde_json::from_str(&order).context(order)?;
                ordering.send((order, Instant::now())).ok().context("all devices have ended")?;
            }
            Some(report) = reports.recv() => {
                let line = serde_json::to_string::<Report>(&report)? + "\n";
                out.write_all(line.as_bytes())?;
                if reports.is_empty() {
                    out.flush()?;
                }
            }
            Some(ended) = devices.join_next() => ended??,
        }
    }
}

/// Of standard input, read by a thread of their own.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(ORDERS_MAX);
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// One device.
struct One {
    connector: Connector,
    member: Member,
    follower: Follower,
    orders: broadcast::Receiver<(Order, Instant)>,
    reports: mpsc::Sender<Report>,
}

impl One {
    async fn run(mut self, handshakes: Arc<Semaphore>) -> Result<()> {
        let handshake = handshakes.acquire().await?;
        let token = &self.member.access_token;
        let mut device = Some(Device::open(&mut self.connector, &self.member.url, token, &[]).await?);
        drop(handshake);
        self.reports.send(Report::Connected).await?;
        loop {
            let (order, at) = match &mut device {
                Some(device) => device.stay(self.orders.recv()).await??,
                None => self.orders.recv().await?,
            };
            let report = match order {
                Order::Leave => {
                    device = None;
                    Report::Left
                }
                Order::Return { missed } => {
                    let (returned, back) = self.come_back(missed, at).await?;
                    device = Some(returned);
                    Report::Back(back)
                }
                Order::Answer => {
                    answer(device.as_mut().context("a device that is away")?).await?;
                    Report::Answered
                }
            };
            self.reports.send(report).await?;
        }
    }

    /// Connects, as often as it takes, and waits for everything that was written meanwhile.
    async fn come_back(&mut self, missed: u64, began: Instant) -> Result<(Device, Back)> {
        let given_up = began + PATIENCE;
        let ids = self.member.conversation_ids.clone();
        let cursors = self.follower.cursors(&ids);
        let (url, token) = (&self.member.url, &self.member.access_token);
        let (mut device, refused) = Device::reopen(&mut self.connector, url, token, &cursors, given_up).await?;
        // Nobody has asked for pages in this session yet.
        self.follower.reconnected();
        let (mut looks, mut pings) = (interval(LOOK_INTERVAL), device.pings());
        let lost = |follower: &Follower| ids.iter().map(|id| follower.missing(id, missed)).sum::<u64>();
        while lost(&self.follower) > 0 {
            tokio::select! {
                frame = timeout_at(given_up, device.receive()) => {
                    let Ok(frame) = frame else { break };
                    // What else comes while somebody returns is of no interest.
                    let (Came::Messages(_) | Came::Frame(_)) = self.follower.take(&mut device, frame?).await?;
                }
                _ = looks.tick() => self.follower.fetch_again(&mut device).await?,
                _ = pings.tick() => device.ping().await?,
            }
        }
        let whole_after_us = u64::try_from(began.elapsed().as_micros())?;
        self.follower.acknowledge(&mut device).await?;
        let lost = lost(&self.follower);
        let back = Back {
            whole_after_us,
            refused,
            lost,
        };
        Ok((device, back))
    }
}

async fn answer(device: &mut Device) -> Result<()> {
    device.send(PING, Body::Ping(Ping {})).await?;
    loop {
        let frame = device.receive().await.context("a device that was connected")?;
        match frame.body {
            Some(server_frame::Body::Pong(_)) if frame.id == PING.to_string() => return Ok(()),
            Some(server_frame::Body::Goaway(goaway)) => bail!("the server sent a device away: {}", goaway.reason),
            _ => {}
        }
    }
}
