//! Where sessions go when their edge goes: thousands at once, with the machine to themselves, as `cargo test` runs one target after
//! the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "not every target uses all of it")]
mod support;

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::support::{Person, RawSession, number, open_files::open_files_max, text, world::World};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];
const SESSIONS: usize = 5_000;
const DEVICES_OF_EACH: usize = 50;
const WINDOW_MS: u64 = 5_000;
/// How long whoever is refused goes on: this one process shakes hands for all.
const GOES_ON: Duration = Duration::from_secs(120);
/// As the SDK's own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that who is refused a connection waits before it tries again.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Where one session was told to go, and when.
struct Told {
    edge: String,
    after_ms: u64,
}

/// Says Hello until it is welcomed, and how often it was not: while nobody has taken the lost region's place yet, and where a Hello's turn
/// has not come in time, an edge refuses, with the time after which to come again; and with more handshakes of QUIC than it has room for,
/// it refuses the connection.
async fn come_back(port: u16, device: &Person) -> (RawSession, usize) {
    let deadline = Instant::now() + GOES_ON;
    for refusals in 0.. {
        let connected = timeout(CONNECT_TIMEOUT, RawSession::try_connect(port)).await;
        let Ok(Ok(mut session)) = connected else {
            assert!(
                Instant::now() < deadline,
                "{refusals} refusals; {:?}",
                connected.map(|_| ())
            );
            sleep(REFUSED_PAUSE.mul_f64(rand::random())).await;
            continue;
        };
        let answer = session.hello(&device.token, &device.device_id, &[]).await;
        if answer["welcome"].is_object() {
            return (session, refusals);
        }
        let error = &answer["error"];
        let code = text(&error["code"]);
        assert!(
            matches!(code.as_str(), "UNAVAILABLE" | "RESOURCE_EXHAUSTED"),
            "{answer}"
        );
        assert!(Instant::now() < deadline, "{refusals} refusals: {answer}");
        let after_ms = &error["retryAfterMs"];
        assert!(after_ms.is_string(), "a refusal that says when to come again: {answer}");
        sleep(Duration::from_millis(number(after_ms))).await;
    }
    unreachable!("it ends with a welcome or at the deadline")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_comes_back_at_the_moments_and_edges_that_it_was_given() {
    // The files of this process and, as many again, of what it starts besides.
    let files = open_files_max();
    let sessions = SESSIONS.min(files.saturating_sub(500) / 2);
    if sessions < SESSIONS {
        eprintln!("skipped in part: the hard limit of {files} open files leaves {sessions} of {SESSIONS} sessions");
    }
    let mut world = World::stopped(&THREE);
    for setting in [
        format!("edge.reconnect_window_ms={WINDOW_MS}"),
        // They say nothing while the others come, which takes a busy machine minutes.
        "edge.heartbeat_ms=600000".to_owned(),
        // This one process shakes hands for all of them, over QUIC not quickly.
        "edge.hello_timeout_ms=60000".to_owned(),
        "edge.credential_rate_per_second=0".to_owned(),
        "edge.address_rate_per_second=0".to_owned(),
        "edge.handshake_rate_per_second=0".to_owned(),
        "edge.connections_per_address_max=20000".to_owned(),
        "edge.sessions_per_user_max=100".to_owned(),
    ] {
        world.flag("--set");
        world.flag(&setting);
    }
    world.restart().await;
    let port = world.port(THREE[0]);
    let world = &world;
    let crowd = stream::iter(0..sessions.div_ceil(DEVICES_OF_EACH)).map(|at| async move {
        let person = world.person(THREE[0], &format!("person{at}")).await;
        let mut open = Vec::new();
        for device in 0..DEVICES_OF_EACH {
            let device = Person::log_in(&world.http(THREE[0]), &person.name, &format!("device{device}")).await;
            let session = RawSession::open(port, &device, &[]).await;
            open.push((device, session));
        }
        open
    });
    let crowd: Vec<Vec<(Person, RawSession)>> = crowd.buffer_unordered(16).collect().await;
    let crowd: Vec<(Person, RawSession)> = crowd.into_iter().flatten().collect();
    let count = crowd.len();
    assert!(count >= sessions, "{count} of {sessions} sessions");

    let restarted = world
        .admin(Method::POST, "/regions/us-east/restart", r#"{"downMs":60000}"#)
        .await;
    assert_eq!(restarted.0, 200, "{}", restarted.1);
    let leaving = Instant::now();
    let returns = stream::iter(crowd).map(|(device, mut session)| async move {
        let goaway = session.event("goaway").await;
        let told = Told {
            edge: text(&goaway["edges"][0]),
            after_ms: goaway.get("reconnectAfterMs").map_or(0, number),
        };
        drop(session);
        sleep_until(leaving + Duration::from_millis(told.after_ms)).await;
        let port: u16 = told.edge.rsplit(':').next().unwrap().parse().unwrap();
        let (back, refusals) = come_back(port, &device).await;
        (told, back, refusals)
    });
    let returns: Vec<(Told, RawSession, usize)> = returns.buffer_unordered(count).collect().await;

    let mut edges: BTreeMap<String, usize> = BTreeMap::new();
    let mut tenths = [0_usize; 10];
    for (told, back, _) in &returns {
        *edges.entry(text(&back.welcome["region"])).or_default() += 1;
        assert!(told.after_ms < WINDOW_MS);
        tenths[usize::try_from(told.after_ms * 10 / WINDOW_MS).unwrap()] += 1;
    }
    let refusals: usize = returns.iter().map(|(.., refusals)| refusals).sum();
    eprintln!(
        "{count} sessions: {edges:?}; by tenths of {WINDOW_MS} ms: {tenths:?}; {refusals} refusals; all back after {} ms",
        leaving.elapsed().as_millis()
    );
    assert_eq!(edges.keys().collect::<Vec<_>>(), ["ap-northeast", "eu-central"]);
    assert!(edges.values().all(|there| there.abs_diff(count / 2) <= 1), "{edges:?}");
    // To the millisecond: a tenth more or less by rounding.
    assert!(
        tenths.iter().all(|tenth| tenth.abs_diff(count / 10) <= count / 100),
        "{tenths:?}"
    );
}
