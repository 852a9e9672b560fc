use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio, id as process_id},
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    Http, Person, forget_what_steers_tests,
    http::get,
    store::{self, flags},
    until,
};

/// Below those of single nodes, in blocks of one world. No edge is at a port that browsers refuse to fetch from (6000 among them).
const PORTS: std::ops::Range<u16> = 2_010..9_810;
const BLOCK: u16 = 500;

static BLOCKS_TAKEN: AtomicU16 = AtomicU16::new(0);

/// The real binary as the supervisor of up to five regions, with its own folder and ports.
pub(crate) struct World {
    folder: TempDir,
    /// In the order of their places.
    regions: Vec<String>,
    gone: Vec<String>,
    base_port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl World {
    /// Starts a world and waits until it says that it is ready.
    pub(crate) async fn start(regions: &[&str]) -> Self {
        let mut world = Self::stopped(regions);
        world.restart().await;
        world
    }

    /// A world that was not started yet.
    pub(crate) fn stopped(regions: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            flags: flags(store::cluster(), folder.path()),
            folder,
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            gone: Vec::new(),
            base_port: free_block(),
            child: None,
        }
    }

    /// A name for the region that comes next; it has its place before it is there.
    pub(crate) fn make_room(&mut self, region: &str) {
        self.regions.push(region.to_owned());
    }

    /// A region is there no more; what it was called is not used again. Ports belong to places, so the last takes no other.
    pub(crate) fn forget(&mut self, region: &str) {
        self.gone.push(region.to_owned());
    }

    /// One more argument for `antiphon up`.
    pub(crate) fn flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Starts again on the same folder and ports, and waits until it says that it is ready.
    pub(crate) async fn restart(&mut self) {
        let before = self.readies();
        self.begin();
        until("`ready`", || async { (self.readies() > before).then_some(()) }).await;
    }

    /// Starts and does not wait.
    pub(crate) fn begin(&mut self) {
        let there = self.regions.iter().filter(|region| !self.gone.contains(region));
        self.spawn(&there.map(String::as_str).collect::<Vec<_>>().join(","));
    }

    /// How often it has said that it is ready.
    pub(crate) fn readies(&self) -> usize {
        self.said().lines().filter(|line| *line == "ready").count()
    }

    /// Starts with other regions than the world's own, and waits for the end.
    pub(crate) async fn refused(&mut self, regions: &str) -> String {
        let running = self.child.take();
        self.spawn(regions);
        assert!(!self.ended().await.success());
        self.child = running;
        self.log()
    }

    fn spawn(&mut self, regions: &str) {
        let open = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(self.folder.path().join(name))
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command
            .args(["up", "--regions", regions])
            .arg("--data")
            .arg(self.data())
            .args(["--base-port", &self.base_port.to_string()])
            .args(["--set", "identity.password_memory_kib=64"])
            .args(["--set", "identity.password_iterations=1"])
            .args(&self.flags)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(open("said").unwrap())
            .stderr(open("log").unwrap())
            .kill_on_drop(true);
        forget_what_steers_tests(&mut command);
        self.child = Some(command.spawn().unwrap());
    }

    /// kill -9 of the supervisor alone.
    pub(crate) async fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    }

    /// Sends the supervisor a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        signal(name, self.child.as_ref().and_then(Child::id).unwrap()).await;
    }

    /// Waits until the supervisor has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        tokio::time::timeout(super::PATIENCE, child.wait())
            .await
            .expect("the world does not end")
            .unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the pid file of a region says.
    pub(crate) fn pid(&self, region: &str) -> Option<u32> {
        let text = fs::read_to_string(self.data().join(region).join("pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Sends a region a signal by its name, by the region's pid file.
    pub(crate) async fn signal_region(&self, name: &str, region: &str) {
        signal(name, self.pid(region).unwrap()).await;
    }

    /// Waits until a region says that it is ready.
    pub(crate) async fn ready(&self, region: &str) {
        until(&format!("{region} is ready"), || async {
            let answer = get(format!("{}/readyz", self.admin_url(region))).await;
            answer.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
    }

    /// The first of its ports.
    pub(crate) fn base_port(&self) -> u16 {
        self.base_port
    }

    /// The port of HTTP and WebSocket of a region.
    pub(crate) fn port(&self, region: &str) -> u16 {
        let index = self.regions.iter().position(|name| name == region).unwrap();
        self.base_port + 100 * u16::try_from(index).unwrap()
    }

    pub(crate) fn admin_url(&self, region: &str) -> String {
        format!("http://127.0.0.1:{}", self.port(region) + 1)
    }

    pub(crate) fn http(&self, region: &str) -> Http {
        Http::new(&format!("http://127.0.0.1:{}", self.port(region)))
    }

    /// Registers in a region and logs in.
    pub(crate) async fn person(&self, region: &str, name: &str) -> Person {
        Person::register(&self.http(region), name).await
    }

    /// What the world's admin port answers.
    pub(crate) async fn admin(&self, method: reqwest::Method, path: &str, body: &str) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.base_port + 99);
        let request = antiphon_client::http_client(None)
            .request(method, url)
            .body(body.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// What it printed for whoever started it.
    pub(crate) fn said(&self) -> String {
        self.read(Path::new("said"))
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        self.read(Path::new("log"))
    }

    fn read(&self, name: &Path) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the world on port {} said:\n{}{}---",
                self.base_port,
                self.said(),
                self.log()
            );
            for region in &self.regions {
                eprintln!(
                    "--- {region}:\n{}---",
                    self.read(&Path::new("data").join(region).join("log"))
                );
            }
        }
    }
}

async fn signal(name: &str, pid: u32) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
    assert!(sent.success(), "kill -s {name} {pid}: {sent}");
}

/// Whether a process runs; one that has ended and that nobody asked about does not.
pub(crate) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// The process group of a process.
pub(crate) fn group(pid: u32) -> u32 {
    stat(pid).unwrap()[2].parse().unwrap()
}

/// State, parent, group and so on; see proc(5).
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may hold anything but the last bracket.
    let fields = stat.rsplit(')').next()?.split_whitespace();
    Some(fields.map(str::to_owned).collect())
}

/// The first port of a block of which all are free. Each process of tests begins elsewhere.
pub(crate) fn free_block() -> u16 {
    let blocks = (PORTS.end - PORTS.start) / BLOCK;
    let begin = u16::try_from(process_id() % u32::from(blocks)).unwrap();
    for _ in 0..blocks {
        let block = (begin + BLOCKS_TAKEN.fetch_add(1, Ordering::Relaxed)) % blocks;
        let first = PORTS.start + block * BLOCK;
        if (first..first + BLOCK).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no block of {BLOCK} free ports in {PORTS:?}");
}
