//! The drills as an operator runs them, and the commands that they are made of.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::members::Probe;
use crate::support::{http::get, until, world::World};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];
const BINARY: &str = env!("CARGO_BIN_EXE_antiphon");
/// Machines that run tests are busy.
const DRILL: Duration = Duration::from_secs(300);

async fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    let output = timeout(DRILL, command.output()).await.expect("it does not end");
    output.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `antiphon ctl` prints; it has to succeed.
async fn ctl(world: &World, arguments: &[&str]) -> String {
    let output = try_ctl(world, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn try_ctl(world: &World, arguments: &[&str]) -> Output {
    let admin = format!("http://127.0.0.1:{}", world.base_port() + 1);
    let control = format!("http://127.0.0.1:{}", world.base_port() + 99);
    let fixed = ["ctl", "--admin", &admin, "--world", &control];
    run(Path::new(BINARY), &[&fixed[..], arguments].concat()).await
}

/// Runs a drill with short times; its line and its exit code.
async fn drill(world: &World, name: &str, arguments: &[&str]) -> (Value, i32) {
    drill_with(world, name, BINARY, arguments).await
}

async fn drill_with(world: &World, name: &str, binary: &str, arguments: &[&str]) -> (Value, i32) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scripts/drill-{name}.sh"));
    let port = world.base_port().to_string();
    let fixed = [
        "--base-port",
        &port,
        "--binary",
        binary,
        "--load-seconds",
        "2",
        "--fault-seconds",
        "10",
    ];
    let output = run(&script, &[&fixed[..], arguments].concat()).await;
    let (said, progress) = (text(&output.stdout), text(&output.stderr));
    // What a failed test shows: why a promise is broken is told on the way and not in the verdict.
    eprintln!("{progress}{name}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let line: Value = serde_json::from_str(&said).unwrap();
    let names = [
        "drill",
        "lost",
        "duplicated",
        "reordered",
        "failedSends",
        "writableAgainMs",
        "p99Ms",
    ];
    let object = line.as_object().unwrap();
    assert!(
        object.len() == names.len() && names.iter().all(|name| object.contains_key(*name)),
        "{line}"
    );
    for broken in ["lost", "duplicated", "reordered"] {
        assert_eq!(line[broken], 0, "{line}");
    }
    assert!(line["p99Ms"].as_u64().unwrap() > 0, "{line}");
    (line, output.status.code().unwrap())
}

#[tokio::test]
async fn links_and_processes_are_seen_and_changed() {
    let world = World::start(&THREE).await;
    let shown = ctl(&world, &["link"]).await;
    assert_eq!(shown.lines().count(), 7, "{shown}");
    ctl(&world, &["link", "us-east", "eu-central", "--both", "--delay-ms", "7"]).await;
    let cut = ["link", "us-east", "eu-central", "--state", "blackhole", "--json"];
    let link: Value = serde_json::from_str(&ctl(&world, &cut).await).unwrap();
    assert_eq!(
        (&link[0]["state"], &link[0]["delayMs"]),
        (&"blackhole".into(), &7.into())
    );
    let back = ctl(&world, &["link", "eu-central", "us-east"]).await;
    let row = back.lines().nth(1).unwrap();
    assert!(row.contains("up") && row.contains(" 7 "), "{back}");
    ctl(&world, &["link", "us-east", "eu-central", "--state", "up"]).await;

    let before = world.pid("ap-northeast");
    ctl(&world, &["process", "ap-northeast", "kill"]).await;
    world.ready("ap-northeast").await;
    assert_ne!(world.pid("ap-northeast"), before);
    let shown = ctl(&world, &["process"]).await;
    assert!(shown.lines().count() == 4 && shown.contains("SIGKILL"), "{shown}");
    ctl(&world, &["wait"]).await;

    for (arguments, words) in [
        (
            &["link", "us-east", "mars", "--delay-ms", "1"][..],
            "no link from us-east to mars",
        ),
        (&["link", "us-east", "mars"], "no link from us-east to mars"),
        (&["link", "us-east"], "<TO>"),
        (&["process", "mars", "kill"], "no region mars"),
        (
            &["process", "us-east", "stop", "--down-ms", "5"],
            "goes with kill and restart",
        ),
        (&["process", "us-east", "explode"], "possible values"),
    ] {
        let output = try_ctl(&world, arguments).await;
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains(words),
            "{arguments:?}: {said}"
        );
    }
}

#[tokio::test]
async fn a_region_that_falls_is_stood_in_for_within_the_promised_time() {
    let world = World::start(&THREE).await;
    let (line, code) = drill(&world, "failover", &["--writable-ms-max", "30000"]).await;
    assert_eq!((line["drill"].as_str(), code), (Some("failover"), 0), "{line}");
    // Whoever was connected to it has had to send again.
    assert!(line["failedSends"].as_u64().unwrap() > 0, "{line}");

    // No fail-over is as fast as this, and the drill says so.
    let (line, code) = drill(&world, "failover", &["--writable-ms-max", "1"]).await;
    assert_eq!(code, 1, "{line}");
    assert!(line["writableAgainMs"].as_u64().unwrap() > 1, "{line}");
}

#[tokio::test]
async fn a_drain_fails_no_send() {
    let world = World::start(&THREE).await;
    let (line, code) = drill(&world, "drain", &["--region", "eu-central"]).await;
    assert_eq!((&line["failedSends"], code), (&0.into(), 0), "{line}");
    // It is left as it was found.
    let regions: Value = serde_json::from_str(&ctl(&world, &["regions", "--json"]).await).unwrap();
    for region in regions.as_array().unwrap() {
        assert!(
            region["status"] == "active" && region["homes"].as_u64().unwrap() > 1_000,
            "{regions}"
        );
    }
}

#[tokio::test]
async fn a_region_that_is_cut_off_and_comes_back_breaks_nothing() {
    let world = World::start(&THREE).await;
    let (line, code) = drill(&world, "partition", &[]).await;
    assert_eq!(code, 0, "{line}");
    let links = ctl(&world, &["link"]).await;
    assert!(!links.contains("blackhole"), "{links}");
}

#[tokio::test]
async fn regions_are_restarted_one_after_the_other_without_a_loss() {
    let world = World::start(&THREE).await;
    let (line, code) = drill(&world, "rolling-restart", &[]).await;
    assert_eq!(code, 0, "{line}");
    let world_view = ctl(&world, &["process", "--json"]).await;
    let world_view: Value = serde_json::from_str(&world_view).unwrap();
    for region in world_view["regions"].as_array().unwrap() {
        assert_eq!(region["starts"], 2, "{region}");
    }
}

#[tokio::test]
async fn a_drill_fails_whose_probe_finds_anything_broken() {
    let world = World::start(&THREE).await;
    // Nothing is lost, and the probe says that a rule was broken: as after a send that was refused for good.
    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("antiphon");
    let text = format!(
        "#!/usr/bin/env bash\n[[ $1 == probe ]] || exec {BINARY} \"$@\"\n{BINARY} \"$@\" &\n\
         trap 'kill -TERM $!' TERM\nwait $!\nwait $!\necho 'Error: 1 rules were broken' >&2\nexit 1\n"
    );
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["--fault-seconds", "1"];
    let (line, code) = drill_with(&world, "partition", wrapper.to_str().unwrap(), &arguments).await;
    assert_eq!((&line["lost"], code), (&0.into(), 1), "{line}");
}

#[tokio::test]
async fn an_edge_that_shows_nothing_is_broken_unless_it_is_meant_to_be_away() {
    let world = World::start(&THREE).await;
    let ports = THREE.map(|region| world.port(region));
    let gone = format!("http://127.0.0.1:{}", ports[2]);
    let probes = [
        Probe::start(&ports).await,
        Probe::with(&ports, &["--away", &gone]).await,
    ];
    // Who was never connected knows of no other edge: there are two members of each probe.
    until("everybody is connected", || async {
        let metrics = get(format!("http://127.0.0.1:{}/metrics", ports[2] + 1)).await.ok()?;
        let metrics = metrics.text().await.ok()?;
        let sessions = metrics.lines().filter(|line| line.starts_with("antiphon_sessions{"));
        let sessions: u32 = sessions
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
            .sum();
        (sessions == 4).then_some(())
    })
    .await;
    ctl(&world, &["process", THREE[2], "kill", "--down-ms", "3600000"]).await;
    let [unaware, aware] = probes.map(Probe::end);
    let ((unaware, fails), (aware, passes)) = tokio::join!(unaware, aware);
    let said = unaware["violations"].to_string();
    assert!(!fails && said.contains(&format!("nobody answers at {gone}")), "{said}");
    assert!(passes, "{aware}");
}

#[tokio::test]
async fn a_drill_says_what_it_does_and_what_it_misses() {
    for name in ["failover", "drain", "partition", "rolling-restart"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scripts/drill-{name}.sh"));
        let help = run(&script, &["--help"]).await;
        assert!(help.status.success() && text(&help.stdout).contains("--base-port N"));
        let wrong = run(&script, &["--bas-port", "1"]).await;
        assert_eq!(wrong.status.code(), Some(1));
        assert!(text(&wrong.stderr).contains("no option --bas-port"));
        // Nothing listens on a port as low as this.
        let nowhere = run(&script, &["--base-port", "10", "--binary", BINARY]).await;
        let said = text(&nowhere.stderr);
        assert!(
            nowhere.status.code() == Some(1) && said.contains("no world answers"),
            "{said}"
        );
        assert!(nowhere.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_probe_whose_warm_up_leaves_nothing_to_measure_is_refused() {
    let arguments = "probe --edge http://127.0.0.1:1 --warm-up 5 --seconds 5";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = run(Path::new(BINARY), &arguments).await;
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--warm-up is 5 s; it has to be shorter than --seconds, 5 s"),
        "{said}"
    );
}
