//! A FoundationDB cluster of its own for a test: real processes on loopback ports, in a temporary folder. They end with the test's process.
#![allow(dead_code, reason = "not every target uses all of it")]
#![allow(clippy::disallowed_methods, reason = "waits for processes, on threads that may wait")]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long a cluster may take to do what is asked of it: long, because machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Keeps a server running as long as there is a file `run`, and until its standard input ends: then the test's process is gone.
const KEEPER: &str = r#"
root=$1; folder=$2; shift 2
(
    while :; do
        if [ -e "$folder/run" ]; then
            "$@" </dev/null >>"$folder/out" 2>&1 &
            echo $! >"$folder/pid.new"; mv "$folder/pid.new" "$folder/pid"
            wait $!
            rm -f "$folder/pid"
        fi
        sleep 0.1
    done
) &
loop=$!
cat >/dev/null
kill -9 $loop
[ -e "$folder/pid" ] && kill -9 "$(cat "$folder/pid")"
rm -rf "$root"
"#;

/// FoundationDB's programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    server: PathBuf,
    cli: PathBuf,
}

impl Programs {
    /// In the folder that `ANTIPHON_FDB_BIN` names, or else where programs are; None when they are not there.
    pub(crate) fn find() -> Option<Self> {
        let own = env::var_os("ANTIPHON_FDB_BIN").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        own.into_iter().chain(env::split_paths(&path)).find_map(|folder| {
            let programs = Self {
                server: folder.join("fdbserver"),
                cli: folder.join("fdbcli"),
            };
            (programs.server.is_file() && programs.cli.is_file()).then_some(programs)
        })
    }
}

/// PEM files with which a cluster speaks TLS.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Tls {
    fn arguments(&self) -> [String; 3] {
        [
            format!("--tls-certificate-file={}", self.certificate.display()),
            format!("--tls-key-file={}", self.key.display()),
            format!("--tls-ca-file={}", self.ca.display()),
        ]
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    programs: Programs,
    tls: Option<Tls>,
    root: TempDir,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    address: String,
    folder: PathBuf,
    keeper: Child,
}

impl Cluster {
    /// Starts so many servers and makes a database of them, such as `single memory`.
    pub(crate) fn start(programs: Programs, servers: usize, kind: &str) -> Self {
        Self::start_with(programs, servers, kind, None)
    }

    /// As [`Cluster::start`]; with files the servers speak TLS alone.
    pub(crate) fn start_with(programs: Programs, servers: usize, kind: &str, tls: Option<Tls>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut addresses = addresses(servers);
        if tls.is_some() {
            addresses.iter_mut().for_each(|address| address.push_str(":tls"));
        }
        fs::write(
            root.path().join("fdb.cluster"),
            format!("test:antiphon@{}\n", addresses.join(",")),
        )
        .unwrap();
        let mut cluster = Self {
            programs,
            tls,
            root,
            servers: Vec::new(),
        };
        for (at, address) in addresses.into_iter().enumerate() {
            let server = cluster.launch(at, address);
            cluster.servers.push(server);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = cluster.cli(&format!("configure new {kind}"));
            if said.contains("Database created") || said.contains("already exists") {
                break;
            }
            assert!(Instant::now() < deadline, "the database cannot be created: {said}");
            thread::sleep(LOOK_AGAIN);
        }
        cluster.until_available();
        cluster
    }

    fn launch(&self, at: usize, address: String) -> Server {
        let folder = self.root.path().join(format!("server{at}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("run"), "").unwrap();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(self.root.path())
            .arg(&folder)
            .arg(&self.programs.server)
            .args(["--public-address", &address, "--listen-address", "public"])
            .arg("--cluster-file")
            .arg(self.cluster_file())
            .arg("--datadir")
            .arg(folder.join("data"))
            .arg("--logdir")
            .arg(folder.join("log"))
            // Copies of a `double` database go to different zones.
            .args([
                format!("--locality-zoneid=zone{at}"),
                format!("--locality-machineid=zone{at}"),
            ])
            .args(self.tls_arguments())
            // File systems of containers may not know the kernel's way.
            .args(["--cache-memory", "64MiB", "--knob_disable_posix_kernel_aio=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server {
            address,
            folder,
            keeper,
        }
    }

    fn tls_arguments(&self) -> impl Iterator<Item = String> {
        self.tls.iter().flat_map(Tls::arguments)
    }

    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.root.path().join("fdb.cluster")
    }

    /// What `fdbcli` says to some commands.
    pub(crate) fn cli(&self, commands: &str) -> String {
        let said = Command::new(&self.programs.cli)
            .arg("-C")
            .arg(self.cluster_file())
            .args(self.tls_arguments())
            .args(["--timeout", "20", "--exec", commands])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        )
    }

    pub(crate) fn until_available(&self) {
        self.until("the database is available", || {
            self.cli("status minimal")
                .contains("The database is available")
                .then_some(())
        });
    }

    /// The address of the process that leads recoveries.
    pub(crate) fn leader(&self) -> String {
        self.until("a leader", || {
            let said = self.cli("status json");
            let status: Value = serde_json::from_str(said.get(said.find('{')?..)?).ok()?;
            let processes = status["cluster"]["processes"].as_object()?.clone();
            let leads = |process: &Value| {
                let roles = process["roles"].as_array().into_iter().flatten();
                roles.into_iter().any(|role| role["role"] == "master")
            };
            let leader = processes.values().find(|process| leads(process))?;
            Some(leader["address"].as_str()?.to_owned())
        })
    }

    /// Sends a signal to every server.
    pub(crate) fn signal_all(&self, name: &str) {
        for at in 0..self.servers.len() {
            self.signal(at, name);
        }
    }

    /// Sends a signal to a server.
    pub(crate) fn signal(&self, at: usize, name: &str) {
        let pid = self.pid(at);
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {pid}: {sent}");
    }

    /// kill -9; it stays away.
    pub(crate) fn kill(&self, at: usize) {
        fs::remove_file(self.servers[at].folder.join("run")).unwrap();
        self.signal(at, "KILL");
        let pid = self.servers[at].folder.join("pid");
        self.until("the end of a server", || (!pid.exists()).then_some(()));
    }

    /// Starts a server that was killed.
    pub(crate) fn start_again(&self, at: usize) {
        fs::write(self.servers[at].folder.join("run"), "").unwrap();
        self.pid(at);
    }

    fn pid(&self, at: usize) -> String {
        let file = self.servers[at].folder.join("pid");
        let read = || Some(fs::read_to_string(&file).ok()?.trim().to_owned());
        self.until("a server runs", read)
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            if Instant::now() >= deadline {
                let said = self.servers.iter().map(|server| last_words(&server.folder));
                let said: Vec<String> = said.collect();
                panic!("{what}: not within {} s; the servers said {said:?}", PATIENCE.as_secs());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.keeper.stdin.take());
        }
        for server in &mut self.servers {
            let _ = server.keeper.wait();
        }
    }
}

fn last_words(folder: &Path) -> String {
    let said = fs::read_to_string(folder.join("out")).unwrap_or_default();
    said.lines().rev().take(5).collect::<Vec<_>>().join(" / ")
}

/// Free ports of the loopback address, all different.
fn addresses(count: usize) -> Vec<String> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect()
}
