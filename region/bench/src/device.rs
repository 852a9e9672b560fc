use std::{pin::pin, sync::Arc, time::Duration};

use antiphon_client::{Backoff, Connection, Connector};
use antiphon_proto::client::{ClientFrame, Cursor, Hello, Ping, ServerFrame, client_frame, server_frame::Body};
use anyhow::{Result, bail};
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
    time::{Instant, Interval, interval_at, sleep},
};

use crate::{
    Say,
    people::{DEVICE, Progress},
};

/// Handshakes under way at once.
const AT_ONCE: usize = 32;

/// How long a connection may take to its Welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// As the SDK's own.
const PAUSE_MS: (u64, u64) = (250, 30_000);

/// The edge has no room now.
#[derive(Debug, thiserror::Error)]
#[error("{code}: to be tried again after {} ms", after.as_millis())]
pub(crate) struct Later {
    pub(crate) after: Duration,
    code: String,
}

/// A session on the SDK's own connection, without what the SDK keeps for an app.
pub(crate) struct Device {
    connection: Connection,
    /// The longest that the edge bears its silence is twice this.
    heartbeat: Duration,
}

/// A request of this number; 0 asks for no answer but a refusal.
pub(crate) fn request(id: u64, body: client_frame::Body) -> ClientFrame {
    let id = if id == 0 { String::new() } else { id.to_string() };
    ClientFrame { id, body: Some(body) }
}

fn hello(access_token: &str, cursors: &[Cursor]) -> ClientFrame {
    let hello = Hello {
        access_token: access_token.to_owned(),
        device_id: DEVICE.to_owned(),
        cursors: cursors.to_vec(),
    };
    ClientFrame {
        id: "hello".to_owned(),
        body: Some(client_frame::Body::Hello(hello)),
    }
}

/// Where a device connects, and as whom.
pub(crate) struct Place<'a> {
    pub(crate) connector: &'a mut Connector,
    pub(crate) url: &'a str,
    pub(crate) access_token: &'a str,
}

/// A device for each of these; none falls silent before the last is there.
pub(crate) async fn open_all<T: Send + 'static>(
    all: Vec<T>,
    place_of: fn(&mut T) -> Place<'_>,
    say: Say,
) -> Result<Vec<(Device, T)>> {
    let progress = Arc::new(Progress::new("devices connected", all.len(), say));
    let all_there = Arc::new(Barrier::new(all.len()));
    let handshakes = Arc::new(Semaphore::new(AT_ONCE));
    let mut connecting = JoinSet::new();
    for mut one in all {
        let (progress, all_there, handshakes) = (progress.clone(), all_there.clone(), handshakes.clone());
        connecting.spawn(async move {
            let handshake = handshakes.acquire().await?;
            let place = place_of(&mut one);
            let mut device = Device::open(place.connector, place.url, place.access_token, &[]).await?;
            drop(handshake);
            progress.step();
            device.stay(all_there.wait()).await?;
            Ok::<_, anyhow::Error>((device, one))
        });
    }
    let mut connected = Vec::with_capacity(connecting.len());
    while let Some(device) = connecting.join_next().await {
        connected.push(device??);
    }
    Ok(connected)
}

impl Device {
    /// Connects and is welcomed.
    ///
    /// # Errors
    /// Why not, for people; a refusal that says when to come again is [`Later`].
    pub(crate) async fn open(
        connector: &mut Connector,
        url: &str,
        access_token: &str,
        cursors: &[Cursor],
    ) -> Result<Self> {
        let opened = connector
            .open(url, &hello(access_token, cursors), CONNECT_TIMEOUT)
            .await;
        let (connection, answer) = opened.map_err(anyhow::Error::msg)?;
        match answer.body {
            Some(Body::Welcome(welcome)) => Ok(Self {
                connection,
                heartbeat: Duration::from_millis(welcome.heartbeat_ms.max(1).into()),
            }),
            Some(Body::Error(error)) if error.retry_after_ms.is_some() => {
                let after = Duration::from_millis(error.retry_after_ms.unwrap_or_default());
                Err(Later {
                    after,
                    code: error.code,
                }
                .into())
            }
            answer => bail!("a device was not welcomed but told {answer:?}"),
        }
    }

    /// As [`Device::open`], again and again until it is welcomed or it takes too long; and how often it was told to come later.
    pub(crate) async fn reopen(
        connector: &mut Connector,
        url: &str,
        access_token: &str,
        cursors: &[Cursor],
        given_up: Instant,
    ) -> Result<(Self, u64)> {
        let mut backoff = Backoff::new(PAUSE_MS.0, PAUSE_MS.1);
        let mut refused = 0;
        loop {
            match Self::open(connector, url, access_token, cursors).await {
                Ok(device) => return Ok((device, refused)),
                Err(error) if Instant::now() < given_up => {
                    let later = error.downcast_ref::<Later>().map(|later| later.after);
                    refused += u64::from(later.is_some());
                    sleep(later.unwrap_or_default() + backoff.pause(rand::random())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request of this number; 0 asks for no answer but a refusal.
    pub(crate) async fn send(&mut self, id: u64, body: client_frame::Body) -> Result<()> {
        self.send_all(&[request(id, body)]).await
    }

    /// Sends requests, in as few writes as it takes.
    pub(crate) async fn send_all(&mut self, requests: &[ClientFrame]) -> Result<()> {
        self.connection.send_all(requests).await.map_err(anyhow::Error::msg)
    }

    /// Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<ServerFrame> {
        self.connection.receive().await.map_err(anyhow::Error::msg)
    }

    /// Does nothing but stay connected until something comes.
    pub(crate) async fn stay<T>(&mut self, until: impl Future<Output = T>) -> Result<T> {
        let mut pings = self.pings();
        let mut until = pin!(until);
        loop {
            tokio::select! {
                come = &mut until => return Ok(come),
                frame = self.receive() => if let Some(Body::Goaway(goaway)) = frame?.body {
                    bail!("the server sent a device away: {}", goaway.reason);
                },
                _ = pings.tick() => self.ping().await?,
            }
        }
    }

    /// When to [`Device::ping`]: not all at the same moment.
    pub(crate) fn pings(&self) -> Interval {
        // As often as the SDK.
        let pause = self.heartbeat / 2;
        interval_at(Instant::now() + pause.mul_f64(rand::random()), pause)
    }

    /// Says that it is there.
    pub(crate) async fn ping(&mut self) -> Result<()> {
        self.send(0, client_frame::Body::Ping(Ping {})).await
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}
