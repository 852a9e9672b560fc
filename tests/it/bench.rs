//! `antiphon bench`: each scenario over each transport, small.

use std::{fs, path::Path};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{forget_what_steers_tests, server::free_port, world::free_block};

const TRANSPORTS: [&str; 3] = ["websocket", "webtransport", "quic"];

/// The figures of each run, and what was printed.
async fn bench(arguments: &[&str]) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    // Several regions are a world, which has hundreds of ports.
    let port = if arguments.contains(&"--regions") {
        free_block()
    } else {
        free_port()
    };
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

/// Nothing is lost or refused in any of these runs.
fn nothing_is_missing(all: &[Value]) {
    for run in all {
        assert_eq!(
            (&run["lost"], &run["refused"]),
            (&Value::from(0), &Value::from(0)),
            "{run}"
        );
    }
}

/// Of how many messages that were due it is known how long they took, whenever that was.
fn samples(run: &Value) -> u64 {
    run["samples"].as_u64().unwrap()
}

/// Of how many that was in the time that is measured.
fn in_time(run: &Value, per_s: &str, seconds: f64) -> u64 {
    let count = run[per_s].as_f64().unwrap() * seconds;
    assert!(count > 0.0 && (count - count.round()).abs() < 0.001, "{per_s} of {run}");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    {
        count.round() as u64
    }
}

/// How many of one user's, one each `pause_ms`, were in that time at the least: whatever is due longer before its end than the slowest took,
/// which p99.9 is of fewer than a thousand samples.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
fn early(run: &Value, pause_ms: f64, seconds: f64) -> u64 {
    assert!(samples(run) < 1_000, "{run}");
    let slowest_ms = run["p999Ms"].as_f64().unwrap();
    ((seconds * 1_000.0 - slowest_ms) / pause_ms).max(0.0) as u64
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
    nothing_is_missing(&all);
    for run in &all {
        // Each of six has one to send every 60 ms, from a random time on; how many are answered in that time is the machine's.
        assert!((198..=204).contains(&samples(run)), "{run}");
        assert!(in_time(run, "messagesPerS", 2.0) <= samples(run), "{run}");
        assert!(
            in_time(run, "deliveriesPerS", 2.0) >= 6 * early(run, 60.0, 2.0),
            "{run}"
        );
        assert!(run["serverCpuUsPerMessage"].as_f64().unwrap() > 0.0, "{run}");
        assert!(run["fsyncsPerMessage"].as_f64().unwrap() > 0.0, "{run}");
        assert!(run["p50Ms"].as_f64() <= run["p99Ms"].as_f64(), "{run}");
    }
    assert_eq!(table.lines().count(), 4, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_may_speak_json_over_websocket_alone() {
    let load = "pairs --pairs 3 --rate 100 --warm-up 0 --seconds 1 --codec json --transport";
    let arguments: Vec<&str> = load.split(' ').collect();
    let (all, table) = bench(&[&arguments[..], &["ws"]].concat()).await;
    nothing_is_missing(&all);
    assert_eq!(all[0]["codec"], "json");
    assert!((96..=102).contains(&samples(&all[0])), "{all:?}");
    assert!(
        in_time(&all[0], "deliveriesPerS", 1.0) >= 6 * early(&all[0], 60.0, 1.0),
        "{all:?}"
    );
    assert!(table.contains("json"), "{table}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.arg("bench").args(&arguments).arg("quic");
    forget_what_steers_tests(&mut command);
    let refused = command.output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("--codec json is for --transport ws"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_seldom_talk_stay_connected() {
    // Each of ten has a message to send every ten seconds, and is silent for longer than the edge bears.
    let load = "pairs --pairs 5 --rate 1 --warm-up 0 --seconds 6 --transport quic --set edge.heartbeat_ms=1000";
    let (all, _) = bench(&load.split(' ').collect::<Vec<_>>()).await;
    nothing_is_missing(&all);
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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_is_told_although_it_cannot_be_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    let pairs = "bench pairs --pairs 2 --rate 20 --warm-up 0 --seconds 2 --transport ws --base-port";
    command.args(pairs.split(' ')).arg(free_port().to_string());
    command
        .arg("--plot")
        .arg(folder.path().join("missing").join("pairs.svg"))
        .kill_on_drop(true);
    forget_what_steers_tests(&mut command);
    let output = command.output().await.unwrap();
    let (told, said) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(
        !output.status.success() && said.contains("--plot") && said.contains("pairs.svg"),
        "{said}"
    );
    assert!(told.contains("messages/s") && told.lines().count() == 2, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_rate_is_not_begun_if_it_is_to_be_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(["bench", "idle", "--connections", "2", "--settle", "0", "--base-port"]);
    command.arg(free_port().to_string()).kill_on_drop(true);
    command.arg("--plot").arg(folder.path().join("idle.svg"));
    forget_what_steers_tests(&mut command);
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.starts_with("antiphon: --plot draws scenarios in which users talk"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_has_the_settings_and_the_file_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuned.toml");
    fs::write(&file, "[edge]\nno_such_in_file = 1\n").unwrap();
    for (flag, value, named) in [
        ("--set", "edge.no_such_flag=1", "no_such_flag"),
        ("--config", file.to_str().unwrap(), "no_such_in_file"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.args([
            "bench",
            "idle",
            "--connections",
            "2",
            "--settle",
            "0",
            flag,
            value,
            "--base-port",
        ]);
        command.arg(free_port().to_string()).kill_on_drop(true);
        forget_what_steers_tests(&mut command);
        let output = command.output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(named), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_over_tls_are_held_against_the_yardstick_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("groups.svg");
    let arguments = [
        &[
            "groups",
            "--sizes",
            "3:2,5:1",
            "--rate",
            "110",
            "--warm-up",
            "0",
            "--seconds",
            "2",
        ][..],
        &[
            "--transport",
            "ws",
            "--tls",
            "--yardstick",
            "--plot",
            plot.to_str().unwrap(),
        ],
    ];
    let (all, printed) = bench(&arguments.concat()).await;
    nothing_is_missing(&all);
    let run = &all[0];
    // Each of eleven users sends ten a second: six of them to two others, five to four.
    assert_eq!(samples(run), 20 * (6 * 2 + 5 * 4), "{run}");
    assert!(in_time(run, "messagesPerS", 2.0) <= 20 * 11, "{run}");
    let received = in_time(run, "deliveriesPerS", 2.0);
    assert!(received <= samples(run), "{run}");
    assert!(received >= early(run, 100.0, 2.0) * (6 * 2 + 5 * 4), "{run}");
    let [messages_per_s, deliveries_per_s] = ["messagesPerS", "deliveriesPerS"].map(|name| run[name].as_f64().unwrap());
    assert!(run["toAllP99Ms"].as_f64() >= run["toAllP50Ms"].as_f64(), "{run}");
    let echo = run["yardstick"]["echoPerS"].as_f64().unwrap();
    assert!(
        (run["ratio"]["echo"].as_f64().unwrap() * echo - deliveries_per_s).abs() < 1.0,
        "{run}"
    );
    let fdatasync = run["yardstick"]["fdatasyncPerS"].as_f64().unwrap();
    assert!(
        (run["ratio"]["fdatasync"].as_f64().unwrap() * fdatasync - messages_per_s).abs() < 1.0,
        "{run}"
    );
    assert!(printed.contains("yardstick: "), "{printed}");
    for column in ["of echo", "of fdatasync", "of codec"] {
        assert!(printed.contains(column), "{printed}");
    }
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_refused_with_a_time_to_come_again_and_nothing_is_lost() {
    let load = "overload --pairs 50 --calm-rate 50 --calm 2 --rate 3000 --seconds 3 --warm-up 0 --transport ws";
    let settings = ["--set", "edge.sends_in_flight_max=10"];
    let arguments: Vec<&str> = load.split(' ').chain(settings).collect();
    let (all, printed) = bench(&arguments).await;
    let run = &all[0];
    assert!(run["refused"].as_u64() > Some(0), "{run}");
    assert_eq!(
        (&run["refusedForGood"], &run["lost"]),
        (&Value::from(0), &Value::from(0)),
        "{run}"
    );
    assert!(
        run["messagesPerS"].as_f64() > Some(0.0) && run["slowSeconds"].is_number(),
        "{run}"
    );
    // More than all that is sent in the calm, and less than what is offered.
    let within = run["overloadMessagesPerS"].as_f64().unwrap();
    assert!((50.0..3_000.0).contains(&within), "{run}");
    assert!(run["slowAboveMs"].as_f64() > Some(0.0), "{run}");
    assert!(printed.contains("slow seconds"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sizes_are_run_one_after_the_other_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("growth.svg");
    let load = "pairs --pairs 2,3 --stored 0,60 --rate 40 --warm-up 0 --seconds 1 --transport ws --plot";
    let arguments: Vec<&str> = load.split(' ').chain([plot.to_str().unwrap()]).collect();
    let (all, _) = bench(&arguments).await;
    nothing_is_missing(&all);
    let of = |run: &Value| (run["connections"].as_u64().unwrap(), run["stored"].as_u64().unwrap());
    let runs: Vec<(u64, u64)> = all.iter().map(of).collect();
    assert_eq!(runs, [(4, 0), (4, 60), (6, 0), (6, 60)]);
    assert!(all.iter().all(|run| run["duplicated"] == 0), "{all:?}");
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(
        svg.contains("messages stored before") && svg.contains("a delivery"),
        "{svg}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_several_conversations_each() {
    let load = "pairs --users 5 --pairs 3,10 --stored 20 --rate 60 --warm-up 0 --seconds 1 --transport ws";
    let (all, _) = bench(&load.split(' ').collect::<Vec<_>>()).await;
    nothing_is_missing(&all);
    let of = |run: &Value| {
        (
            run["connections"].as_u64().unwrap(),
            run["conversations"].as_u64().unwrap(),
        )
    };
    // Three pairs in a row have four users.
    assert_eq!(all.iter().map(of).collect::<Vec<_>>(), [(4, 3), (5, 10)]);
    assert_eq!(
        (&all[0]["stored"], &all[1]["stored"]),
        (&Value::from(18), &Value::from(20)),
        "as many each"
    );
    assert!(all.iter().all(|run| run["duplicated"] == 0), "{all:?}");
    assert_eq!(all.iter().map(samples).collect::<Vec<_>>(), [60, 60], "{all:?}");
    for (users, run) in [4_u32, 5].into_iter().zip(&all) {
        let each = early(run, f64::from(users) * 1_000.0 / 60.0, 1.0);
        assert!(in_time(run, "deliveriesPerS", 1.0) >= u64::from(users) * each, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_talks_and_all_others_listen_in_two_regions() {
    let arguments = [
        "broadcast",
        "--members",
        "20",
        "--rate",
        "10",
        "--warm-up",
        "0",
        "--seconds",
        "2",
    ];
    let (all, _) = bench(&[&arguments[..], &["--transport", "ws", "--regions", "2"]].concat()).await;
    nothing_is_missing(&all);
    assert_eq!(samples(&all[0]), 20 * 19, "{all:?}");
    assert!(
        in_time(&all[0], "deliveriesPerS", 2.0) >= early(&all[0], 100.0, 2.0) * 19,
        "{all:?}"
    );
    assert_eq!(all[0]["connections"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_goes_by_and_nothing_is_lost_or_doubled() {
    let arguments = [
        "mixed",
        "--sizes",
        "2:10,5:4",
        "--rate",
        "80",
        "--warm-up",
        "0",
        "--seconds",
        "6",
    ];
    let (all, _) = bench(&[&arguments[..], &["--transport", "ws"]].concat()).await;
    nothing_is_missing(&all);
    assert_eq!(
        (&all[0]["duplicated"], &all[0]["brokenRules"]),
        (&Value::from(0), &Value::from(0)),
        "{all:?}"
    );
    // Each of forty has twelve to send in its day; half of them talk with one other, half with four.
    assert_eq!(samples(&all[0]), 12 * (20 + 20 * 4), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_gets_everything() {
    let storm = [
        "reconnect-storm",
        "--connections",
        "30",
        "--listeners",
        "10",
        "--missed",
        "30",
        "--times",
        "2",
        "--settle",
        "0",
    ];
    let (all, _) = bench(&storm).await;
    nothing_is_missing(&all);
    assert_eq!(all.len(), TRANSPORTS.len() * 2);
    for (at, run) in all.iter().enumerate() {
        assert_eq!(run["time"], at % 2 + 1, "{run}");
        assert!(run["serverRssBytesBefore"].as_u64() > Some(0), "{run}");
        // What is there at the end is no more than the most that there was.
        assert!(
            run["serverRssBytesMax"].as_u64() >= run["serverRssBytes"].as_u64(),
            "{run}"
        );
        assert!(run["serverRssBytesEmpty"].as_u64() > Some(0), "{run}");
        assert!(run["serverRssBytesAfter"].as_u64() > Some(0), "{run}");
    }
    let sync = [
        "sync",
        "--devices",
        "2",
        "--conversations",
        "3",
        "--missed",
        "150",
        "--settle",
        "0",
        "--transport",
        "ws",
    ];
    let (all, _) = bench(&sync).await;
    nothing_is_missing(&all);
    assert!(all[0]["allBackMs"].as_f64() >= all[0]["p50Ms"].as_f64(), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_messages_are_read_at_a_rate() {
    let history = [
        "history",
        "--readers",
        "2",
        "--messages",
        "120",
        "--rate",
        "40",
        "--warm-up",
        "1",
        "--seconds",
        "2",
        "--yardstick",
    ];
    let (all, _) = bench(&[&history[..], &["--transport", "ws", "--runs", "2"]].concat()).await;
    for run in &all {
        assert_eq!(run["refused"], 0, "{run}");
        assert_eq!(samples(run), 80, "{run}");
        // Those of the warm-up may be late.
        let read = in_time(run, "pagesPerS", 2.0);
        assert!((2 * early(run, 50.0, 2.0)..=40 + 80).contains(&read), "{run}");
        // Of fifty messages at the most, of 120; fewer at the beginning.
        let each = run["deliveriesPerS"].as_f64().unwrap() / run["pagesPerS"].as_f64().unwrap();
        assert!((25.0..50.0).contains(&each), "{run}");
        assert!(run["ratio"]["echo"].as_f64() > Some(0.0), "{run}");
    }
    assert_eq!(all.iter().map(|run| &run["run"]).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_seldom_read_stay_connected() {
    let history = "history --readers 2 --messages 5 --rate 0.4 --warm-up 0 --seconds 6 --set edge.heartbeat_ms=1000 --transport ws";
    // A page in five seconds each, of which an edge bears two without a sign.
    let (all, _) = bench(&history.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(all[0]["refused"], 0, "{all:?}");
    assert!(all[0]["pagesPerS"].as_f64() > Some(0.0), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_rate_is_looked_for_until_there_is_none() {
    let load = [
        "pairs",
        "--pairs",
        "1",
        "--rate",
        "2",
        "--warm-up",
        "0",
        "--seconds",
        "1",
    ];
    let find = ["--transport", "ws", "--find-max", "--p99-ms", "0.001"];
    let (all, printed) = bench(&[&load[..], &find].concat()).await;
    assert!(
        printed.ends_with("websocket, no rate that was tried has p99 <= 0.001 ms\n"),
        "{printed}"
    );
    let offered: Vec<f64> = all.iter().map(|run| run["offeredPerS"].as_f64().unwrap()).collect();
    assert_eq!(offered, [1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_rate_of_several_searches_is_told_with_its_spread() {
    let load = "pairs --pairs 1 --rate 2 --warm-up 0 --seconds 1 --transport ws --find-max --p99-ms 0.001 --runs 2";
    let (all, printed) = bench(&load.split(' ').collect::<Vec<_>>()).await;
    let of_search: Vec<(u64, bool)> = all
        .iter()
        .map(|run| (run["run"].as_u64().unwrap(), run["isKept"].as_bool().unwrap()))
        .collect();
    assert_eq!(of_search, [(1, false), (1, false), (2, false), (2, false)]);
    assert!(
        printed.ends_with("websocket, no rate that was tried has p99 <= 0.001 ms\n"),
        "{printed}"
    );
}
