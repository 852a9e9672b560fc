//! What black-box tests share: a real server process, people over REST, sessions over a raw WebSocket.
//!
//! Nothing here is the SDK: frames are JSON by hand, so that the protocol itself is what is tested.

#![allow(dead_code, reason = "each target uses a part of it")]

pub mod checker;
pub mod session;

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use session::Session;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server process on ports and a data folder of its own.
pub struct Server {
    folder: TempDir,
    base_port: u16,
    environment: Vec<(String, String)>,
    process: Option<Child>,
    http: reqwest::Client,
}

impl Server {
    /// Starts a server with its defaults.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with settings, as in `("identity.access_token_ttl_s", "1")`.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let environment = settings
            .iter()
            .map(|(key, value)| {
                (
                    format!("ANTIPHON_{}", key.to_uppercase().replacen('.', "__", 1)),
                    (*value).to_owned(),
                )
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let base_port = free_ports();
        let mut server = Self {
            folder,
            base_port,
            environment,
            process: None,
            http: reqwest::Client::new(),
        };
        server.launch().await;
        server
    }

    /// Starts the process again on the same data and ports.
    pub async fn launch(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .args(["up", "--base-port", &self.base_port.to_string(), "--data"])
            .arg(self.folder.path().join("data"))
            .envs(self.environment.iter().cloned())
            .env_remove("ANTIPHON_CONFIG")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let started = Instant::now();
        while !self.is_ready().await {
            let exited = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "the server ended: {exited:?}\n{}", self.read_log());
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the server does not get ready\n{}",
                self.read_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.admin_url())).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Waits for the process to end by itself; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                self.process = None;
                return status.code();
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the server does not end\n{}",
                self.read_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.base_port)
    }

    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.base_port + 1)
    }

    pub fn port(&self) -> u16 {
        self.base_port
    }

    /// Registers `name` and logs a device in.
    pub async fn person(&self, name: &str) -> Person {
        let body = json!({ "username": name, "password": format!("{name} likes tea") });
        let (status, answer) = self.post("/v1/accounts", None, body).await;
        assert_eq!(status, 201, "{answer}");
        self.log_in(name, &format!("{name}-phone")).await
    }

    /// Logs a device of a registered person in.
    pub async fn log_in(&self, name: &str, device_id: &str) -> Person {
        let body = json!({ "username": name, "password": format!("{name} likes tea"), "deviceId": device_id });
        let (status, answer) = self.post("/v1/tokens", None, body).await;
        assert_eq!(status, 200, "{answer}");
        Person {
            user_id: text(&answer, "userId"),
            access_token: text(&answer, "accessToken"),
            refresh_token: text(&answer, "refreshToken"),
            device_id: device_id.to_owned(),
        }
    }

    /// Two people and their conversation.
    pub async fn pair(&self) -> (Person, Person, String) {
        let (alice, bob) = (self.person("alice").await, self.person("bob").await);
        let conversation = self.direct(&alice, &bob).await;
        (alice, bob, conversation)
    }

    pub async fn direct(&self, from: &Person, to: &Person) -> String {
        let body = json!({ "kind": "direct", "memberIds": [to.user_id] });
        let (status, answer) = self.post("/v1/conversations", Some(from), body).await;
        assert!(status == 200 || status == 201, "{status} {answer}");
        text(&answer, "conversationId")
    }

    pub async fn send(&self, from: &Person, conversation: &str, key: &str, words: &str) -> (u16, Value) {
        let body = json!({ "clientMsgId": key, "text": words });
        self.post(&format!("/v1/conversations/{conversation}/messages"), Some(from), body)
            .await
    }

    /// All of a conversation's history, page by page.
    pub async fn history(&self, who: &Person, conversation: &str) -> Vec<Value> {
        let mut messages: Vec<Value> = Vec::new();
        loop {
            let after = messages.last().map_or(0, |last| number(last, "seq"));
            let path = format!("/v1/conversations/{conversation}/messages?afterSeq={after}&limit=200");
            let (status, page) = self.get(&path, Some(who)).await;
            assert_eq!(status, 200, "{page}");
            let page = page["messages"].as_array().unwrap().clone();
            if page.is_empty() {
                return messages;
            }
            messages.extend(page);
        }
    }

    pub async fn get(&self, path: &str, who: Option<&Person>) -> (u16, Value) {
        self.ask(reqwest::Method::GET, path, who, None).await
    }

    pub async fn post(&self, path: &str, who: Option<&Person>, body: Value) -> (u16, Value) {
        self.ask(reqwest::Method::POST, path, who, Some(body)).await
    }

    pub async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        who: Option<&Person>,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url()));
        if let Some(who) = who {
            request = request.bearer_auth(&who.access_token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn metrics(&self) -> String {
        self.http
            .get(format!("{}/metrics", self.admin_url()))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn read_log(&self) -> String {
        tail(&self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            println!("--- the server's log\n{}", self.read_log());
        }
    }
}

/// An account with a log-in.
#[derive(Debug, Clone)]
pub struct Person {
    pub user_id: String,
    pub access_token: String,
    pub refresh_token: String,
    pub device_id: String,
}

pub fn text(value: &Value, key: &str) -> String {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
        .to_owned()
}

/// A number, also in the canonical JSON of protobuf, where 64 bits are text and 0 is left out.
pub fn number(value: &Value, key: &str) -> u64 {
    match &value[key] {
        Value::Null => 0,
        Value::String(digits) => digits.parse().unwrap(),
        other => other
            .as_u64()
            .unwrap_or_else(|| panic!("{key} is no number in {value}")),
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Two neighbouring ports that nobody listens on, different for each test process and server.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 150).unwrap() * 100;
    loop {
        let base = 20_000 + start + NEXT.fetch_add(2, Ordering::Relaxed) % 10_000;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(base) && is_free(base + 1) {
            return base;
        }
    }
}
