//! `antiphon probe`: a live load over several regions, and its judgement.

mod paths;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use antiphon_probe::{Load, LoadOptions, Report};
use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use self::paths::PathDelay;
use crate::{
    cli::{TransportName, print},
    shutdown::Shutdown,
    world::{Control, WorldView},
};

/// Violations that people are shown.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The edge of a region; once for each region. Without it those of `--world`
    #[arg(long = "edge", value_name = "URL", required_unless_present = "world", num_args = 1..)]
    edges: Vec<String>,
    /// One of these edges that is meant to be away when sending has ended; may be repeated. Any other has to show every history
    #[arg(long, value_name = "URL")]
    away: Vec<String>,
    /// The admin port of a world on this machine: its links are set against the time that messages take
    #[arg(long, value_name = "URL")]
    world: Option<String>,
    /// How long to send; without it until SIGINT or SIGTERM
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// What is sent in the first so many seconds is in no latency and in no row of `--world`'s table: it waits for connections to be made. It is
    /// judged all the same
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600))]
    warm_up: u64,
    /// Messages a second of each member in each of its conversations
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    rate: f64,
    /// Groups that each region creates; each has a member in every region
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    groups: u16,
    /// What to connect over: whichever gets through first, or this one alone
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    transport: TransportName,
    /// Print one line of JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Runs a load and prints what became of it.
///
/// # Errors
/// What kept it from starting or from judging; rules that were broken.
pub(crate) async fn run(args: ProbeArgs) -> Result<()> {
    if let Some(seconds) = args.seconds.filter(|seconds| *seconds <= args.warm_up) {
        bail!(
            "--warm-up is {} s; it has to be shorter than --seconds, {seconds} s",
            args.warm_up
        );
    }
    let shutdown = Shutdown::listen()?;
    let world = match &args.world {
        Some(url) => Some(Control::at(url)?),
        None => None,
    };
    let edges = match &world {
        Some(world) if args.edges.is_empty() => edges_of(&world.world().await?),
        Some(_) | None => args.edges,
    };
    let regions = edges.len();
    let options = LoadOptions {
        away: args.away,
        rate_per_s: args.rate,
        groups_per_edge: usize::from(args.groups),
        transport: args.transport.into(),
        warm_up: Duration::from_secs(args.warm_up),
        ..LoadOptions::new(edges)
    };
    let load = Load::start(options).await?;
    say(&format!("{} members at {regions} edges are sending", load.members()));
    let over = async {
        match args.seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = shutdown.asked() => {}
        () = over => {}
    }
    say("sending has ended; everything is read and judged");
    let report = load.stop().await?;
    let paths = match &world {
        Some(world) => paths::paths(&report.delays, &world.world().await?, &world.links().await?),
        None => Vec::new(),
    };
    if args.json {
        let shown = Shown {
            report: &report,
            paths: &paths,
        };
        print(&format!("{}\n", serde_json::to_string(&shown)?))?;
    } else {
        print(&in_words(&report))?;
        if world.is_some() {
            print(&format!("\n{}", paths::in_words(&paths)))?;
        }
    }
    match report.violations.len() {
        0 => Ok(()),
        count => bail!("{count} rules were broken"),
    }
}

/// The report as one line of JSON.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    paths: &'a [PathDelay],
}

fn edges_of(world: &WorldView) -> Vec<String> {
    let ports = world.regions.iter().map(|region| region.http_port);
    ports.map(|port| format!("http://127.0.0.1:{port}")).collect()
}

/// Standard output is for the report alone.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn in_words(report: &Report) -> String {
    let mut text = format!(
        "sent            {}\nacknowledged    {}\nlost            {}\nduplicated      {}\nreordered       {}\n\
         failed sends    {}\nwritable again  {} ms at the latest\nlatency         {} ms (half), {} ms (99 of 100)\n",
        report.sent,
        report.acknowledged,
        report.lost,
        report.duplicated,
        report.reordered,
        report.failed_sends,
        report.writable_again_ms,
        report.p50_ms,
        report.p99_ms,
    );
    for violation in report.violations.iter().take(SHOWN_MAX) {
        text.push_str(violation);
        text.push('\n');
    }
    if report.violations.len() > SHOWN_MAX {
        text.push_str(&format!("and {} more\n", report.violations.len() - SHOWN_MAX));
    }
    text
}
