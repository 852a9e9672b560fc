use antiphon_client::{Connector, Transport};
use anyhow::Result;
use tokio::time::Instant;

use crate::{Figures, Say, Server, Spread, delay::DelayedPath, device::Device, people};

/// Devices that come over a slow path.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// What they come over.
    pub transport: Transport,
    /// How often each is tried; half were faster than what is told.
    pub times: usize,
}

/// How long it takes to be welcomed, in round trips of the path, whose [`DelayedPath::settings`] the server has.
///
/// # Errors
/// When a connection is refused or lost.
pub async fn connect(server: &Server, path: &DelayedPath, options: &ConnectOptions, say: Say) -> Result<Figures> {
    let users = people::register(server, 1, say).await?;
    let token = &users[0].access_token;
    let (mut first, mut cold, mut resumed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.times {
        let mut connector = server.first_connector(options.transport);
        first.push(round_trips(&mut connector, path, token).await?);
        connector.forget_sessions();
        cold.push(round_trips(&mut connector, path, token).await?);
        resumed.push(round_trips(&mut connector, path, token).await?);
    }
    Ok(Figures {
        scenario: "connect",
        transport: options.transport.name(),
        round_trips_first: median(first),
        round_trips_cold: median(cold),
        round_trips_resumed: median(resumed),
        ..Figures::default()
    })
}

async fn round_trips(connector: &mut Connector, path: &DelayedPath, token: &str) -> Result<f64> {
    let (began, shaken) = (Instant::now(), path.tcp_connections());
    let device = Device::open(connector, &path.url(), token, &[]).await?;
    let took = began.elapsed();
    // The near end of the path answers TCP's own handshake, which would have gone all the way.
    let handshakes = path.tcp_connections() - shaken;
    device.close().await;
    let round_trip = path.delay().as_secs_f64() * 2.0;
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    Ok(took.as_secs_f64() / round_trip + handshakes as f64)
}

fn median(of: Vec<f64>) -> Option<f64> {
    Some(Spread::of(of)?.median)
}
