use std::{
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{ExitStatus, Stdio, id as process_id},
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    Http, Person, RawSession,
    fdb::Cluster,
    forget_what_steers_tests,
    metrics::metric,
    store::{self, flags},
    until,
};

/// Below the ports that the system gives to outgoing connections, above the last that browsers refuse to fetch from (10080).
const PORTS: std::ops::Range<u16> = 10_100..32_000;
const LOG_LINES_SHOWN: usize = 80;

static PORTS_TAKEN: AtomicU16 = AtomicU16::new(0);

/// The real binary as a process of its own, with its own folder and ports. What it said is printed when the test fails.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    /// Of its store.
    flags: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts with the defaults and waits until it is ready.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts with settings (`edge.hello_timeout_ms`) and waits until it is ready.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(store::cluster(), settings).await
    }

    /// Starts on a cluster of FoundationDB with settings, and waits until it is ready.
    pub(crate) async fn on(cluster: Option<&Cluster>, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::stopped_on(cluster, settings);
        server.restart().await;
        server
    }

    /// As [`Server::on`], and not started.
    pub(crate) fn stopped_on(cluster: Option<&Cluster>, settings: &[(&str, &str)]) -> Self {
        // Passwords are hashed cheaply: these tests are not about guessing them.
        let cheap = [
            ("identity.password_memory_kib", "64"),
            ("identity.password_iterations", "1"),
        ];
        let folder = tempfile::tempdir().unwrap();
        Self {
            flags: flags(cluster, folder.path()),
            folder,
            port: free_port(),
            settings: cheap
                .iter()
                .chain(settings)
                .map(|(key, value)| (variable(key), (*value).to_owned()))
                .collect(),
            child: None,
        }
    }

    /// Starts again on the same folder and ports.
    pub(crate) async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the process and does not wait.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server is running already");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        // As many open files as the system lets it have.
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                r#"ulimit -n "$(ulimit -Hn)"; exec "$@""#,
                "sh",
                env!("CARGO_BIN_EXE_antiphon"),
                "up",
                "--regions",
                "local",
            ])
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .args(["--base-port", &self.port.to_string()])
            .args(&self.flags)
            .current_dir(self.folder.path())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .kill_on_drop(true);
        forget_what_steers_tests(&mut command);
        self.child = Some(command.spawn().unwrap());
    }

    async fn ready(&mut self) {
        let url = format!("{}/readyz", self.admin_url());
        let client = antiphon_client::http_client(None);
        let child = self.child.as_mut().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status} before it was ready");
            }
            let asked = until("an answer of /readyz, or the end of the process", || {
                let (client, url) = (client.clone(), url.clone());
                let ended = child.try_wait().unwrap().is_some();
                async move {
                    let answer = client.get(url).send().await;
                    (ended || answer.is_ok_and(|answer| answer.status() == 200)).then_some(())
                }
            });
            asked.await;
            if child.try_wait().unwrap().is_none() {
                return;
            }
        }
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) async fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.as_ref().and_then(Child::id).unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(sent.success(), "kill -s {name} {id}: {sent}");
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        tokio::time::timeout(super::PATIENCE, child.wait())
            .await
            .expect("the server does not end")
            .unwrap()
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.ended().await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 1)
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Registers and logs in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        Person::register(&self.http(), name).await
    }

    /// A live session of a person's device, without cursors.
    pub(crate) async fn session(&self, person: &Person) -> RawSession {
        RawSession::open(self.port, person, &[]).await
    }

    /// The sum of a metric over its labels; None when there is no such line.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.admin_url(), name).await
    }

    /// Waits until so many sessions are left.
    pub(crate) async fn sessions_become(&self, count: f64) {
        until("that many sessions", || async move {
            let sessions = self.metric("antiphon_sessions").await.unwrap_or_default();
            ((sessions - count).abs() < 0.5).then_some(())
        })
        .await;
    }

    /// All that the processes have printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            eprintln!("--- the server on port {} said:\n{shown}\n---", self.port);
        }
    }
}

fn variable(key: &str) -> String {
    format!("ANTIPHON_{}", key.replace('.', "__").to_uppercase())
}

/// The first of four ports that are free. Each process of tests begins elsewhere.
pub(crate) fn free_port() -> u16 {
    // HTTP and what operators use; WebTransport and QUIC.
    const OF_A_NODE: u16 = 4;
    let blocks = (PORTS.end - PORTS.start) / OF_A_NODE;
    let begin = u16::try_from(process_id() % u32::from(blocks / 64) * 64).unwrap();
    for _ in 0..blocks {
        let block = (begin + PORTS_TAKEN.fetch_add(1, Ordering::Relaxed)) % blocks;
        let port = PORTS.start + OF_A_NODE * block;
        let has_tcp = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let has_udp = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if has_tcp(port) && has_tcp(port + 1) && has_udp(port + 2) && has_udp(port + 3) {
            return port;
        }
    }
    panic!("no {OF_A_NODE} free ports in {PORTS:?}");
}
