//! `antiphon bench`: a load on a server that is started for it, and what came of it.

mod table;

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use antiphon_bench::{
    AbsenceOptions, ConnectOptions, DelayedPath, Figures, Friends, HistoryOptions, IdleOptions, Server, ServerOptions,
    Shape, Size, TalkOptions, Yardstick, absence, connect, connections_of_process, devices, find_max, history, idle,
    plot_runs, talk,
};
use antiphon_client::{Codec, Transport};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::table::{medians, table};
use crate::cli::{TransportName, print};

/// For a million connections.
const OPEN_FILES: u64 = 1_048_576;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    run: RunArgs,
}

/// What every scenario takes.
#[derive(Debug, Args)]
struct RunArgs {
    /// What devices are connected over; may be repeated [default: each, one after the other]
    #[arg(long, global = true, value_enum, value_name = "NAME")]
    transport: Vec<TransportName>,
    /// How often each is run, every time with a server of its own
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// How many regions the server has; devices come to one after the other
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    regions: u16,
    /// WebSocket over TLS; the others are never without it
    #[arg(long, global = true)]
    tls: bool,
    /// How devices write frames over WebSocket; over the others it is always protobuf
    #[arg(long, global = true, value_enum, value_name = "NAME", default_value_t)]
    codec: CodecName,
    /// The first of the server's ports, 100 apart for each region
    #[arg(long, global = true, value_name = "PORT", default_value_t = 7800, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    base_port: u16,
    /// Measure also what the machine can do without a server, and say how much of that the server does
    #[arg(long, global = true)]
    yardstick: bool,
    /// Write the figures to this file, as JSON, one run a line
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them to this file, as SVG: cost and latency against size or load where there are several, or one run against time
    #[arg(long, global = true, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// How frames are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum CodecName {
    /// Protobuf
    #[default]
    Binary,
    /// Protobuf's JSON
    Json,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Binary => Self::Binary,
            CodecName::Json => Self::Json,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// Users who talk in twos, at a fixed rate
    Pairs {
        /// How many pairs; each has a conversation. Several: a run with each
        #[arg(long, value_name = "N", value_delimiter = ',', default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        pairs: Vec<u32>,
        /// Users who have them with each other, each with one device [default: two of its own for each pair]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
        users: Option<u32>,
        #[command(flatten)]
        load: Load,
    },
    /// Users who talk in twos: calm, then --rate, which is to be more than the server can, then calm again
    Overload {
        /// How many pairs; each has a conversation
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        pairs: u32,
        /// Messages a second while it is calm
        #[arg(long, value_name = "N", default_value_t = 1_000.0)]
        calm_rate: f64,
        /// Seconds of calm before and after; they count besides --seconds
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        calm: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Groups in which everybody talks, at a fixed rate
    Groups {
        /// How many groups of which size, as in 3:50,10:20,100:2 for fifty of three members, twenty of ten and two of a hundred
        #[arg(long, value_name = "MEMBERS:GROUPS", value_delimiter = ',', default_value = "3:20,10:10,100:1", value_parser = size)]
        sizes: Vec<Size>,
        #[command(flatten)]
        load: Load,
    },
    /// A day of a messenger: pairs and groups; a night and an evening; reading, looking back, losing connections and returning
    Mixed {
        /// How many conversations of which size, as in 2:200,5:40,50:2
        #[arg(long, value_name = "MEMBERS:CONVERSATIONS", value_delimiter = ',', default_value = "2:200,5:40,50:2", value_parser = size)]
        sizes: Vec<Size>,
        #[command(flatten)]
        load: Load,
    },
    /// One conversation in which one member talks and all others listen
    Broadcast {
        /// Of the conversation, the one who talks among them. Several: a run with each
        #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(2..=10_000))]
        members: Vec<u32>,
        /// Deliveries a second, all members together, in place of --rate
        #[arg(long, value_name = "N", conflicts_with = "rate")]
        deliveries: Option<f64>,
        #[command(flatten)]
        load: Load,
    },
    /// Connections that say nothing: the memory of each
    Idle {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
        connections: u32,
        /// Seconds that the server is left alone before its memory is read
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        settle: u64,
    },
    /// All devices lose their connections at once, miss something and return at once
    ReconnectStorm {
        /// How many devices, rounded up to whole groups
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        connections: u32,
        /// Devices in each group
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=9_999))]
        listeners: u32,
        #[command(flatten)]
        missed: Missed,
    },
    /// Devices return after a long absence, each to many conversations of its own
    Sync {
        /// How many devices
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        devices: u32,
        /// Conversations of each
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        conversations: u32,
        #[command(flatten)]
        missed: Missed,
    },
    /// Readers of pages of old messages, each at a random place, at a fixed rate
    History {
        /// How many; each has a conversation
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        readers: u32,
        /// Messages of each conversation
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        messages: u64,
        /// Messages of each page
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        page_len: u32,
        /// Pages a second, all readers together
        #[arg(long, value_name = "N", default_value_t = 100.0)]
        rate: f64,
        /// Bytes of each text
        #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
        text_bytes: u16,
        /// Seconds of reading
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
    },
    /// Devices of another run
    #[command(hide = true)]
    Devices,
    /// From nothing to Welcome, in round trips of a slow path
    Connect {
        /// Milliseconds that the path takes in each direction
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        delay_ms: u64,
        /// How often it is tried; half were faster than what is told
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        times: u16,
    },
}

/// What devices miss that are away.
#[derive(Debug, Clone, Copy, Args)]
struct Missed {
    /// Messages that each conversation gets meanwhile
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    missed: u64,
    /// Bytes of each text
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    text_bytes: u16,
}

/// Of scenarios in which users talk.
#[derive(Debug, Clone, Args)]
struct Load {
    /// Messages a second, all users together
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    rate: f64,
    /// Messages that all conversations together hold already. Several: a run with each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    stored: Vec<u64>,
    /// Bytes of each text
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    text_bytes: u16,
    /// Seconds of sending before anything counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up: u64,
    /// Seconds of sending that count
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Look for the highest rate that is kept, --rate first: with nothing refused or lost, and 99 of 100 messages within --p99-ms
    #[arg(long)]
    find_max: bool,
    /// Milliseconds that --find-max allows
    #[arg(long, value_name = "N", default_value_t = 10.0, requires = "find_max")]
    p99_ms: f64,
}

/// As in 10:20.
fn size(text: &str) -> Result<Size, String> {
    let parts = text.split_once(':').and_then(|(members, groups)| {
        let members = members.parse().ok().filter(|members| (2..=10_000).contains(members))?;
        let conversations = groups.parse().ok().filter(|groups| *groups > 0)?;
        Some(Size { members, conversations })
    });
    parts.ok_or_else(|| format!("{text:?} is not MEMBERS:GROUPS, with 2 to 10000 members"))
}

/// Runs a scenario over each transport, and prints what came of it. `settings` are the server's, besides those of every run.
///
/// # Errors
/// What kept it from running to its end.
pub(crate) async fn run(args: BenchArgs, settings: Vec<String>) -> Result<()> {
    let BenchArgs { scenario, run: args } = args;
    if matches!(scenario, Scenario::Devices) {
        return devices().await;
    }
    let transports: Vec<Transport> = if args.transport.is_empty() {
        vec![Transport::WebSocket, Transport::WebTransport, Transport::Quic]
    } else {
        args.transport.iter().filter_map(|name| (*name).into()).collect()
    };
    if transports.is_empty() {
        bail!("--transport auto races; a run is over one of ws, wt and quic");
    }
    if args.codec == CodecName::Json && transports.as_slice() != [Transport::WebSocket] {
        bail!("--codec json is for --transport ws; over the others frames are protobuf");
    }
    allow_open_files();
    let yardstick = match args.yardstick {
        true => Some(Yardstick::measure(scenario.text_bytes()).await?),
        false => None,
    };
    let mut all = Vec::new();
    let scenarios = scenario.each();
    for (transport, scenario) in transports
        .iter()
        .flat_map(|of| scenarios.iter().map(|each| (*of, each)))
    {
        for run in 1..=args.runs {
            let connections = scenario.connections();
            let (each, max) = (
                scenario.connections_of_process(args.regions.into()),
                connections_of_process(),
            );
            if each > max && transport != Transport::Quic {
                bail!(
                    "{connections} connections in {} region(s) are {each} of one process, which may have {max} here; raise the limit of \
                     open files (ulimit -n), or take --transport quic{}",
                    args.regions,
                    if scenario.is_of_a_crowd() {
                        ", or more --regions"
                    } else {
                        ""
                    }
                );
            }
            let server = ServerOptions {
                program: env::current_exe().context("this program's own file")?,
                base_port: args.base_port,
                regions: args.regions,
                connections,
                tls: args.tls && transport == Transport::WebSocket,
                codec: args.codec.into(),
                settings: settings.clone(),
            };
            let mut figures = run_once(scenario, server, transport).await?;
            let codec = (args.codec == CodecName::Json).then_some("json");
            figures.iter_mut().for_each(|of| of.codec = codec);
            say(&format!("{transport}, run {run} of {}: done", args.runs));
            all.extend(figures);
        }
    }
    if let Some(yardstick) = yardstick {
        all = all.into_iter().map(|figures| figures.beside(yardstick)).collect();
    }
    if let Some(path) = &args.json {
        let lines: Result<Vec<String>, _> = all.iter().map(serde_json::to_string).collect();
        fs::write(path, lines?.join("\n") + "\n").with_context(|| format!("--json {}", path.display()))?;
    }
    if let Some(path) = &args.plot {
        plot_runs(path, &all).context("--plot")?;
    }
    print(&table(&all))?;
    if args.runs > 1 {
        print(&medians(&all))?;
    }
    if let Some(yardstick) = yardstick {
        print(&format!(
            "yardstick: {:.0} echoes/s, {:.0} fdatasyncs/s, {:.0} messages/s through the codec, {:.0} through that of JSON\n",
            yardstick.echo_per_s, yardstick.fdatasync_per_s, yardstick.codec_per_s, yardstick.json_codec_per_s
        ))?;
    }
    Ok(())
}

/// As many open files as the system lets this process, and with it the server, have.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    // Root may have more than the limit that it has found.
    let more = Rlimit {
        current: Some(OPEN_FILES),
        maximum: Some(OPEN_FILES),
    };
    if limit.maximum.is_some_and(|maximum| maximum < OPEN_FILES) && setrlimit(Resource::Nofile, more).is_ok() {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(&format!("the limit of open files stays as it is: {error}"));
    }
}

impl Scenario {
    /// One of each size that was asked for.
    fn each(&self) -> Vec<Self> {
        if let Self::Pairs { pairs, users, load } = self {
            let each = |pairs: &u32| load.each().into_iter().map(|load| (*pairs, load)).collect::<Vec<_>>();
            let each = pairs.iter().flat_map(each).map(|(pairs, load)| Self::Pairs {
                pairs: vec![pairs],
                users: *users,
                load,
            });
            return each.collect();
        }
        if let Self::Broadcast {
            members,
            deliveries,
            load,
        } = self
        {
            let each = members.iter().map(|members| Self::Broadcast {
                members: vec![*members],
                deliveries: *deliveries,
                load: load.clone(),
            });
            return each.collect();
        }
        vec![self.clone()]
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Pairs { load, .. }
            | Self::Overload { load, .. }
            | Self::Groups { load, .. }
            | Self::Mixed { load, .. }
            | Self::Broadcast { load, .. } => load.text_bytes.into(),
            Self::ReconnectStorm { missed, .. } | Self::Sync { missed, .. } => missed.text_bytes.into(),
            Self::History { text_bytes, .. } => (*text_bytes).into(),
            Self::Idle { .. } | Self::Connect { .. } | Self::Devices => 64,
        }
    }

    /// Whether its devices are in as many processes as it takes, and not all in this one.
    const fn is_of_a_crowd(&self) -> bool {
        matches!(
            self,
            Self::Idle { .. } | Self::ReconnectStorm { .. } | Self::Sync { .. }
        )
    }

    /// Connections that one process has, this one or a region's.
    fn connections_of_process(&self, regions: usize) -> usize {
        match self.is_of_a_crowd() {
            true => self.connections().div_ceil(regions),
            false => self.connections(),
        }
    }

    /// Connections at once.
    fn connections(&self) -> usize {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let first = |counts: &[u32]| counts.first().map_or(0, |first| count(*first));
        match self {
            Self::Pairs { pairs, users, .. } => users.map_or(first(pairs) * 2, count),
            Self::Overload { pairs, .. } => count(*pairs) * 2,
            Self::Groups { sizes, .. } | Self::Mixed { sizes, .. } => {
                sizes.iter().map(|size| size.members * size.conversations).sum()
            }
            Self::Broadcast { members, .. } => first(members),
            Self::Idle { connections, .. } | Self::ReconnectStorm { connections, .. } => count(*connections),
            Self::Sync { devices, .. } => count(*devices),
            Self::History { readers, .. } => count(*readers),
            Self::Connect { .. } => 1,
            Self::Devices => 0,
        }
    }
}

/// The figures of one run, or with `--find-max` of one at each rate.
async fn run_once(scenario: &Scenario, server: ServerOptions, transport: Transport) -> Result<Vec<Figures>> {
    let seconds = Duration::from_secs;
    let figures = match scenario {
        Scenario::Pairs { pairs, users, load } => {
            let pairs = pairs_of(pairs.first().copied().unwrap_or_default())?;
            let mut options = load.options("pairs", transport, vec![pairs], 2);
            options.friends = users.map(usize::try_from).transpose()?.map(|users| Friends {
                users,
                pairs: pairs.conversations,
            });
            return talk_under(load, &server, options).await;
        }
        Scenario::Overload {
            pairs,
            calm_rate,
            calm,
            load,
        } => {
            let mut options = load.options("overload", transport, vec![pairs_of(*pairs)?], 2);
            let calm = seconds(*calm);
            let share = calm_rate / load.rate;
            if !(share > 0.0 && share < 1.0) {
                bail!("--calm-rate {calm_rate} is not between 0 and --rate {}", load.rate);
            }
            options.shape = Shape::Overload { calm, share };
            options.warm_up = Duration::ZERO;
            options.measured += calm * 2;
            return talk_under(load, &server, options).await;
        }
        Scenario::Groups { sizes, load } => {
            let options = load.options("groups", transport, sizes.clone(), usize::MAX);
            return talk_under(load, &server, options).await;
        }
        Scenario::Mixed { sizes, load } => {
            let mut options = load.options("mixed", transport, sizes.clone(), usize::MAX);
            options.shape = Shape::Day;
            return talk_under(load, &server, options).await;
        }
        Scenario::Broadcast {
            members,
            deliveries,
            load,
        } => {
            let members = members.first().copied().unwrap_or_default();
            let one = Size {
                members: usize::try_from(members)?,
                conversations: 1,
            };
            let mut load = load.clone();
            load.rate = deliveries.map_or(load.rate, |rate| rate / f64::from(members - 1));
            return talk_under(&load, &server, load.options("broadcast", transport, vec![one], 1)).await;
        }
        Scenario::Idle { connections, settle } => {
            let options = IdleOptions {
                transport,
                connections: usize::try_from(*connections)?,
                settle: seconds(*settle),
            };
            measure(&server, async |server| idle(server, &options, say).await).await?
        }
        Scenario::ReconnectStorm {
            connections,
            listeners,
            missed,
        } => {
            let options = AbsenceOptions {
                scenario: "reconnect-storm",
                transport,
                teams: usize::try_from(connections.div_ceil(*listeners))?,
                listeners: usize::try_from(*listeners.min(connections))?,
                conversations: 1,
                missed: missed.missed,
                text_bytes: missed.text_bytes.into(),
            };
            measure(&server, async |server| absence(server, &options, say).await).await?
        }
        Scenario::Sync {
            devices,
            conversations,
            missed,
        } => {
            let options = AbsenceOptions {
                scenario: "sync",
                transport,
                teams: usize::try_from(*devices)?,
                listeners: 1,
                conversations: usize::try_from(*conversations)?,
                missed: missed.missed,
                text_bytes: missed.text_bytes.into(),
            };
            measure(&server, async |server| absence(server, &options, say).await).await?
        }
        Scenario::History {
            readers,
            messages,
            page_len,
            rate,
            text_bytes,
            seconds: measured,
        } => {
            let options = HistoryOptions {
                transport,
                readers: usize::try_from(*readers)?,
                messages: *messages,
                page_len: *page_len,
                rate_per_s: *rate,
                text_bytes: (*text_bytes).into(),
                measured: seconds(*measured),
            };
            measure(&server, async |server| history(server, &options, say).await).await?
        }
        Scenario::Devices => bail!("`devices` has no figures of its own"),
        Scenario::Connect { delay_ms, times } => {
            let path = DelayedPath::open(server.base_port, Duration::from_millis(*delay_ms)).await?;
            let options = ConnectOptions {
                transport,
                times: (*times).into(),
            };
            let mut server = server;
            server.settings.extend(path.settings());
            measure(&server, async |server| connect(server, &path, &options, say).await).await?
        }
    };
    Ok(vec![figures])
}

fn pairs_of(count: u32) -> Result<Size> {
    Ok(Size {
        members: 2,
        conversations: usize::try_from(count)?,
    })
}

async fn measure(server: &ServerOptions, run: impl AsyncFnOnce(&Server) -> Result<Figures>) -> Result<Figures> {
    let server = Server::start(server).await?;
    let figures = run(&server).await;
    // Also after a run that failed: the next one has the same ports.
    server.stop().await?;
    figures
}

async fn talk_under(load: &Load, server: &ServerOptions, options: TalkOptions) -> Result<Vec<Figures>> {
    let at_rate = async |rate_per_s: f64| {
        let options = TalkOptions {
            rate_per_s,
            ..options.clone()
        };
        measure(server, async |server| talk(server, &options, say).await).await
    };
    if !load.find_max {
        return Ok(vec![at_rate(load.rate).await?]);
    }
    let (all, highest) = find_max(load.rate, load.p99_ms, at_rate).await?;
    let rate = highest.and_then(|at| all.get(at)?.offered_per_s);
    match rate {
        Some(rate) => say(&format!(
            "the highest rate with p99 <= {} ms: {rate:.0} messages/s",
            load.p99_ms
        )),
        None => say(&format!("no rate that was tried has p99 <= {} ms", load.p99_ms)),
    }
    Ok(all)
}

impl Load {
    /// One for each store that was asked for.
    fn each(&self) -> Vec<Self> {
        let each = self.stored.iter().map(|stored| Self {
            stored: vec![*stored],
            ..self.clone()
        });
        each.collect()
    }

    fn options(&self, scenario: &'static str, transport: Transport, sizes: Vec<Size>, speakers: usize) -> TalkOptions {
        TalkOptions {
            scenario,
            transport,
            sizes,
            friends: None,
            speakers,
            shape: Shape::Even,
            rate_per_s: self.rate,
            stored: self.stored.first().copied().unwrap_or_default(),
            text_bytes: self.text_bytes.into(),
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        }
    }
}

/// Standard output is for the figures alone.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_members_and_groups() {
        let expected = Size {
            members: 10,
            conversations: 3,
        };
        assert_eq!(size("10:3"), Ok(expected));
        for wrong in ["10", "1:3", "10:0", "10001:1", "a:b"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
