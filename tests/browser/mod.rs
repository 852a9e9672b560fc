//! A real browser, Chromium, as a device: skipped where there is none.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
};

use axum::{
    Router,
    http::header,
    routing::{get, post},
};
use reqwest::Url;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::support::{
    PATIENCE, Person, RawSession, Server, quic::UdpPath, quic::Weather, text, wire::Transport, world::World,
};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser; None, and a line that says so, where there is none.
fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: no {} on PATH", NAMES.join(", "));
    }
    found
}

/// A browser with the page of this folder, as a device of a person.
struct Browser {
    _process: Child,
    _profile: TempDir,
    reports: mpsc::Receiver<Value>,
}

impl Browser {
    async fn open(program: PathBuf, edge: &str, person: &Person, talk: &str) -> Self {
        let (to_test, reports) = mpsc::channel(64);
        let report = move |body: String| async move {
            to_test.send(serde_json::from_str(&body).expect("a report")).await.ok();
        };
        let page = || async { ([(header::CONTENT_TYPE, "text/html")], include_str!("page.html")) };
        let script = || async { ([(header::CONTENT_TYPE, "text/javascript")], include_str!("page.js")) };
        let router = Router::new()
            .route("/", get(page))
            .route("/page.js", get(script))
            .route("/report", post(report));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });

        let fields = [
            ("edge", edge),
            ("token", &person.token),
            ("deviceId", &person.device_id),
            ("conversationId", talk),
        ];
        let url = Url::parse_with_params(&format!("http://{at}/"), fields).unwrap();
        let profile = tempfile::tempdir().unwrap();
        let process = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            _process: process,
            _profile: profile,
            reports,
        }
    }

    /// What the page says next.
    async fn says(&mut self) -> Value {
        let said = timeout(PATIENCE * 3, self.reports.recv()).await;
        said.expect("the page says nothing").expect("the page is gone")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_chats_over_webtransport_with_a_websocket_in_another_region() {
    let Some(program) = chromium() else { return };
    let regions = ["us-east", "eu-central", "ap-northeast"];
    let world = World::start(&regions).await;
    let (alice, bob) = (
        world.person(regions[0], "alice").await,
        world.person(regions[2], "bob").await,
    );
    let talk = bob.direct(&alice).await;
    let mut far = RawSession::open_over(Transport::WebSocket, world.port(regions[2]), &bob).await;
    let edge = format!("http://127.0.0.1:{}", world.port(regions[0]));
    let mut page = Browser::open(program, &edge, &alice, &talk).await;
    let said = page.says().await;
    assert_eq!(said["connected"], "webtransport", "{said}");
    chat(&mut far, &mut page, &talk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_falls_back_to_websocket_where_udp_does_not_get_through() {
    let Some(program) = chromium() else { return };
    let blocked = UdpPath::new(9).await;
    blocked.set(Weather {
        is_dead: true,
        ..Weather::default()
    });
    let nowhere = format!("https://127.0.0.1:{}/v1/connect", blocked.port());
    let server = Server::with(&[("edge.web_transport_url", &nowhere)]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = bob.direct(&alice).await;
    let mut other = RawSession::open_over(Transport::WebSocket, server.port(), &bob).await;
    let edge = format!("http://127.0.0.1:{}", server.port());
    let mut page = Browser::open(program, &edge, &alice, &talk).await;
    let said = page.says().await;
    assert_eq!(said["failed"], "webtransport", "{said}");
    let said = page.says().await;
    assert_eq!(said["connected"], "websocket", "{said}");
    chat(&mut other, &mut page, &talk).await;
}

/// The page answers what it is asked, in order and once.
async fn chat(asks: &mut RawSession, page: &mut Browser, talk: &str) {
    for number in 1..=5 {
        let seq = asks.send(talk, &format!("m{number}"), &format!("ping {number}")).await;
        assert_eq!(seq, number * 2 - 1);
        let pong = format!("pong {number}");
        let answer = asks
            .event_where("message", |message| text(&message["text"]) == pong)
            .await;
        assert_eq!(answer["seq"], (number * 2).to_string());
        let said = page.says().await;
        assert_eq!(said["heard"], format!("ping {number}"), "{said}");
    }
}
