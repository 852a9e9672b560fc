use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_client::{Connector, Transport};
use antiphon_proto::client::{Fetch, client_frame, server_frame::Body};
use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until, timeout_at},
};

use crate::{
    Figures, Say, Server,
    device::{Device, Place, open_all},
    figures::{float, histogram},
    people,
    usage::Usage,
    write::write_to_all,
};

/// How long the last pages are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Readers of old messages.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// What they are connected over.
    pub transport: Transport,
    /// How many; each has a conversation.
    pub readers: usize,
    /// Messages of each conversation.
    pub messages: u64,
    /// Messages of each page.
    pub page_len: u32,
    /// Pages a second, all of them together.
    pub rate_per_s: f64,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How long pages are read before anything counts.
    pub warm_up: Duration,
    /// How long what is read counts.
    pub measured: Duration,
}

/// Pages of histories at fixed times, each at a random place.
///
/// # Errors
/// When the histories cannot be written, or a connection is lost.
pub async fn history(server: &Server, options: &HistoryOptions, say: Say) -> Result<Figures> {
    if options.readers == 0 || options.messages == 0 || !(options.rate_per_s.is_finite() && options.rate_per_s > 0.0) {
        bail!(
            "{} readers cannot read {} pages a second",
            options.readers,
            options.rate_per_s
        );
    }
    let teams = people::teams(server, options.readers, 1, 1, say).await?;
    say(&format!(
        "writing {} messages to each of {} conversations",
        options.messages,
        teams.len()
    ));
    write_to_all(server, &teams, 0..options.messages, options.text_bytes).await?;
    let mut readers = Vec::with_capacity(teams.len());
    for (at, team) in teams.iter().enumerate() {
        let (Some(user), Some(conversation_id)) = (team.members.first(), team.conversation_ids.first()) else {
            bail!("a reader without a conversation");
        };
        readers.push(Reader {
            connector: server.connector(options.transport)?,
            url: server.url(at).to_owned(),
            access_token: user.access_token.clone(),
            conversation_id: conversation_id.clone(),
        });
    }
    let readers = open_all(readers, Reader::place, say).await?;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let pause = Duration::from_secs_f64(teams.len() as f64 / options.rate_per_s);
    let began = Instant::now();
    let counts = began + options.warm_up;
    let window = Window {
        counts,
        ends: counts + options.measured,
        pause,
        in_time: Arc::default(),
        messages_in_time: Arc::default(),
    };
    let mut reading = JoinSet::new();
    for (device, reader) in readers {
        let (options, window) = (options.clone(), window.clone());
        reading.spawn(async move { reader.read(device, &options, &window).await });
    }
    let mut read = (histogram(), 0);
    until(window.counts, &mut reading, &mut read, || {
        say(&format!("{:>5.0} s  warming up", began.elapsed().as_secs_f64()));
    })
    .await?;
    let (server_before, load_before) = (server.usage()?, Usage::of(std::process::id())?);
    until(window.ends, &mut reading, &mut read, || {
        let pages = window.in_time.load(Ordering::Relaxed);
        say(&format!("{:>5.0} s  {pages:>7} pages", counts.elapsed().as_secs_f64()));
    })
    .await?;
    // What comes later counts for latencies alone.
    let pages = window.in_time.load(Ordering::Relaxed);
    let messages = window.messages_in_time.load(Ordering::Relaxed);
    let (server_after, load_after) = (server.usage()?, Usage::of(std::process::id())?);
    while let Some(done) = reading.join_next().await {
        add(&mut read, done??)?;
    }
    let (latencies, refused) = read;
    let measured = options.measured.as_secs_f64();
    let mut figures = Figures {
        scenario: "history",
        transport: options.transport.name(),
        offered_per_s: Some(options.rate_per_s),
        pages_per_s: Some(float(pages) / measured),
        deliveries_per_s: Some(float(messages) / measured),
        connections: Some(options.readers),
        refused: Some(refused),
        ..Figures::default()
    };
    figures.set_latencies(&latencies);
    figures.set_costs(messages, server_after - server_before, load_after - load_before);
    figures.written_bytes_per_message = None;
    Ok(figures)
}

/// One of them.
struct Reader {
    connector: Connector,
    url: String,
    access_token: String,
    conversation_id: String,
}

/// When readers ask, and what counts.
#[derive(Debug, Clone)]
struct Window {
    counts: Instant,
    ends: Instant,
    /// Between two pages of one reader.
    pause: Duration,
    /// Pages that came between the two, and the messages in them.
    in_time: Arc<AtomicU64>,
    messages_in_time: Arc<AtomicU64>,
}

/// How long pages took, and how many were refused.
type Read = (Histogram<u64>, u64);

fn add(all: &mut Read, (latencies, refused): Read) -> Result<()> {
    all.0.add(latencies)?;
    all.1 += refused;
    Ok(())
}

/// Waits until then, or until a reader has failed; speaks each second.
async fn until(at: Instant, reading: &mut JoinSet<Result<Read>>, all: &mut Read, speak: impl Fn()) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = sleep_until(at) => return Ok(()),
            Some(done) = reading.join_next() => add(all, done??)?,
            _ = ticks.tick() => speak(),
        }
    }
}

impl Reader {
    fn place(&mut self) -> Place<'_> {
        Place {
            connector: &mut self.connector,
            url: &self.url,
            access_token: &self.access_token,
        }
    }

    async fn read(self, mut device: Device, options: &HistoryOptions, window: &Window) -> Result<Read> {
        let (mut latencies, mut refused) = (histogram(), 0);
        let Window { counts, ends, .. } = *window;
        // Spread over the pause.
        let mut due = Instant::now() + window.pause.mul_f64(rand::random());
        // By the request's number: when it was due.
        let mut asked: HashMap<u64, Instant> = HashMap::new();
        let mut number = 0;
        let mut pings = device.pings();
        while due < ends || !asked.is_empty() {
            tokio::select! {
                frame = timeout_at(ends + PATIENCE, device.receive()) => {
                    let Ok(frame) = frame else { bail!("{} pages did not come", asked.len()) };
                    let frame = frame?;
                    let Some(due) = frame.id.parse().ok().and_then(|number: u64| asked.remove(&number)) else { continue };
                    match frame.body {
                        Some(Body::Page(page)) if !page.messages.is_empty() => {
                            if due >= counts {
                                latencies.saturating_record(u64::try_from(due.elapsed().as_micros())?);
                            }
                            if (counts..ends).contains(&Instant::now()) {
                                let messages = u64::try_from(page.messages.len())?;
                                window.in_time.fetch_add(1, Ordering::Relaxed);
                                window.messages_in_time.fetch_add(messages, Ordering::Relaxed);
                            }
                        }
                        Some(Body::Error(_)) => refused += u64::from(due >= counts),
                        other => bail!("not a page of a full history but {other:?}"),
                    }
                }
                _ = pings.tick() => device.ping().await?,
                () = sleep_until(due), if due < ends => {
                    let fetch = Fetch {
                        conversation_id: self.conversation_id.clone(),
                        after_seq: None,
                        before_seq: Some(rand::random_range(2..=options.messages + 1)),
                        limit: options.page_len,
                    };
                    number += 1;
                    device.send(number, client_frame::Body::Fetch(fetch)).await?;
                    asked.insert(number, due);
                    due += window.pause;
                }
            }
        }
        device.close().await;
        Ok((latencies, refused))
    }
}
