use std::{net::Ipv4Addr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::usage::Usage;

/// How long a server may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// What would refuse a load that comes from one address, and what a run is not about.
const SETTINGS: [&str; 13] = [
    "edge.address_rate_per_second=0",
    "edge.credential_rate_per_second=0",
    "edge.handshake_rate_per_second=0",
    "edge.user_rate_per_second=0",
    "edge.session_rate_per_second=0",
    "edge.connections_max=1000000",
    "edge.connections_per_address_max=1000000",
    "edge.sessions_per_user_max=1000000",
    "edge.device_policy=any",
    // One address that shakes hands a thousand times a second looks like a flood.
    "edge.quic_retry_above=1000000",
    "identity.access_token_ttl_s=86400",
    "identity.password_memory_kib=64",
    "identity.password_iterations=1",
];

/// The server that a run measures.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The `antiphon` program.
    pub program: PathBuf,
    /// The first of its ports.
    pub base_port: u16,
    /// Settings besides those of every run, as in `--set`.
    pub settings: Vec<String>,
}

/// One region as a process, with an empty store that goes with it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: u32,
    base_port: u16,
    _folder: TempDir,
}

impl Server {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// What it said when it ended instead.
    pub async fn start(options: &ServerOptions) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the server's store")?;
        let mut command = Command::new(&options.program);
        command
            .args(["up", "--regions", "local", "--base-port"])
            .arg(options.base_port.to_string())
            .arg("--data")
            .arg(folder.path());
        for setting in SETTINGS.into_iter().chain(options.settings.iter().map(String::as_str)) {
            command.args(["--set", setting]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", options.program.display()))?;
        let (Some(out), Some(pid)) = (child.stdout.take(), child.id()) else {
            bail!("the server ended at once");
        };
        let mut lines = BufReader::new(out).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line == "ready" {
                    return Ok(());
                }
            }
            bail!("the server ended before it was ready")
        };
        timeout(READY_TIMEOUT, ready)
            .await
            .context("the server was not ready in time")??;
        // Whatever it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            child,
            pid,
            base_port: options.base_port,
            _folder: folder,
        })
    }

    /// Where devices find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.base_port)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended during the run: {status}");
        }
        self.child.kill().await.context("the server cannot be ended")
    }
}
