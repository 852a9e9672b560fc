use std::{sync::Arc, time::Duration};

use antiphon_client::{Account, Tokens, Transport};
use antiphon_proto::client::{Ack, Message, Send, client_frame, server_frame::Body};
use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Figures, Server,
    device::{Device, connector},
    people,
    usage::Usage,
};

/// Conversations that are begun, and handshakes that are under way, at once.
const AT_ONCE: usize = 16;
/// As the SDK gathers them.
const ACK_INTERVAL: Duration = Duration::from_millis(200);
/// Between the last handshake and the first message.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long the last messages are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest latency that is told from a longer one.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Users who talk in twos.
#[derive(Debug, Clone)]
pub struct PairsOptions {
    /// What they are connected over.
    pub transport: Transport,
    /// How many pairs; each has a conversation.
    pub pairs: usize,
    /// Messages a second, all of them together.
    pub rate_per_s: f64,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How long messages are sent before anything counts.
    pub warm_up: Duration,
    /// How long what is sent counts.
    pub measured: Duration,
}

/// When what happens.
#[derive(Debug, Clone, Copy)]
struct Times {
    began: Instant,
    counts: Instant,
    ends: Instant,
    given_up: Instant,
    /// Between two messages of one user.
    pause: Duration,
}

/// One user of a pair.
struct Talker {
    device: Device,
    user_id: String,
    conversation_id: String,
    text_bytes: usize,
    /// When its next message is due.
    due: Instant,
}

/// What one user has seen of the messages that count.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    sent: u64,
    acknowledged: u64,
    refused: u64,
    received: u64,
}

/// Pairs of users who send at fixed times, whatever becomes of it.
///
/// # Errors
/// When the pairs cannot be made, or a connection is lost.
pub async fn pairs(server: &Server, options: &PairsOptions) -> Result<Figures> {
    let talkers = talkers(server, options).await?;
    let count = talkers.len();
    let began = Instant::now() + HEAD_START;
    let counts = began + options.warm_up;
    let ends = counts + options.measured;
    let times = Times {
        began,
        counts,
        ends,
        given_up: ends + PATIENCE,
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        pause: Duration::from_secs_f64(count as f64 / options.rate_per_s),
    };
    let latencies = Arc::new(Mutex::new(Histogram::<u64>::new_with_max(LATENCY_MAX_US, 3)?));
    let mut talking = JoinSet::new();
    for (at, mut talker) in talkers.into_iter().enumerate() {
        // Spread over the pause.
        talker.due = began + times.pause.mul_f64(rand::random::<f64>());
        let latencies = latencies.clone();
        talking.spawn(async move {
            talker
                .talk(times, &latencies)
                .await
                .with_context(|| format!("user {at}"))
        });
    }
    let load = || Usage::of(std::process::id());
    sleep_until(counts).await;
    let (server_before, load_before) = (server.usage()?, load()?);
    sleep_until(ends).await;
    let (server_after, load_after) = (server.usage()?, load()?);

    let mut all = Seen::default();
    while let Some(seen) = talking.join_next().await {
        let seen = seen??;
        all.sent += seen.sent;
        all.acknowledged += seen.acknowledged;
        all.refused += seen.refused;
        all.received += seen.received;
    }
    let latencies = latencies.lock();
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^52")]
    let ms = |quantile| Some(latencies.value_at_quantile(quantile) as f64 / 1_000.0);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let acknowledged = all.acknowledged as f64;
    let each_us = |after: Usage, before: Usage| {
        (all.acknowledged > 0).then(|| (after.cpu - before.cpu).as_secs_f64() * 1_000_000.0 / acknowledged)
    };
    Ok(Figures {
        scenario: "pairs",
        transport: options.transport.name(),
        messages_per_s: Some(acknowledged / options.measured.as_secs_f64()),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        server_cpu_us_per_message: each_us(server_after, server_before),
        load_cpu_us_per_message: each_us(load_after, load_before),
        server_rss_bytes: Some(server_after.rss_bytes),
        connections: Some(count),
        refused: Some(all.refused),
        lost: Some(all.sent.saturating_sub(all.refused + all.received)),
        ..Figures::default()
    })
}

/// Makes the users and their conversations, and connects them.
async fn talkers(server: &Server, options: &PairsOptions) -> Result<Vec<Talker>> {
    let is_rate = options.rate_per_s.is_finite() && options.rate_per_s > 0.0;
    if options.pairs == 0 || !is_rate {
        bail!(
            "{} pairs cannot send {} messages a second",
            options.pairs,
            options.rate_per_s
        );
    }
    let url = server.url();
    let users = people::register(&url, options.pairs * 2).await?;
    let (url, account) = (&url, &Account::new(&url));
    let making = stream::iter(users.chunks_exact(2)).map(|pair| async move {
        let opened = account.open_direct(&pair[0].access_token, &pair[1].user_id).await;
        let conversation_id = opened.context("a conversation cannot be begun")?;
        let talker = async |user: &Tokens| {
            Ok::<_, anyhow::Error>(Talker {
                device: Device::open(&mut connector(options.transport), url, &user.access_token).await?,
                user_id: user.user_id.clone(),
                conversation_id: conversation_id.clone(),
                text_bytes: options.text_bytes,
                due: Instant::now(),
            })
        };
        Ok::<_, anyhow::Error>([talker(&pair[0]).await?, talker(&pair[1]).await?])
    });
    let made: Vec<[Talker; 2]> = making.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(made.into_iter().flatten().collect())
}

impl Talker {
    /// Sends what is due and takes what comes, until everything that counts is answered and nothing more comes, or it takes too long.
    async fn talk(mut self, times: Times, latencies: &Mutex<Histogram<u64>>) -> Result<Seen> {
        let mut seen = Seen::default();
        // Of its only conversation.
        let (mut delivered_seq, mut acked_seq) = (0, 0);
        let mut acks = interval(ACK_INTERVAL);
        acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The number of a message is its request's id.
        let mut number = 0_u64;
        let mut first_that_counts = u64::MAX;
        // Both users of a pair send as often as each other, give or take one.
        let is_done = |seen: &Seen, quiet_since: Instant| {
            seen.acknowledged + seen.refused >= seen.sent && quiet_since.elapsed() > ACK_INTERVAL * 5
        };
        let mut last_came = Instant::now();
        loop {
            let now = Instant::now();
            if now >= times.given_up || (now >= times.ends && is_done(&seen, last_came)) {
                self.device.close().await;
                return Ok(seen);
            }
            tokio::select! {
                frame = self.device.receive() => {
                    let frame = frame?;
                    last_came = Instant::now();
                    let counts = || frame.id.parse::<u64>().is_ok_and(|id| id >= first_that_counts);
                    match &frame.body {
                        Some(Body::Sent(_)) if counts() => seen.acknowledged += 1,
                        Some(Body::Error(_)) if counts() => seen.refused += 1,
                        Some(Body::Error(error)) if frame.id.is_empty() => bail!("the server said {error:?}"),
                        Some(Body::Message(message)) if message.sender_id != self.user_id => {
                            delivered_seq = message.seq;
                            if let Some(latency) = latency(message, times, last_came) {
                                seen.received += 1;
                                latencies.lock().saturating_record(latency);
                            }
                        }
                        Some(Body::Goaway(goaway)) => bail!("the server sent the device away: {}", goaway.reason),
                        _ => {}
                    }
                }
                () = sleep_until(self.due), if self.due < times.ends => {
                    number += 1;
                    if self.due >= times.counts {
                        first_that_counts = first_that_counts.min(number);
                        seen.sent += 1;
                    }
                    let send = self.message(number, times.began);
                    self.device.send(number, client_frame::Body::Send(send)).await?;
                    self.due += times.pause;
                }
                _ = acks.tick() => if delivered_seq > acked_seq {
                    acked_seq = delivered_seq;
                    let ack = Ack { conversation_id: self.conversation_id.clone(), delivered_seq };
                    self.device.send(0, client_frame::Body::Ack(ack)).await?;
                }
            }
        }
    }

    /// A message that says when it was due, in microseconds after the run began.
    fn message(&self, number: u64, began: Instant) -> Send {
        let due_us = self.due.saturating_duration_since(began).as_micros();
        Send {
            conversation_id: self.conversation_id.clone(),
            client_msg_id: format!("{number}"),
            text: format!("{due_us:<width$}", width = self.text_bytes),
        }
    }
}

/// Microseconds from when a message was due, if it counts.
fn latency(message: &Message, times: Times, now: Instant) -> Option<u64> {
    let due_us = message.text.trim_end().parse().ok()?;
    let due = times.began + Duration::from_micros(due_us);
    let counts = due >= times.counts && due < times.ends;
    counts.then(|| u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX))
}
