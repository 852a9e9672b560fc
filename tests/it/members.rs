//! Regions that come and go while everybody talks.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{until, world::World};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];
const BINARY: &str = env!("CARGO_BIN_EXE_antiphon");
const LONG: Duration = Duration::from_secs(300);

/// What `antiphon ctl` prints when a region is asked; it has to succeed.
pub(super) async fn ctl(world: &World, asked: &str, arguments: &[&str]) -> String {
    let (ok, said) = try_ctl(world, asked, arguments).await;
    assert!(ok, "{arguments:?}: {said}");
    said
}

pub(super) async fn try_ctl(world: &World, asked: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(BINARY);
    command
        .args(["ctl", "--yes"])
        .args(["--admin", &format!("http://127.0.0.1:{}", world.port(asked) + 1)])
        .args(["--world", &format!("http://127.0.0.1:{}", world.base_port() + 99)])
        .args(arguments)
        .kill_on_drop(true);
    let output = timeout(LONG, command.output()).await.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let said = if output.status.success() {
        text(&output.stdout)
    } else {
        text(&output.stderr)
    };
    (output.status.success(), said)
}

async fn region(world: &World, asked: &str, name: &str) -> Option<Value> {
    let all = ctl(world, asked, &["regions", "--json"]).await;
    let all: Value = serde_json::from_str(&all).unwrap();
    let all = all.as_array().unwrap();
    all.iter().find(|region| region["name"] == name).cloned()
}

/// A live load over the edges of these ports, from when it sends until it is stopped.
pub(super) struct Probe(Child);

impl Probe {
    pub(super) async fn start(ports: &[u16]) -> Self {
        Self::with(ports, &[]).await
    }

    pub(super) async fn with(ports: &[u16], flags: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["probe", "--json"]).args(flags);
        for port in ports {
            command.args(["--edge", &format!("http://127.0.0.1:{port}")]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = timeout(LONG, said.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap_or_default();
        assert!(line.contains("are sending"), "{line}");
        // Nobody reads on, and nothing may block on it.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        Self(child)
    }

    /// What everybody saw; nothing may be broken.
    async fn stop(self) -> Value {
        let (report, ok) = self.end().await;
        assert!(ok && report["acknowledged"].as_u64() > Some(0), "{report}");
        assert_eq!(report["violations"], Value::Array(Vec::new()));
        assert_eq!(report["acknowledged"], report["sent"], "{report}");
        report
    }

    /// What everybody saw, and whether nothing is broken.
    pub(super) async fn end(self) -> (Value, bool) {
        let pid = self.0.id().unwrap().to_string();
        Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap();
        let output = timeout(LONG, self.0.wait_with_output()).await.unwrap().unwrap();
        (serde_json::from_slice(&output.stdout).unwrap(), output.status.success())
    }
}

#[tokio::test]
async fn a_region_comes_under_load_is_given_homes_and_goes_again() {
    let mut world = World::start(&THREE).await;
    world.make_room("sa-east");
    let ports = THREE.map(|region| world.port(region));
    let probe = Probe::start(&ports).await;
    ctl(&world, "us-east", &["region", "add", "sa-east"]).await;
    ctl(&world, "us-east", &["wait", "--seconds", "120"]).await;
    ctl(&world, "us-east", &["rebalance"]).await;
    let added = region(&world, "us-east", "sa-east").await.unwrap();
    assert_eq!((&added["id"], &added["homes"]), (&4.into(), &1024.into()), "{added}");
    let links: Value = serde_json::from_str(&ctl(&world, "us-east", &["link", "--json"]).await).unwrap();
    assert_eq!(links.as_array().unwrap().len(), 12);
    let status = ctl(&world, "sa-east", &["status"]).await;
    assert!(
        status.contains("voters us-east, eu-central, ap-northeast, sa-east"),
        "{status}"
    );
    let report = probe.stop().await;
    assert_eq!(report["failedSends"], 0, "{report}");

    // Those who talk from there are served as well, and it can go while they do.
    let probe = Probe::start(&[world.port("sa-east"), world.port("us-east")]).await;
    let (_, refused) = try_ctl(&world, "sa-east", &["region", "remove", "sa-east"]).await;
    assert!(refused.contains("ask another region"), "{refused}");
    assert!(region(&world, "us-east", "sa-east").await.is_some());
    tokio::time::sleep(Duration::from_secs(2)).await;
    probe.stop().await;
    let probe = Probe::start(&ports).await;
    let pid = world.pid("sa-east").unwrap();
    ctl(&world, "us-east", &["region", "remove", "sa-east"]).await;
    assert!(!crate::support::world::runs(pid));
    assert_eq!(region(&world, "us-east", "sa-east").await, None);
    ctl(&world, "us-east", &["wait"]).await;
    probe.stop().await;
    let links: Value = serde_json::from_str(&ctl(&world, "us-east", &["link", "--json"]).await).unwrap();
    assert_eq!(links.as_array().unwrap().len(), 6);
    let status = ctl(&world, "us-east", &["status"]).await;
    assert!(
        status.contains("voters us-east, eu-central, ap-northeast\n"),
        "{status}"
    );
    assert!(!world.data().join("sa-east").exists() && world.data().join("sa-east.removed-4").is_dir());
}

#[tokio::test]
async fn a_dead_region_is_replaced_by_a_new_one_and_every_copy_is_there_again() {
    let mut world = World::start(&THREE).await;
    world.make_room("sa-east");
    let alive = [world.port("eu-central"), world.port("ap-northeast")];
    let probe = Probe::start(&alive).await;
    ctl(
        &world,
        "eu-central",
        &["process", "us-east", "kill", "--down-ms", "3600000"],
    )
    .await;
    until("us-east is down", || async {
        let seen = region(&world, "eu-central", "us-east").await?;
        (seen["status"] == "down").then_some(())
    })
    .await;
    let (ok, refused) = try_ctl(&world, "eu-central", &["wait", "--seconds", "5"]).await;
    assert!(!ok && refused.contains("us-east is down"), "{refused}");
    ctl(&world, "eu-central", &["region", "remove", "us-east"]).await;
    ctl(&world, "eu-central", &["region", "add", "sa-east"]).await;
    ctl(&world, "eu-central", &["wait", "--seconds", "120"]).await;
    ctl(&world, "eu-central", &["rebalance"]).await;
    probe.stop().await;
    let added = region(&world, "eu-central", "sa-east").await.unwrap();
    assert!(added["homes"].as_u64().unwrap() > 1_300, "{added}");

    // The world is the new one from now on.
    world.signal("TERM").await;
    assert!(world.ended().await.success(), "{}", world.log());
    world.forget("us-east");
    world.restart().await;
    ctl(&world, "sa-east", &["wait", "--seconds", "120"]).await;
    assert!(Path::new(&world.data().join("us-east.removed-1")).is_dir());
}
