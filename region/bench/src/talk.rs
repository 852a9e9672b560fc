use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_client::Transport;
use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use crate::{
    Figures, Say, Second, Server,
    device::{Device, Place, open_all},
    disk::Disk,
    figures::{float, histogram, ms},
    follower::Follower,
    people::{self, Conversation},
    server::{Metrics, Watched},
    talker::{Seen, Shared, Talker},
    times::{Shape, Times},
    usage::Usage,
    witnesses::Witnesses,
    write::fill,
};

/// Between the last handshake and the first message.
const HEAD_START: Duration = Duration::from_millis(500);
/// How long the last messages are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take each second to tell how many tasks it has.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);

/// Conversations of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of each; every one of them is a user with one device, which is connected.
    pub members: usize,
    /// How many of them.
    pub conversations: usize,
}

/// Users who talk.
#[derive(Debug, Clone)]
pub struct TalkOptions {
    /// As the figures call it.
    pub scenario: &'static str,
    /// What they are connected over.
    pub transport: Transport,
    /// Their conversations.
    pub sizes: Vec<Size>,
    /// Who has them; each user has one of them alone otherwise.
    pub friends: Option<Friends>,
    /// How many members of each send; the others listen.
    pub speakers: usize,
    /// How the rate changes. In a day users do what else users do: they announce messages and read them, look back in their histories, lose
    /// their connections and return.
    pub shape: Shape,
    /// Messages a second, all of them together; of a day, in the mean; of an overload, at its height.
    pub rate_per_s: f64,
    /// Messages that all conversations together hold already, as many each.
    pub stored: u64,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How long messages are sent before anything counts.
    pub warm_up: Duration,
    /// How long what is sent counts.
    pub measured: Duration,
}

/// Users who have many direct conversations, in place of [`TalkOptions::sizes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Friends {
    /// How many users.
    pub users: usize,
    /// How many conversations among them, as many with each as can be.
    pub pairs: usize,
}

impl TalkOptions {
    /// Messages that each conversation holds already.
    fn stored_each(&self) -> Result<u64> {
        let conversations: usize = match self.friends {
            Some(friends) => friends.pairs,
            None => self.sizes.iter().map(|size| size.conversations).sum(),
        };
        let each = self.stored / u64::try_from(conversations)?.max(1);
        if each == 0 && self.stored > 0 {
            bail!(
                "{} messages stored before are not one for each of {conversations} conversations",
                self.stored
            );
        }
        Ok(each)
    }
}

/// Users who send at fixed times, whatever becomes of it.
///
/// # Errors
/// When the conversations cannot be made, or a connection is lost.
pub async fn talk(server: &Server, options: &TalkOptions, say: Say) -> Result<Figures> {
    let mut talkers = talkers(server, options, say).await?;
    let of_talkers = talkers.iter().flat_map(|(_, talker)| &talker.conversations);
    let mut conversations: Vec<Arc<Shared>> = of_talkers.cloned().collect();
    conversations.sort_by(|a, b| a.id.cmp(&b.id));
    conversations.dedup_by(|a, b| a.id == b.id);
    let witnesses = match options.shape {
        Shape::Day => Witnesses::of(server, options.transport).await?,
        Shape::Even | Shape::Overload { .. } => None,
    };
    let count = talkers.len();
    let began = Instant::now() + HEAD_START;
    let counts = began + options.warm_up;
    let ends = counts + options.measured;
    let speakers = talkers.iter().filter(|(_, talker)| talker.due.is_some()).count();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let pause = Duration::from_secs_f64(speakers as f64 / options.rate_per_s);
    let times = Times {
        began,
        counts,
        ends,
        given_up: ends + PATIENCE,
        pause,
        shape: options.shape,
    };
    let seen = Arc::new(Seen::new());
    let mut talking = JoinSet::new();
    for (at, (device, mut talker)) in talkers.drain(..).enumerate() {
        // Spread over the pause.
        talker.even = times.pause.mul_f64(rand::random::<f64>());
        talker.due = talker.due.map(|_| times.due(talker.even));
        if talker.due.is_some() {
            for of in &talker.conversations {
                of.speaking.fetch_add(1, Ordering::Relaxed);
            }
        }
        let seen = seen.clone();
        talking.spawn(async move {
            talker
                .talk(device, times, &seen)
                .await
                .with_context(|| format!("user {at}"))
        });
    }
    let seconds = Arc::new(Mutex::new(Vec::new()));
    let disk = match options.shape {
        Shape::Overload { .. } => Some(Disk::watch()?),
        Shape::Even | Shape::Day => None,
    };
    let watched = (server.watched(), server.metrics(), disk);
    let watching = tokio::spawn(watch(watched, times, seen.clone(), seconds.clone(), say));
    let mut lost = 0;
    lost += missing_until(counts, &mut talking).await?;
    let (server_before, load_before) = (server.usage()?, Usage::of(std::process::id())?);
    let fsyncs_before = server.fsyncs().await?;
    lost += missing_until(ends, &mut talking).await?;
    // What comes later counts for latencies alone: it was not done in the time that is measured.
    let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
    let received = seen.received.load(Ordering::Relaxed);
    let (server_after, load_after) = (server.usage()?, Usage::of(std::process::id())?);
    let fsyncs = server
        .fsyncs()
        .await?
        .zip(fsyncs_before)
        .map(|(after, before)| after - before);

    while let Some(missing) = talking.join_next().await {
        lost += missing??;
    }
    if watching.is_finished() {
        // Then it has failed.
        watching.await??;
        bail!("the seconds of the run were not looked at to its end");
    }
    watching.abort();
    let mut broken_rules = seen.broken.count();
    seen.broken.shown().iter().for_each(|what| say(what));
    if let Some(witnesses) = witnesses {
        broken_rules += witnesses.judge(say).await?;
    }
    let stored = options.stored_each()?;
    let (unanswered, twice) = unanswered_and_twice(&conversations, stored);
    lost += unanswered;
    let measured = options.measured.as_secs_f64();
    let mut figures = Figures {
        scenario: options.scenario,
        transport: options.transport.name(),
        offered_per_s: Some(options.rate_per_s),
        messages_per_s: Some(float(acknowledged) / measured),
        deliveries_per_s: Some(float(received) / measured),
        connections: Some(count),
        conversations: Some(conversations.len()),
        stored: Some(stored * u64::try_from(conversations.len())?),
        refused: Some(seen.refused.load(Ordering::Relaxed)),
        refused_for_good: Some(seen.refused_for_good.load(Ordering::Relaxed)),
        lost: Some(lost),
        duplicated: Some(twice),
        broken_rules: Some(broken_rules),
        ..Figures::default()
    };
    figures.set_latencies(&seen.latencies.lock());
    let to_all = seen.to_all.lock();
    if !to_all.is_empty() {
        figures.to_all_p50_ms = Some(ms(&to_all, 0.5));
        figures.to_all_p99_ms = Some(ms(&to_all, 0.99));
    }
    figures.set_costs(acknowledged, server_after - server_before, load_after - load_before);
    figures.fsyncs_per_message = fsyncs
        .filter(|_| acknowledged > 0)
        .map(|fsyncs| float(fsyncs) / float(acknowledged));
    let seconds = std::mem::take(&mut *seconds.lock());
    let of_seconds = seconds.iter().map(|second| second.server_rss_bytes);
    figures.server_rss_bytes_max = of_seconds.chain([server_after.rss_bytes]).max();
    if let Some(recovery) = times.recovery(&seconds) {
        figures.overload_messages_per_s = Some(recovery.overload_per_s);
        figures.slow_above_ms = Some(recovery.slow_above_ms);
        figures.back_to_normal_ms = recovery.took_ms;
        figures.back_to_normal_but_disk_ms = recovery.took_but_disk_ms;
        figures.slow_seconds = Some(recovery.slow_seconds);
        figures.slow_seconds_of_disk = Some(recovery.slow_seconds_of_disk);
    }
    figures.seconds = seconds;
    Ok(figures)
}

/// Messages that nobody has answered, which may be anywhere; and seqs above what was stored before that are nobody's answer.
fn unanswered_and_twice(conversations: &[Arc<Shared>], stored_each: u64) -> (u64, u64) {
    let of_each = conversations.iter().map(|of| {
        let told = of.sent.load(Ordering::Relaxed) + stored_each;
        let twice = of.tail_seq.load(Ordering::Relaxed).saturating_sub(told);
        (of.asked.load(Ordering::Relaxed), twice)
    });
    of_each.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1))
}

/// Waits until then, or until somebody has failed. How many messages those lack who are done.
async fn missing_until(at: Instant, talking: &mut JoinSet<Result<u64>>) -> Result<u64> {
    let mut missing = 0;
    loop {
        tokio::select! {
            () = sleep_until(at) => return Ok(missing),
            Some(done) = talking.join_next() => missing += done??,
        }
    }
}

/// Tells each second what came in it.
async fn watch(
    (server, metrics, disk): (Watched, Metrics, Option<Disk>),
    times: Times,
    seen: Arc<Seen>,
    seconds: Arc<Mutex<Vec<Second>>>,
    say: Say,
) -> Result<()> {
    let mut ticks = interval_at(times.counts, Duration::from_secs(1));
    // One that is late is not followed by one in which nothing came.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut acknowledged_before, mut refused_before) = (0, 0);
    let longest_fdatasync = || disk.as_ref().map(Disk::longest).transpose();
    ticks.tick().await;
    // What was before it begins.
    longest_fdatasync()?;
    loop {
        ticks.tick().await;
        let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
        let refused = seen.refused.load(Ordering::Relaxed);
        let latest = std::mem::replace(&mut *seen.latest.lock(), histogram());
        let fdatasync = longest_fdatasync()?;
        let usage = server.usage()?;
        let at_s = times.counts.elapsed().as_secs_f64();
        let tasks = timeout(TELL_TIMEOUT, metrics.tasks()).await;
        let second = Second {
            at_s,
            acknowledged: acknowledged - acknowledged_before,
            p99_ms: (!latest.is_empty()).then(|| ms(&latest, 0.99)),
            refused: refused - refused_before,
            server_rss_bytes: usage.rss_bytes,
            server_open_files: usage.open_files,
            server_tasks: tasks.ok().and_then(Result::ok).flatten(),
            fdatasync_ms: fdatasync.map(|longest| longest.as_secs_f64() * 1_000.0),
        };
        (acknowledged_before, refused_before) = (acknowledged, refused);
        say(&format!(
            "{:>5.0} s  {:>7} messages  p99 {} ms  {} refused  server {} MiB, {} open files, {} tasks{}",
            second.at_s,
            second.acknowledged,
            second
                .p99_ms
                .map_or_else(|| "?".to_owned(), |p99_ms| format!("{p99_ms:.1}")),
            second.refused,
            second.server_rss_bytes >> 20,
            second.server_open_files,
            second
                .server_tasks
                .map_or_else(|| "?".to_owned(), |tasks| tasks.to_string()),
            second
                .fdatasync_ms
                .map_or_else(String::new, |longest| format!("  fdatasync {longest:.1} ms"))
        ));
        seconds.lock().push(second);
    }
}

/// Makes the users and their conversations, and connects them.
async fn talkers(server: &Server, options: &TalkOptions, say: Say) -> Result<Vec<(Device, Talker)>> {
    let users: usize = match options.friends {
        Some(friends) => friends.users,
        None => options.sizes.iter().map(|size| size.members * size.conversations).sum(),
    };
    let is_rate = options.rate_per_s.is_finite() && options.rate_per_s > 0.0;
    if users == 0 || options.speakers == 0 || !is_rate {
        bail!(
            "{users} users, {} of each conversation speaking, cannot send {} messages a second",
            options.speakers,
            options.rate_per_s
        );
    }
    let conversations = match options.friends {
        Some(Friends { users, pairs }) => people::friends(server, users, pairs, say).await?,
        None => {
            let sizes = options.sizes.iter();
            let sizes = sizes.flat_map(|size| std::iter::repeat_n(size.members, size.conversations));
            people::conversations(server, sizes, say).await?
        }
    };
    let stored = options.stored_each()?;
    fill(server, &conversations, stored, options.text_bytes, say).await?;
    let mut talkers: Vec<Talker> = Vec::with_capacity(users);
    let mut known: HashMap<String, usize> = HashMap::with_capacity(users);
    for (number, conversation) in conversations.into_iter().enumerate() {
        let Conversation { id, members } = conversation;
        let shared = Arc::new(Shared::new(id, members.len(), stored));
        for (at, user) in members.into_iter().enumerate() {
            let place = *known.entry(user.user_id.clone()).or_insert(talkers.len());
            if place == talkers.len() {
                talkers.push(Talker {
                    connector: server.connector(options.transport)?,
                    // Members of one conversation are at different edges.
                    url: server.url(number + at).to_owned(),
                    user,
                    conversations: Vec::new(),
                    follower: Follower::default(),
                    text_bytes: options.text_bytes,
                    due: (at < options.speakers).then(Instant::now),
                    even: Duration::ZERO,
                    number: 0,
                    first_that_counts: u64::MAX,
                    pending: BTreeMap::new(),
                });
            }
            if let Some(talker) = talkers.get_mut(place) {
                talker.follower.holds(&shared.id, stored);
                talker.conversations.push(shared.clone());
            }
        }
    }
    open_all(talkers, place_of, say).await
}

fn place_of(talker: &mut Talker) -> Place<'_> {
    Place {
        connector: &mut talker.connector,
        url: &talker.url,
        access_token: &talker.user.access_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(stored: u64) -> TalkOptions {
        TalkOptions {
            scenario: "pairs",
            transport: Transport::Quic,
            sizes: vec![Size {
                members: 2,
                conversations: 7,
            }],
            friends: None,
            speakers: 2,
            shape: Shape::Even,
            rate_per_s: 1.0,
            stored,
            text_bytes: 64,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
        }
    }

    #[test]
    fn conversations_hold_as_many_messages_each_and_one_at_least() {
        let each = |stored| pairs(stored).stored_each().map_err(|error| error.to_string());
        assert_eq!([0, 7, 20].map(each), [Ok(0), Ok(1), Ok(2)]);
        let said = "6 messages stored before are not one for each of 7 conversations";
        assert_eq!(each(6), Err(said.to_owned()));
    }

    #[test]
    fn what_nobody_has_answered_and_what_is_nobodys_answer_is_counted() {
        let of = |asked, sent, tail_seq| {
            let shared = Shared::new("a".to_owned(), 2, tail_seq);
            shared.asked.store(asked, Ordering::Relaxed);
            shared.sent.store(sent, Ordering::Relaxed);
            Arc::new(shared)
        };
        let right = of(0, 5, 15);
        assert_eq!(unanswered_and_twice(std::slice::from_ref(&right), 10), (0, 0));
        let all = [right.clone(), of(2, 5, 15), of(0, 5, 18), of(1, 0, 11), right];
        assert_eq!(unanswered_and_twice(&all, 10), (3, 4));
    }
}
