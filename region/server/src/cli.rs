//! The command line.

use std::{
    env,
    ffi::OsString,
    io,
    io::Write as _,
    path::{self, PathBuf},
};

use antiphon_client::Transport;
use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::{bench, chat, config, ctl, deployment::Membership, probe, shutdown::Shutdown, store, up, world};

/// An instant-messaging backend that runs in many regions at once.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  antiphon up                                  run three regions, data in ./data, the first on port 7400
  antiphon chat --username alice --with bob    talk to bob
  antiphon config                              print the settings that count, and where each came from";

#[derive(Debug, Clone, Args)]
struct CommonArgs {
    /// Configuration file [default: antiphon.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "ANTIPHON_CONFIG")]
    config: Option<PathBuf>,
    /// Set one setting, over file and environment; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// What a client connects over.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum TransportName {
    /// Whichever gets through first
    #[default]
    Auto,
    /// WebSocket
    Ws,
    /// WebTransport
    Wt,
    /// QUIC
    Quic,
}

impl From<TransportName> for Option<Transport> {
    fn from(name: TransportName) -> Self {
        match name {
            TransportName::Auto => None,
            TransportName::Ws => Some(Transport::WebSocket),
            TransportName::Wt => Some(Transport::WebTransport),
            TransportName::Quic => Some(Transport::Quic),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a world of three regions, or of others, or one region alone
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Run one region of a world. Its supervisor starts it and holds its standard input.
    #[command(hide = true)]
    Node(world::node::ChildArgs),
    /// Talk in this terminal
    Chat(chat::ChatArgs),
    /// See and change where slots live, over the admin port of any node
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(ctl::CtlArgs),
    /// Send under load over several regions, and judge what all saw: for drills
    #[command(after_help = PROBE_EXAMPLES)]
    Probe(probe::ProbeArgs),
    /// Put load on a server started for it, and measure
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(bench::BenchArgs),
    /// Print the effective configuration and where each value came from
    Config(ConfigArgs),
}

const UP_EXAMPLES: &str = "\
Examples:
  antiphon up
  antiphon up --wan
  antiphon up --regions local
  antiphon up --regions us-west,sa-east,af-south,ap-south --wan
  antiphon up --data /var/lib/antiphon --base-port 9000
  antiphon up --store fdb --fdb-cluster-file /etc/foundationdb/fdb.cluster
  antiphon up --set slot.queue_len_max=8192 --set telemetry.otlp_endpoint=http://127.0.0.1:4318";

const CTL_EXAMPLES: &str = "\
Examples:
  antiphon ctl status
  antiphon ctl slots --home us-east --json
  antiphon ctl drain us-east --yes
  antiphon ctl failover --region us-east
  antiphon ctl failover --region us-east --to eu-west --accept-loss
  antiphon ctl policy --min-in-sync 1
  antiphon ctl region add sa-east
  antiphon ctl region remove us-east
  antiphon ctl region address us-east --rpc rpc.example.org:7404
  antiphon ctl link us-east eu-central --both --state blackhole
  antiphon ctl process us-east kill --down-ms 30000
  antiphon ctl store
  antiphon ctl store copy --region us-east --folder data/us-east --set store.fdb_cluster_file=/etc/foundationdb/fdb.cluster
  antiphon ctl --admin http://127.0.0.1:7501 rebalance";

const PROBE_EXAMPLES: &str = "\
Users under random names talk in groups that span the regions. At the end each reads every history in every
region. Whatever is lost, doubled, in another order or never acknowledged is said; the exit code is 1 then.

Examples:
  antiphon probe --edge http://127.0.0.1:7400 --edge http://127.0.0.1:7500 --edge http://127.0.0.1:7600 --seconds 30
  antiphon probe --edge http://127.0.0.1:7400 --rate 20 --json
  antiphon probe --world http://127.0.0.1:7499 --seconds 30   # and what the regions add to the links between them";

const BENCH_EXAMPLES: &str = "\
Each run has a server of its own, a process of this program with an empty store in a folder of TMPDIR that goes with it.

Examples:
  antiphon bench pairs --pairs 50 --rate 5000
  antiphon bench pairs --transport ws --find-max --p99-ms 10 --yardstick --plot latency.svg
  antiphon bench groups --sizes 3:100,20:20 --rate 500 --regions 3
  antiphon bench broadcast --members 10000 --rate 1
  antiphon bench mixed --transport ws --rate 500 --seconds 600 --plot day.svg
  antiphon bench idle --connections 2000 --transport quic
  antiphon bench connect --delay-ms 50 --json connect.json
  TMPDIR=/dev/shm antiphon bench overload --transport ws --rate 60000   # with a store that waits for no disk
  antiphon bench pairs --set slot.batch_len_max=1";

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Default, Args)]
struct NodeArgs {
    /// Folder of everything that is stored [default: ./data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Port of HTTP and WebSocket of the first region; metrics and health are on the next one. Each further region has its
    /// ports 100 higher [default: 7400]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Names of the regions to run, divided by commas: several run as a process each, one alone in this very process
    /// [default: those in the folder, or us-east,eu-central,ap-northeast]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    regions: Vec<String>,
    /// Processes of each region, which share its store: more than one needs an engine that serves several processes
    /// [default: as many as before, or 1]
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
    /// Make links between regions as slow as between the places that their names stand for
    #[arg(long)]
    wan: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Default, Args)]
struct StoreArgs {
    /// What keeps the slots: `embedded`, or `fdb` in a binary that was built with it [default: embedded]
    #[arg(long, value_name = "ENGINE")]
    store: Option<String>,
    /// Cluster file of FoundationDB; each region has keys of its own in the cluster [default: /etc/foundationdb/fdb.cluster]
    #[arg(long, value_name = "FILE")]
    fdb_cluster_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Print the reference of all settings instead, as Markdown
    #[arg(long)]
    reference: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// What is to be said to the user, on one line.
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::Up(args) => {
                let mut passed = self.common.passed();
                passed.extend(args.node.store.passed()?);
                let effective = config::load(&sources(self.common, args.node)?)?;
                let is_default = effective.is_default("world.regions");
                let nodes_are_default = effective.is_default("world.nodes");
                let mut config = effective.config;
                store::is_built_in(config.store.engine)?;
                if config.world.regions.is_empty() || !config.deployment.regions.is_empty() {
                    world::none_in(&config.node.data)?;
                    let membership = Membership::of_config(&config)?;
                    Box::pin(up::run(config, Shutdown::listen()?, membership)).await
                } else {
                    if is_default && let Some(names) = world::names_in(&config.node.data)? {
                        config.world.regions = names;
                    }
                    if nodes_are_default && let Some(nodes) = world::nodes_in(&config.node.data)? {
                        config.world.nodes = nodes;
                    }
                    Box::pin(world::run(config, passed)).await
                }
            }
            Command::Node(args) => {
                let place = world::node::Place::find(&args)?;
                let mut sources = sources(self.common, NodeArgs::default())?;
                sources.flags.extend(place.settings()?);
                Box::pin(world::node::run(config::load(&sources)?.config, place)).await
            }
            Command::Chat(args) => chat::run(args).await,
            Command::Ctl(args) => {
                let common = self.common;
                let load = |over: &[(&str, &str)]| {
                    let mut common = common.clone();
                    common
                        .set
                        .extend(over.iter().map(|(key, value)| format!("{key}={value}")));
                    Ok(config::load(&sources(common, NodeArgs::default())?)?.config)
                };
                ctl::run(args, load).await
            }
            Command::Probe(args) => probe::run(args).await,
            Command::Bench(args) => bench::run(args, self.common.config, self.common.set).await,
            Command::Config(args) if args.reference => print(&config::reference()),
            Command::Config(args) => print(&config::show(&config::load(&sources(self.common, args.node)?)?)),
        }
    }
}

impl CommonArgs {
    /// The same flags, for a process that is to have the same settings.
    fn passed(&self) -> Vec<OsString> {
        let file = self.config.iter().flat_map(|file| ["--config".into(), file.into()]);
        let settings = self.set.iter().flat_map(|setting| ["--set".into(), setting.into()]);
        file.chain(settings).collect()
    }
}

impl StoreArgs {
    /// Key, value and flag of what is set.
    fn settings(&self) -> Result<Vec<(&'static str, String, &'static str)>> {
        let mut settings = Vec::new();
        if let Some(engine) = &self.store {
            settings.push(("store.engine", engine.clone(), "--store"));
        }
        if let Some(file) = &self.fdb_cluster_file {
            let file = path::absolute(file)?;
            let file = file
                .to_str()
                .with_context(|| format!("--fdb-cluster-file {}: is not UTF-8", file.display()))?;
            settings.push(("store.fdb_cluster_file", file.to_owned(), "--fdb-cluster-file"));
        }
        Ok(settings)
    }

    /// As flags for the regions of a world.
    fn passed(&self) -> Result<Vec<OsString>> {
        let settings = self.settings()?.into_iter();
        Ok(settings
            .flat_map(|(key, value, _)| ["--set".into(), format!("{key}={value}").into()])
            .collect())
    }
}

fn sources(common: CommonArgs, node: NodeArgs) -> Result<config::Sources> {
    let mut flags = Vec::new();
    for setting in common.set {
        let (key, text) = setting
            .split_once('=')
            .with_context(|| format!("--set {setting}: write it as section.key=value"))?;
        flags.push((
            key.trim().to_owned(),
            text.trim().to_owned(),
            format!("--set {}", key.trim()),
        ));
    }
    let mut flag = |key: &str, value: String, name: &str| flags.push((key.to_owned(), value, name.to_owned()));
    if let Some(folder) = node.data {
        let folder = folder
            .to_str()
            .with_context(|| format!("--data {}: is not UTF-8", folder.display()))?;
        flag("node.data", folder.to_owned(), "--data");
    }
    if let Some(port) = node.base_port {
        flag("node.base_port", port.to_string(), "--base-port");
    }
    match node.regions.as_slice() {
        [] => {}
        [region] => {
            flag("node.region", region.clone(), "--regions");
            flag("world.regions", String::new(), "--regions");
        }
        several => flag("world.regions", several.join(","), "--regions"),
    }
    for (key, value, name) in node.store.settings()? {
        flag(key, value, name);
    }
    if let Some(nodes) = node.nodes {
        flag("world.nodes", nodes.to_string(), "--nodes");
    }
    if node.wan {
        flag("world.wan", true.to_string(), "--wan");
    }
    Ok(config::Sources {
        file: common.config,
        environment: env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
            .collect(),
        flags,
    })
}

/// Prints text to standard output. A reader that went away (`| head`) is no fault.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_store_is_that_of_each_region_of_a_world() {
        let line = [
            "antiphon",
            "up",
            "--store",
            "fdb",
            "--fdb-cluster-file",
            "some/fdb.cluster",
        ];
        let Command::Up(args) = Cli::parse_from(line).command else {
            panic!("another command");
        };
        let file = path::absolute("some/fdb.cluster").unwrap();
        let passed = args.node.store.passed().unwrap();
        let file = format!("store.fdb_cluster_file={}", file.display());
        assert_eq!(passed, ["--set", "store.engine=fdb", "--set", &file]);
    }
}
