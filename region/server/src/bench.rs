//! `antiphon bench`: a load on a server that is started for it, and what came of it.

mod args;
mod table;

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_bench::{
    AbsenceOptions, ConnectOptions, DelayedPath, Figures, Friends, Highest, HistoryOptions, IdleOptions, Server,
    ServerOptions, Shape, Size, TalkOptions, Yardstick, absence, connect, connections_of_process, devices, find_max,
    history, idle, plot_runs, talk,
};
use antiphon_client::Transport;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use self::args::BenchArgs;
use self::{
    args::{CodecName, Load, RunArgs, Scenario},
    table::{Search, highest, medians, table},
};
use crate::cli::print;

/// A day of a messenger, in ten minutes.
const DAY: Duration = Duration::from_secs(600);
/// For a million connections.
const OPEN_FILES: u64 = 1_048_576;

/// Runs a scenario over each transport, and prints what came of it. `config` and `settings` are the server's; those of every run come first.
///
/// # Errors
/// What kept it from running to its end.
pub(crate) async fn run(args: BenchArgs, config: Option<PathBuf>, settings: Vec<String>) -> Result<()> {
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
    let load = scenario.load();
    let p99_ms = load.as_ref().filter(|load| load.find_max).map(|load| load.p99_ms);
    if p99_ms.is_some() && scenario.is_uneven() {
        bail!("--find-max is for a rate that stays the same");
    }
    if load.is_none() && args.plot.is_some() {
        bail!("--plot draws scenarios in which users talk: pairs, groups, broadcast, mixed and overload");
    }
    if args.tls && matches!(scenario, Scenario::Connect { .. }) {
        bail!("`connect` is without --tls: its path is HTTP alone");
    }
    allow_open_files();
    let yardstick = match args.yardstick {
        true => Some(Yardstick::measure(scenario.text_bytes(), args.codec.into()).await?),
        false => None,
    };
    let mut runs = Runs::default();
    let ended = runs
        .run(&scenario, &args, &transports, (config.as_deref(), &settings))
        .await;
    let judged = judge(&runs.all, p99_ms.is_some());
    // Also what was measured before something failed.
    if !runs.all.is_empty() {
        runs.tell(&args, p99_ms, yardstick)?;
    }
    ended?;
    judged
}

/// Whether everything is there once and in order. A search goes on until messages may be lost.
fn judge(all: &[Figures], is_search: bool) -> Result<()> {
    let broken: usize = all.iter().filter_map(|of| of.broken_rules).sum();
    let missing = |of: &Figures| of.lost.unwrap_or_default() + of.duplicated.unwrap_or_default();
    let wrong: u64 = all.iter().filter(|_| !is_search).map(missing).sum();
    if broken > 0 || wrong > 0 {
        bail!("{broken} rules were broken, {wrong} messages were lost or stored twice");
    }
    Ok(())
}

/// What has been measured so far.
#[derive(Default)]
struct Runs {
    all: Vec<Figures>,
    /// In the order in which they were made.
    searches: Vec<Search>,
}

impl Runs {
    async fn run(
        &mut self,
        scenario: &Scenario,
        args: &RunArgs,
        transports: &[Transport],
        (config, settings): (Option<&Path>, &[String]),
    ) -> Result<()> {
        let scenarios = scenario.each();
        for (transport, (load, scenario)) in transports
            .iter()
            .flat_map(|of| scenarios.iter().enumerate().map(|each| (*of, each)))
        {
            check_connections(scenario, args, transport)?;
            for run in 1..=args.runs {
                let server = ServerOptions {
                    program: env::current_exe().context("this program's own file")?,
                    base_port: args.base_port,
                    regions: args.regions,
                    connections: scenario.connections(),
                    tls: args.tls && transport == Transport::WebSocket,
                    codec: args.codec.into(),
                    config: config.map(Path::to_owned),
                    settings: settings.to_vec(),
                };
                let mut of_run = run_once(scenario, server, transport).await?;
                for figures in &mut of_run.all {
                    figures.run = (args.runs > 1).then_some(run);
                    figures.codec = (args.codec == CodecName::Json).then_some("json");
                }
                self.all.extend(of_run.all);
                if let Some(error) = of_run.failed {
                    return Err(error);
                }
                let rate = of_run.rate;
                self.searches.push(Search { transport, load, rate });
                say(&format!("{transport}, run {run} of {}: done", args.runs));
            }
        }
        Ok(())
    }

    /// `p99_ms`: of `--find-max`.
    fn tell(self, args: &RunArgs, p99_ms: Option<f64>, yardstick: Option<Yardstick>) -> Result<()> {
        let mut all = self.all;
        if let Some(yardstick) = yardstick {
            all = all.into_iter().map(|figures| figures.beside(yardstick)).collect();
        }
        print(&table(&all))?;
        match p99_ms {
            Some(p99_ms) => print(&highest(&self.searches, p99_ms))?,
            None if args.runs > 1 => print(&medians(&all))?,
            None => {}
        }
        if let Some(yardstick) = yardstick {
            print(&format!(
                "yardstick: {:.0} echoes/s, {:.0} fdatasyncs/s, {:.0} messages/s through the codec, {:.0} through that of JSON\n",
                yardstick.echo_per_s, yardstick.fdatasync_per_s, yardstick.codec_per_s, yardstick.json_codec_per_s
            ))?;
        }
        // After what was measured is told: a file that cannot be written loses nothing.
        if let Some(path) = &args.json {
            let lines: Result<Vec<String>, _> = all.iter().map(serde_json::to_string).collect();
            fs::write(path, lines?.join("\n") + "\n").with_context(|| format!("--json {}", path.display()))?;
        }
        if let Some(path) = &args.plot {
            plot_runs(path, &all).context("--plot")?;
        }
        Ok(())
    }
}

/// Whether the system lets each process have the connections that it is to have.
fn check_connections(scenario: &Scenario, args: &RunArgs, transport: Transport) -> Result<()> {
    let each = scenario.connections_of_process(args.regions.into());
    let max = connections_of_process();
    if each <= max || transport == Transport::Quic {
        return Ok(());
    }
    bail!(
        "{} connections in {} region(s) are {each} of one process, which may have {max} here; raise the limit of open files (ulimit -n), or \
         take --transport quic{}",
        scenario.connections(),
        args.regions,
        if scenario.is_of_a_crowd() {
            ", or more --regions"
        } else {
            ""
        }
    );
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

/// The figures of one run, or with `--find-max` of one at each rate, and which is the highest.
async fn run_once(scenario: &Scenario, server: ServerOptions, transport: Transport) -> Result<Highest> {
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
            if load.seconds.is_none() {
                options.measured = DAY;
            }
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
                times: missed.times,
                settle: seconds(missed.settle),
            };
            let all = measure(&server, async |server| absence(server, &options, say).await).await?;
            return Ok(plain(all));
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
                times: missed.times,
                settle: seconds(missed.settle),
            };
            let all = measure(&server, async |server| absence(server, &options, say).await).await?;
            return Ok(plain(all));
        }
        Scenario::History {
            readers,
            messages,
            page_len,
            rate,
            text_bytes,
            warm_up,
            seconds: measured,
        } => {
            let options = HistoryOptions {
                transport,
                readers: usize::try_from(*readers)?,
                messages: *messages,
                page_len: *page_len,
                rate_per_s: *rate,
                text_bytes: (*text_bytes).into(),
                warm_up: seconds(*warm_up),
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
    Ok(plain(vec![figures]))
}

/// Of a run in which nothing is looked for.
const fn plain(all: Vec<Figures>) -> Highest {
    Highest {
        all,
        rate: None,
        failed: None,
    }
}

fn pairs_of(count: u32) -> Result<Size> {
    Ok(Size {
        members: 2,
        conversations: usize::try_from(count)?,
    })
}

async fn measure<T>(server: &ServerOptions, run: impl AsyncFnOnce(&Server) -> Result<T>) -> Result<T> {
    let server = Server::start(server).await?;
    let figures = run(&server).await;
    // Also after a run that failed: the next one has the same ports.
    server.stop().await?;
    figures
}

async fn talk_under(load: &Load, server: &ServerOptions, options: TalkOptions) -> Result<Highest> {
    let at_rate = async |rate_per_s: f64| {
        let options = TalkOptions {
            rate_per_s,
            ..options.clone()
        };
        measure(server, async |server| talk(server, &options, say).await).await
    };
    if !load.find_max {
        return Ok(plain(vec![at_rate(load.rate).await?]));
    }
    Ok(find_max(load.rate, load.p99_ms, at_rate, say).await)
}

/// Standard output is for the figures alone.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_broken_fails_a_run_and_in_a_search_what_is_broken_alone() {
        let right = Figures {
            lost: Some(0),
            duplicated: Some(0),
            broken_rules: Some(0),
            ..Figures::default()
        };
        let with = |change: fn(&mut Figures)| {
            let mut all = vec![right.clone(), Figures::default(), right.clone()];
            all.iter_mut().rev().take(1).for_each(change);
            (judge(&all, false).is_ok(), judge(&all, true).is_ok())
        };
        assert_eq!(with(|_| {}), (true, true));
        assert_eq!(with(|of| of.lost = Some(1)), (false, true));
        assert_eq!(with(|of| of.duplicated = Some(1)), (false, true));
        assert_eq!(with(|of| of.broken_rules = Some(1)), (false, false));
    }
}
