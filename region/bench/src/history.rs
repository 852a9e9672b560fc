use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_client::Transport;
use antiphon_proto::client::{Fetch, client_frame, server_frame::Body};
use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until, timeout_at},
};

use crate::{
    Figures, Say, Server,
    device::Device,
    figures::{float, histogram},
    people::{self, Team},
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
    /// For how long.
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
    write_to_all(server, &teams, options.messages, options.text_bytes).await?;
    let mut reading = JoinSet::new();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let pause = Duration::from_secs_f64(teams.len() as f64 / options.rate_per_s);
    let began = Instant::now();
    // Pages that came before the last of them was due.
    let in_time = Arc::new(AtomicU64::new(0));
    let (server_before, load_before) = (server.usage()?, Usage::of(std::process::id())?);
    for (
        at,
        Team {
            members,
            conversation_ids,
            ..
        },
    ) in teams.iter().enumerate()
    {
        let (Some(user), Some(conversation_id)) = (members.first(), conversation_ids.first()) else {
            bail!("a reader without a conversation");
        };
        let mut connector = server.connector(options.transport)?;
        let device = Device::open(&mut connector, server.url(at), &user.access_token, &[]).await?;
        let (options, conversation_id, in_time) = (options.clone(), conversation_id.clone(), in_time.clone());
        reading.spawn(async move { read(device, conversation_id, &options, pause, &in_time).await });
    }
    let mut latencies = histogram();
    let mut refused = 0;
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            read = reading.join_next() => {
                let Some(read) = read else { break };
                let (of_reader, refused_of_reader) = read??;
                latencies.add(of_reader)?;
                refused += refused_of_reader;
            }
            _ = ticks.tick() => {
                let pages = in_time.load(Ordering::Relaxed);
                say(&format!("{:>5.0} s  {pages:>7} pages", began.elapsed().as_secs_f64()));
            }
        }
    }
    let (server_used, load_used) = (
        server.usage()? - server_before,
        Usage::of(std::process::id())? - load_before,
    );
    let pages = latencies.len();
    let mut figures = Figures {
        scenario: "history",
        transport: options.transport.name(),
        offered_per_s: Some(options.rate_per_s),
        pages_per_s: Some(float(in_time.load(Ordering::Relaxed)) / options.measured.as_secs_f64()),
        connections: Some(options.readers),
        refused: Some(refused),
        ..Figures::default()
    };
    figures.set_latencies(&latencies);
    figures.set_costs(pages * u64::from(options.page_len), server_used, load_used);
    figures.written_bytes_per_message = None;
    Ok(figures)
}

/// One reader: how long each page took, and how many were refused.
async fn read(
    mut device: Device,
    conversation_id: String,
    options: &HistoryOptions,
    pause: Duration,
    in_time: &AtomicU64,
) -> Result<(Histogram<u64>, u64)> {
    let (mut latencies, mut refused) = (histogram(), 0);
    let ends = Instant::now() + options.measured;
    let mut due = Instant::now() + pause.mul_f64(rand::random());
    // By the request's number: when it was due.
    let mut asked: HashMap<u64, Instant> = HashMap::new();
    let mut number = 0;
    while due < ends || !asked.is_empty() {
        tokio::select! {
            frame = timeout_at(ends + PATIENCE, device.receive()) => {
                let Ok(frame) = frame else { bail!("{} pages did not come", asked.len()) };
                let frame = frame?;
                let Some(due) = frame.id.parse().ok().and_then(|number: u64| asked.remove(&number)) else { continue };
                match frame.body {
                    Some(Body::Page(page)) if !page.messages.is_empty() => {
                        latencies.saturating_record(u64::try_from(due.elapsed().as_micros())?);
                        in_time.fetch_add(u64::from(Instant::now() < ends), Ordering::Relaxed);
                    }
                    Some(Body::Error(_)) => refused += 1,
                    other => bail!("not a page of a full history but {other:?}"),
                }
            }
            () = sleep_until(due), if due < ends => {
                let fetch = Fetch {
                    conversation_id: conversation_id.clone(),
                    after_seq: None,
                    before_seq: Some(rand::random_range(2..=options.messages + 1)),
                    limit: options.page_len,
                };
                number += 1;
                device.send(number, client_frame::Body::Fetch(fetch)).await?;
                asked.insert(number, due);
                due += pause;
            }
        }
    }
    device.close().await;
    Ok((latencies, refused))
}
