//! `antiphon up`: a node with everything in it, from the first check to the last flush.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    process,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::time;

use crate::{
    admin::{Admin, Readiness},
    cli::print,
    config::Config,
    deployment::Membership,
    edge::{self, Edge},
    shutdown::Shutdown,
    telemetry::Telemetry,
    wiring::Node,
};

const ENDS: &str = "the node ends, to be started again";

/// Runs until `shutdown` asks for its end: alone, or among other regions.
///
/// # Errors
/// What kept it from starting: a port, the folder, the store.
pub(crate) async fn run(config: Config, shutdown: Shutdown, membership: Option<Membership>) -> Result<()> {
    let telemetry = Telemetry::start(&config)?;
    let folder = Folder::take(&config.node.data, &config.node.folder_name())?;
    let edge = Edge::listen(&config, &folder.path)?;
    let admin = edge::listen(config.node.admin_host, config.node.base_port.saturating_add(1))?;
    let (edge_address, admin_address) = (edge.tcp.local_addr()?, admin.local_addr()?);

    let readiness = Readiness::default();
    let admin = Admin::start(admin, readiness.clone(), telemetry.metrics().clone());
    let announces = membership.as_ref().map(|membership| membership.announces.clone());
    let starting = Node::start(&config, (&folder.path, membership), edge, &readiness);
    let mut asked = pin!(shutdown.asked());
    // At once, and with nothing handed over: others take over what this node was home of, and whoever looks after the process starts
    // it again, which succeeds when the disk is well.
    let watched = readiness.clone();
    let mut failed = pin!(watched.failed());
    let node = tokio::select! {
        node = said_when_slow("opening the store", starting) => node?,
        why = &mut failed => bail!("{why}; {ENDS}"),
        // Nothing was acknowledged yet, and a store that is being opened survives worse.
        _ = &mut asked => return Ok(()),
    };
    let program = env::args().next().unwrap_or_else(|| "antiphon".to_owned());
    print(&greeting(
        &config,
        &program,
        (edge_address, admin_address),
        announces.as_deref(),
    ))?;

    let signal = tokio::select! {
        signal = &mut asked => signal,
        why = &mut failed => bail!("{why}; {ENDS}"),
    };
    tracing::info!(signal, "ending: sessions are sent away, then the store is closed");
    readiness.drains();
    let stopped = node.stop(Duration::from_millis(config.edge.drain_timeout_ms)).await;
    admin.stop().await;
    telemetry.stop().await;
    stopped
}

/// The folder of this node, writable and held by this process alone.
struct Folder {
    path: PathBuf,
    /// The lock goes with the process, however it ends.
    _lock: fs::File,
}

impl Folder {
    fn take(data: &Path, name: &str) -> Result<Self> {
        let path = data.join(name);
        let lock = fs::create_dir_all(&path).and_then(|()| fs::File::create(path.join("lock")));
        let unwritable = || {
            format!(
                "the data folder {} cannot be written (setting `node.data`, flag --data)",
                path.display()
            )
        };
        let mut lock = lock.with_context(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                bail!(
                    "the data folder {} is in use by another antiphon; choose another with --data",
                    path.display()
                )
            }
            Err(fs::TryLockError::Error(error)) => return Err(error).with_context(unwritable),
        }
        // A full disk lets an empty file be made.
        writeln!(lock, "{}", process::id())
            .and_then(|()| lock.sync_all())
            .with_context(unwritable)?;
        Ok(Self { path, _lock: lock })
    }
}

/// Says each second what takes so long.
async fn said_when_slow<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut seconds = 0_u32;
    loop {
        match time::timeout(Duration::from_secs(1), &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                seconds += 1;
                let _ = print(&format!("{what} … {seconds} s\n"));
            }
        }
    }
}

/// `program` is the command as it was typed, so that the commands to try next can be copied; `announces` is where other nodes reach
/// this one, if there are others.
fn greeting(
    config: &Config,
    program: &str,
    (edge, admin): (SocketAddr, SocketAddr),
    announces: Option<&str>,
) -> String {
    let node = config.node.folder_name();
    let between = announces.map_or_else(String::new, |address| format!("\n  nodes      {address}"));
    let port = config.node.base_port;
    let tls = if config.edge.https { "s" } else { "" };
    let server = if port == 7400 && tls.is_empty() {
        String::new()
    } else {
        format!(" --server http{tls}://{edge}")
    };
    format!(
        "
  region     {node}
  HTTP       http{tls}://{edge}/v1
  WebSocket  ws{tls}://{edge}/v1/connect
  API        http{tls}://{edge}/v1/openapi.json
  metrics    http://{admin}/metrics
  health     http://{admin}/readyz{between}
  data       {}

  Next, in two other terminals:
    {program} chat{server} --username alice --with bob
    {program} chat{server} --username bob --with alice

ready
",
        config.node.data.join(&node).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn config(settings: &[(&str, &str)]) -> Config {
        let flags = settings
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned(), String::new()));
        load(&Sources {
            flags: flags.collect(),
            ..Sources::default()
        })
        .unwrap()
        .config
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_on_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = format!("{:#}", Folder::take(&file, "local").err().unwrap());
        assert!(
            error.contains(file.to_str().unwrap()) && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn a_folder_serves_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::take(folder.path(), "local").unwrap();
        let error = format!("{:#}", Folder::take(folder.path(), "local").err().unwrap());
        assert!(
            error.contains("in use") && error.contains(folder.path().to_str().unwrap()),
            "{error}"
        );
        drop(held);
        assert!(Folder::take(folder.path(), "local").is_ok());
    }

    #[test]
    fn the_greeting_ends_with_ready_on_a_line_of_its_own() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9000));
        let greeting = greeting(
            &config(&[("node.base_port", "9000")]),
            "./antiphon",
            (address, address),
            None,
        );
        assert!(greeting.ends_with("\nready\n"));
        assert!(
            greeting.contains("    ./antiphon chat --server http://127.0.0.1:9000 --username alice"),
            "{greeting}"
        );
    }
}
