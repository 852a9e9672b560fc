//! `antiphon bench`: a load on a server that is started for it, and what came of it.

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use antiphon_bench::{
    ConnectOptions, DelayedPath, Figures, IdleOptions, PairsOptions, Server, ServerOptions, connect, idle, pairs,
};
use antiphon_client::Transport;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::cli::{TransportName, print};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
    /// What devices are connected over; may be repeated [default: each, one after the other]
    #[arg(long, global = true, value_enum, value_name = "NAME")]
    transport: Vec<TransportName>,
    /// How often each is run, every time with a server of its own
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// The first of the server's four ports
    #[arg(long, global = true, value_name = "PORT", default_value_t = 7800, value_parser = clap::value_parser!(u16).range(1..=65_532))]
    base_port: u16,
    /// Write the figures to this file, as JSON, one run a line
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// Users who talk in twos, at a fixed rate
    Pairs {
        /// How many pairs; each has a conversation
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        pairs: u32,
        /// Messages a second, all of them together
        #[arg(long, value_name = "N", default_value_t = 1_000.0)]
        rate: f64,
        /// Bytes of each text
        #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
        text_bytes: u16,
        /// Seconds of sending before anything counts
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        warm_up: u64,
        /// Seconds of sending that count
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
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

/// Runs a scenario over each transport, and prints what came of it. `settings` are the server's, besides those of every run.
///
/// # Errors
/// What kept it from running to its end.
pub(crate) async fn run(args: BenchArgs, settings: Vec<String>) -> Result<()> {
    let transports: Vec<Transport> = if args.transport.is_empty() {
        vec![Transport::WebSocket, Transport::WebTransport, Transport::Quic]
    } else {
        args.transport.iter().filter_map(|name| (*name).into()).collect()
    };
    if transports.is_empty() {
        bail!("--transport auto races; a run is over one of ws, wt and quic");
    }
    if args.base_port > u16::MAX - 10 {
        bail!(
            "--base-port {} leaves no room for the ten ports after it",
            args.base_port
        );
    }
    allow_open_files();
    let mut all = Vec::new();
    for transport in transports {
        for run in 1..=args.runs {
            let figures = run_once(&args, &settings, transport).await?;
            say(&format!("{transport}, run {run} of {}: done", args.runs));
            all.push(figures);
        }
    }
    if let Some(path) = &args.json {
        let lines: Result<Vec<String>, _> = all.iter().map(serde_json::to_string).collect();
        fs::write(path, lines?.join("\n") + "\n").with_context(|| format!("--json {}", path.display()))?;
    }
    print(&table(&all))
}

/// As many open files as the system lets this process, and with it the server, have.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(&format!("the limit of open files stays as it is: {error}"));
    }
}

async fn run_once(args: &BenchArgs, settings: &[String], transport: Transport) -> Result<Figures> {
    let mut options = ServerOptions {
        program: env::current_exe().context("this program's own file")?,
        base_port: args.base_port,
        settings: settings.to_vec(),
    };
    let seconds = Duration::from_secs;
    let path = match args.scenario {
        Scenario::Connect { delay_ms, .. } => {
            let path = DelayedPath::open(args.base_port, Duration::from_millis(delay_ms)).await?;
            options.settings.extend(path.settings());
            Some(path)
        }
        Scenario::Pairs { .. } | Scenario::Idle { .. } => None,
    };
    let server = Server::start(&options).await?;
    let figures = match args.scenario {
        Scenario::Pairs {
            pairs: count,
            rate,
            text_bytes,
            warm_up,
            seconds: measured,
        } => {
            let options = PairsOptions {
                transport,
                pairs: usize::try_from(count)?,
                rate_per_s: rate,
                text_bytes: text_bytes.into(),
                warm_up: seconds(warm_up),
                measured: seconds(measured),
            };
            pairs(&server, &options).await?
        }
        Scenario::Idle { connections, settle } => {
            let options = IdleOptions {
                transport,
                connections: usize::try_from(connections)?,
                settle: seconds(settle),
            };
            idle(&server, &options).await?
        }
        Scenario::Connect { times, .. } => {
            let path = path.context("the slow path")?;
            let options = ConnectOptions {
                transport,
                times: times.into(),
            };
            connect(&server, &path, &options).await?
        }
    };
    server.stop().await?;
    Ok(figures)
}

/// Standard output is for the figures alone.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A line for each run, a column for each figure that there is.
fn table(all: &[Figures]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown in three digits")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    type Column = (&'static str, Box<dyn Fn(&Figures) -> Option<String>>);
    let columns: [Column; 14] = [
        ("transport", Box::new(|of| Some(of.transport.to_owned()))),
        (
            "messages/s",
            Box::new(|of| of.messages_per_s.map(|value| format!("{value:.0}"))),
        ),
        ("p50 ms", Box::new(|of| of.p50_ms.map(|value| format!("{value:.2}")))),
        ("p99 ms", Box::new(|of| of.p99_ms.map(|value| format!("{value:.2}")))),
        ("p99.9 ms", Box::new(|of| of.p999_ms.map(|value| format!("{value:.2}")))),
        (
            "server µs",
            Box::new(|of| of.server_cpu_us_per_message.map(|value| format!("{value:.1}"))),
        ),
        (
            "load µs",
            Box::new(|of| of.load_cpu_us_per_message.map(|value| format!("{value:.1}"))),
        ),
        (
            "server MiB",
            Box::new(move |of| of.server_rss_bytes.map(|value| format!("{:.1}", mib(value)))),
        ),
        (
            "connections",
            Box::new(|of| of.connections.map(|value| value.to_string())),
        ),
        (
            "bytes each",
            Box::new(|of| of.bytes_per_connection.map(|value| value.to_string())),
        ),
        ("refused", Box::new(|of| of.refused.map(|value| value.to_string()))),
        ("lost", Box::new(|of| of.lost.map(|value| value.to_string()))),
        (
            "round trips: first",
            Box::new(|of| of.round_trips_first.map(|value| format!("{value:.1}"))),
        ),
        (
            "cold, resumed",
            Box::new(|of| Some(format!("{:.1}, {:.1}", of.round_trips_cold?, of.round_trips_resumed?))),
        ),
    ];
    let mut lines = vec![String::new(); all.len() + 1];
    for (name, of) in columns {
        let cells: Vec<Option<String>> = all.iter().map(&of).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> = cells.into_iter().map(Option::unwrap_or_default).collect();
        let width = cells.iter().map(String::len).chain([name.len()]).max().unwrap_or(0);
        for (line, cell) in lines
            .iter_mut()
            .zip(std::iter::once(name).chain(cells.iter().map(String::as_str)))
        {
            line.push_str(&format!("{cell:<width$}  "));
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_columns_that_were_measured() {
        let figures = Figures {
            transport: "quic",
            p50_ms: Some(1.5),
            lost: Some(0),
            ..Figures::default()
        };
        let other = Figures {
            transport: "websocket",
            ..figures.clone()
        };
        assert_eq!(
            table(&[figures, other]),
            "transport  p50 ms  lost\nquic       1.50    0\nwebsocket  1.50    0\n"
        );
    }
}
