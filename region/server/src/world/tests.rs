//! The admin port and what speaks to it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    api::{Api, Shown, WorldView},
    control::Control,
    link::{LinkChange, LinkState, Network},
    members::Members,
    plan::World,
    process::Launch,
    region::{Action, Care, Region, RegionHandle, RegionState},
};

/// A world of `a` and `b`, of which `a` is a shell and `b` is not there.
struct Run {
    control: Control,
    base: String,
    api: Api,
    network: Network,
    ends: CancellationToken,
    region: JoinHandle<anyhow::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Run {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let world = World::find(folder.path(), &names, 7400).unwrap();
        let mut plans = world.links(true);
        for plan in &mut plans {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            plan.listen = free.local_addr().unwrap();
        }
        let network = Network::start(plans).unwrap();
        let (region, handle) = Region::new(Care {
            name: "a".to_owned(),
            launch: Launch {
                program: "/bin/sh".into(),
                arguments: vec!["-c".into(), "trap 'exit 0' TERM; while :; do sleep 0.01; done".into()],
                folder: folder.path().join("a"),
                log_bytes_max: 1_000,
            },
            ready_url: "http://127.0.0.1:1/readyz".to_owned(),
            restart_wait_max: Duration::from_millis(1),
            drain_max: Duration::from_secs(10),
        });
        let ends = CancellationToken::new();
        let region = tokio::spawn(region.run(ends.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handles = BTreeMap::from([("a".to_owned(), handle)]);
        let (members, _) = Members::new();
        let shown = Shown::new(world, folder.path().to_owned(), handles, network.links(), members);
        Self {
            control: Control::at(&format!("http://{address}")).unwrap(),
            base: format!("http://{address}"),
            api: Api::start(listener, shown),
            network,
            ends,
            region,
            _folder: folder,
        }
    }

    async fn becomes(&self, state: RegionState, starts: u32) {
        for _ in 0..2_000 {
            let a = self.control.world().await.unwrap().regions[0].clone();
            if a.state == state && a.starts >= starts {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("it stays {:?}", self.control.world().await);
    }

    async fn end(self) {
        self.ends.cancel();
        self.region.await.unwrap().unwrap();
        self.network.stop().await;
        self.api.stop().await;
    }
}

fn idle(name: &str) -> RegionHandle {
    let (_, handle) = Region::new(Care {
        name: name.to_owned(),
        launch: Launch {
            program: "/bin/true".into(),
            arguments: Vec::new(),
            folder: "nowhere".into(),
            log_bytes_max: 1,
        },
        ready_url: String::new(),
        restart_wait_max: Duration::ZERO,
        drain_max: Duration::ZERO,
    });
    handle
}

fn shown(nodes: u16, processes: &[&str]) -> Shown {
    let names = ["a".to_owned(), "b".to_owned()];
    let world = World::find(Path::new("/nowhere"), &names, 7400).unwrap();
    let handles = processes.iter().map(|name| ((*name).to_owned(), idle(name)));
    let network = Network::start(Vec::new()).unwrap();
    let (members, _) = Members::new();
    let (world, handles) = (world.with_nodes(nodes), handles.collect());
    Shown::new(world, "data".into(), handles, network.links(), members)
}

#[tokio::test]
async fn a_world_of_single_nodes_is_shown_as_ever() {
    let view = serde_json::to_value(shown(1, &["a", "b"]).view()).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&view), "basePort ready regions");
    assert_eq!(
        keys(&view["regions"][1]),
        "adminPort data httpPort index lastEnd name pid rpcPort starts state"
    );
}

#[tokio::test]
async fn further_nodes_are_shown_with_their_region() {
    let view = shown(2, &["a", "b", "a.2", "b.2"]).view();
    let processes: Vec<&str> = view.processes().map(|process| process.name.as_str()).collect();
    assert_eq!(processes, ["a", "a.2", "b", "b.2"]);
    let value = serde_json::to_value(&view).unwrap();
    let node = &value["nodes"][1];
    assert_eq!(
        (&node["region"], &node["node"], &node["name"]),
        (&"b".into(), &"2".into(), &"b.2".into())
    );
    assert_eq!((&node["httpPort"], &node["data"]), (&7510.into(), &"data/b.2".into()));
    assert_eq!(serde_json::from_value::<WorldView>(value).unwrap(), view);
}

#[tokio::test]
async fn links_are_seen_and_changed_over_http() {
    let run = Run::start().await;
    let links = run.control.links().await.unwrap();
    assert_eq!(links.len(), 2);
    assert_eq!(links[0].settings.delay_ms, 50);
    let change = LinkChange {
        bits_per_s: Some(1_000),
        state: Some(LinkState::Blackhole),
        ..LinkChange::default()
    };
    let changed = run.control.change_link("b", "a", &change).await.unwrap();
    assert_eq!((changed.from.as_str(), changed.settings.bits_per_s), ("b", 1_000));
    let links = run.control.links().await.unwrap();
    assert_eq!(links[1], changed);
    assert_eq!(
        (
            links[0].settings.state,
            links[1].settings.state,
            links[1].settings.delay_ms
        ),
        (LinkState::Up, LinkState::Blackhole, 50)
    );
    let error = run
        .control
        .change_link("a", "c", &change)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no link from a to c"), "{error}");
    run.end().await;
}

#[tokio::test]
async fn what_is_typed_by_hand_is_taken_and_what_is_wrong_is_said() {
    let run = Run::start().await;
    let client = antiphon_client::http_client(None);
    let put = async |path: &str, body: &'static str| {
        let request = client.put(format!("{}/{path}", run.base)).body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = put("links/a/b", r#"{"delayMs": 7}"#).await;
    assert!(status == 200 && body.contains(r#""delayMs":7"#), "{body}");
    for (path, body, status, words) in [
        ("links/a/b", r#"{"delay": 7}"#, 400, "delayMs"),
        ("links/a/b", r#"{"state": "down"}"#, 400, "blackhole"),
        ("links/a/b", r#"{"delayMs": 60001}"#, 400, "60000 ms"),
        ("links/a/a", "{}", 404, "a/b, b/a"),
    ] {
        let answer = put(path, body).await;
        assert!(answer.0 == status && answer.1.contains(words), "{answer:?}");
    }
    for (path, status, words) in [
        ("regions/c/kill", 404, "a, b"),
        ("regions/a/explode", 404, "kill, stop, cont and restart"),
    ] {
        let answer = client.post(format!("{}/{path}", run.base)).send().await.unwrap();
        let answer = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(answer.0 == status && answer.1.contains(words), "{answer:?}");
    }
    run.end().await;
}

#[tokio::test]
async fn regions_are_frozen_and_killed_over_http() {
    let run = Run::start().await;
    run.becomes(RegionState::Starting, 1).await;
    run.control.act("a", Action::Stop, None).await.unwrap();
    run.becomes(RegionState::Frozen, 1).await;
    run.control.act("a", Action::Cont, None).await.unwrap();
    run.becomes(RegionState::NotReady, 1).await;
    run.control.act("a", Action::Kill, Some(3_600_000)).await.unwrap();
    run.becomes(RegionState::Waiting, 1).await;
    let error = run.control.act("a", Action::Cont, None).await.unwrap_err().to_string();
    assert!(error.contains("does not run"), "{error}");
    run.control.act("a", Action::Restart, None).await.unwrap();
    run.becomes(RegionState::Starting, 2).await;
    run.end().await;
}
