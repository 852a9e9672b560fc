use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    time::Duration,
};

use antiphon_client::{Account, Codec, Connector, Transport, http_client};
use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{interval, timeout},
};

use crate::{
    connectors::{self, Connectors},
    usage::Usage,
};

/// How long a server may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a region may take to tell what it counts.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Of more than one region.
const REGIONS: [&str; 8] = [
    "us-east",
    "eu-central",
    "ap-northeast",
    "sa-east",
    "af-south",
    "us-west",
    "eu-north",
    "me-central",
];
/// From this machine to one address.
const CONNECTIONS_OF_EACH: usize = 20_000;
/// Between the first ports of two regions.
const PORTS_OF_EACH: usize = 100;
/// After a region's first port: the operators'.
const ADMIN_OFFSET: u16 = 1;
/// What a node counts its fsyncs in.
const FSYNCS: &str = "antiphon_fsync_seconds_count";
/// And its tasks.
const TASKS: &str = "antiphon_tasks";
/// What would refuse a load that comes from one address, and what a run is not about.
const SETTINGS: [&str; 12] = [
    "edge.address_rate_per_second=0",
    "edge.credential_rate_per_second=0",
    "edge.handshake_rate_per_second=0",
    "edge.user_rate_per_second=0",
    "edge.session_rate_per_second=0",
    "edge.connections_max=1000000",
    "edge.connections_per_address_max=1000000",
    "edge.sessions_per_user_max=1000000",
    "edge.device_policy=any",
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
    /// How many regions it has, at most eight; several are a process each, on this machine, with nothing between them.
    pub regions: u16,
    /// How many connections there are to be: with many, it listens on several addresses, as one has ports for some thirty thousand.
    pub connections: usize,
    /// Devices come over TLS also where they come over TCP; over QUIC none does then, whose certificate devices would not believe.
    pub tls: bool,
    /// How devices write frames over WebSocket.
    pub codec: Codec,
    /// Its configuration file, in place of the usual one.
    pub config: Option<PathBuf>,
    /// Settings besides those of every run, as in `--set`.
    pub settings: Vec<String>,
}

/// Regions of one machine, with an empty store that goes with them.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: u32,
    /// Of each edge.
    urls: Vec<String>,
    metrics: Metrics,
    certificate_sha256: Option<String>,
    codec: Codec,
    connectors: Connectors,
    program: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// What it said when it ended instead.
    pub async fn start(options: &ServerOptions) -> Result<Self> {
        let regions = match usize::from(options.regions) {
            1 => &["local"][..],
            several => REGIONS
                .get(..several)
                .with_context(|| format!("{several} regions: a run has 1 to {}", REGIONS.len()))?,
        };
        let folder = tempfile::tempdir().context("a folder for the server's store")?;
        let mut command = Command::new(&options.program);
        command
            .args(["up", "--regions", &regions.join(","), "--base-port"])
            .arg(options.base_port.to_string())
            .arg("--data")
            .arg(folder.path());
        let addresses = u8::try_from(options.connections.div_ceil(CONNECTIONS_OF_EACH).max(1)).with_context(|| {
            format!(
                "{} connections are too many for the addresses of one machine",
                options.connections
            )
        })?;
        if addresses > 1 {
            command.args(["--set", "node.host=0.0.0.0"]);
        }
        let certificate_sha256 = match options.tls {
            true => Some(show_certificate(&mut command, folder.path())?),
            false => None,
        };
        if let Some(file) = &options.config {
            command.arg("--config").arg(file);
        }
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
        let scheme = if options.tls { "https" } else { "http" };
        let ports = (options.base_port..).step_by(PORTS_OF_EACH).take(regions.len());
        let metrics_url = |port: u16| format!("http://{}:{}/metrics", Ipv4Addr::LOCALHOST, port + ADMIN_OFFSET);
        let metrics = Metrics {
            client: http_client(None),
            urls: ports.clone().map(metrics_url).collect(),
        };
        let hosts = (1..=addresses).map(|last| Ipv4Addr::new(127, 0, 0, last));
        let urls = hosts.flat_map(|host| ports.clone().map(move |port| format!("{scheme}://{host}:{port}")));
        let connectors = Connectors::new(certificate_sha256.as_deref(), options.codec, options.connections);
        Ok(Self {
            child,
            pid,
            urls: urls.collect(),
            metrics,
            codec: options.codec,
            connectors,
            program: options.program.clone(),
            certificate_sha256,
            _folder: folder,
        })
    }

    /// Where the device of this number finds it: one edge after the other.
    pub(crate) fn url(&self, at: usize) -> &str {
        self.urls.get(at % self.urls.len()).map_or("", String::as_str)
    }

    /// How many it has.
    pub(crate) const fn regions(&self) -> usize {
        self.metrics.urls.len()
    }

    pub(crate) fn account(&self) -> Account {
        Account::pinned(self.url(0), self.certificate_sha256.as_deref())
    }

    /// A device's way to its edges, over this transport alone.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub(crate) fn connector(&self, transport: Transport) -> Result<Connector> {
        self.connectors.of(transport).context("a socket of devices")
    }

    /// As of a device that was never connected: nothing that others keep open serves it.
    pub(crate) fn first_connector(&self, transport: Transport) -> Connector {
        connectors::first(transport, self.codec, self.certificate_sha256())
    }

    /// By which devices know it, with TLS.
    pub(crate) fn certificate_sha256(&self) -> Option<&str> {
        self.certificate_sha256.as_deref()
    }

    /// How devices write frames over WebSocket.
    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    /// The `antiphon` program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        self.watched().usage()
    }

    /// How often its stores have waited for the disk, all regions together; none where they do not count that themselves.
    ///
    /// # Errors
    /// When a region does not answer in time.
    pub(crate) async fn fsyncs(&self) -> Result<Option<u64>> {
        self.metrics.sum(FSYNCS).await
    }

    /// What its regions tell, for who looks at it meanwhile.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Its processes, for who looks at them meanwhile.
    pub(crate) const fn watched(&self) -> Watched {
        Watched { pid: self.pid }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended during the run: {status}");
        }
        // Not killed: it would leave its regions behind.
        let pid = Pid::from_raw(self.pid.cast_signed()).context("the server's number")?;
        kill_process(pid, Signal::TERM).context("the server cannot be ended")?;
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await.context("the server cannot be killed")?;
        }
        Ok(())
    }
}

/// What the regions of a server count.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    client: reqwest::Client,
    urls: Vec<String>,
}

impl Metrics {
    /// How many tasks they have.
    ///
    /// # Errors
    /// When a region does not answer in time.
    pub(crate) async fn tasks(&self) -> Result<Option<u64>> {
        self.sum(TASKS).await
    }

    /// Over all regions and labels; none when one does not count that.
    async fn sum(&self, name: &str) -> Result<Option<u64>> {
        let mut sum = Some(0);
        for url in &self.urls {
            let request = self.client.get(url).timeout(METRICS_TIMEOUT);
            let text = async { request.send().await?.error_for_status()?.text().await };
            let of_region = sum_of(name, &text.await.with_context(|| url.clone())?);
            sum = sum.zip(of_region).map(|(sum, of_region)| sum + of_region);
        }
        Ok(sum)
    }
}

/// A count of this name, over all of its labels, in the text of Prometheus; none where there is no such line.
fn sum_of(name: &str, metrics: &str) -> Option<u64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values = metrics
        .lines()
        .filter(of_name)
        .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.reduce(|sum, value| Some(sum? + value?))?
}

/// Lets the server speak HTTPS; returns by which hash devices know it.
fn show_certificate(command: &mut Command, folder: &Path) -> Result<String> {
    let names = vec![Ipv4Addr::LOCALHOST.to_string()];
    let made = rcgen::generate_simple_self_signed(names).context("a certificate")?;
    command.args(["--set", "edge.https=true"]);
    for (setting, file, pem) in [
        ("edge.tls_certificate_file", "certificate.pem", made.cert.pem()),
        ("edge.tls_key_file", "key.pem", made.signing_key.serialize_pem()),
    ] {
        let path = folder.join(file);
        fs::write(&path, pem).with_context(|| path.display().to_string())?;
        command.arg("--set").arg(format!("{setting}={}", path.display()));
    }
    Ok(HEXLOWER.encode(&Sha256::digest(made.cert.der())))
}

/// The processes of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pid: u32,
}

impl Watched {
    /// What they have used until now.
    pub(crate) fn usage(self) -> Result<Usage> {
        Usage::of_all(self.pid)
    }

    /// What `work` comes to, and the most memory that they had meanwhile, as seen each second.
    pub(crate) async fn rss_max_while<T>(self, work: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
        let mut work = pin!(work);
        let mut looks = interval(Duration::from_secs(1));
        let mut most = 0;
        loop {
            tokio::select! {
                done = &mut work => return Ok((done?, most)),
                _ = looks.tick() => most = most.max(self.usage()?.rss_bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_that_of_all_labels_and_of_no_longer_name() {
        let metrics = "# TYPE fsync histogram\nfsync_count{engine=\"a\"} 3\nfsync_count 4\nfsync_counted 9\n";
        assert_eq!(sum_of("fsync_count", metrics), Some(7));
        assert_eq!(sum_of("fsync", metrics), None);
    }
}
