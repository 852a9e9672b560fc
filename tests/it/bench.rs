//! `antiphon bench`: each scenario over each transport, small.

use std::{fs, path::Path};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{forget_what_steers_tests, server::free_port};

const TRANSPORTS: [&str; 3] = ["websocket", "webtransport", "quic"];

/// The figures of each run, and the table.
async fn bench(arguments: &[&str]) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    let port = free_port();
    command
        .arg("bench")
        .args(arguments)
        .args(["--base-port", &port.to_string()])
        .arg("--json")
        .arg(&json)
        .kill_on_drop(true);
    forget_what_steers_tests(&mut command);
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (figures(&json), String::from_utf8(output.stdout).unwrap())
}

fn figures(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_lose_nothing_over_any_transport_and_their_cost_is_told() {
    let flags = ["--pairs", "3", "--rate", "100", "--warm-up", "0", "--seconds", "2"];
    let (all, table) = bench(&[&["pairs"], &flags[..]].concat()).await;
    let transports: Vec<&str> = all.iter().map(|run| run["transport"].as_str().unwrap()).collect();
    assert_eq!(transports, TRANSPORTS);
    for run in &all {
        assert_eq!(
            (&run["lost"], &run["refused"]),
            (&Value::from(0), &Value::from(0)),
            "{run}"
        );
        // Of 200 that are due in two seconds; the users' first messages are due at random times.
        let sent = run["messagesPerS"].as_f64().unwrap() * 2.0;
        assert!((190.0..=210.0).contains(&sent), "{run}");
        assert!(run["serverCpuUsPerMessage"].as_f64().unwrap() > 0.0, "{run}");
        assert!(run["p50Ms"].as_f64() <= run["p99Ms"].as_f64(), "{run}");
    }
    assert_eq!(table.lines().count(), 4, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_over_quic_saves_a_round_trip() {
    let (all, _) = bench(&["connect", "--transport", "quic", "--delay-ms", "100", "--times", "3"]).await;
    let trips = |name: &str| all[0][name].as_f64().unwrap();
    // The path's own time is the least there is.
    assert!(trips("roundTripsResumed") >= 1.0, "{all:?}");
    assert!(trips("roundTripsCold") >= 2.0, "{all:?}");
    assert!(trips("roundTripsFirst") >= 4.0, "{all:?}");
    assert!(trips("roundTripsResumed") < trips("roundTripsCold"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_all_there_still() {
    let (all, _) = bench(&["idle", "--connections", "120", "--settle", "0"]).await;
    assert!(all.iter().all(|run| run["connections"] == 120), "{all:?}");
    assert_eq!(all.len(), 3);
}
