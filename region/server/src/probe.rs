//! `antiphon probe`: a live load over several regions, and its judgement.

use std::time::Duration;

use antiphon_probe::{Load, LoadOptions, Report};
use anyhow::{Result, bail};
use clap::Args;
use std::io::{self, Write as _};
use tokio::time::sleep;

use crate::{cli::print, shutdown::Shutdown};

/// Violations that people are shown.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The edge of a region; once for each region
    #[arg(long = "edge", value_name = "URL", required = true, num_args = 1..)]
    edges: Vec<String>,
    /// How long to send; without it until SIGINT or SIGTERM
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Messages a second of each member in each of its conversations
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    rate: f64,
    /// Groups that each region creates; each has a member in every region
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    groups: u16,
    /// Print one line of JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Runs a load and prints what became of it.
///
/// # Errors
/// What kept it from starting or from judging; rules that were broken.
pub(crate) async fn run(args: ProbeArgs) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let regions = args.edges.len();
    let options = LoadOptions {
        rate_per_s: args.rate,
        groups_per_edge: usize::from(args.groups),
        ..LoadOptions::new(args.edges)
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
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        print(&in_words(&report))?;
    }
    match report.violations.len() {
        0 => Ok(()),
        count => bail!("{count} rules were broken"),
    }
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
