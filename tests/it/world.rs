//! A world of regions on one machine, as its operator sees it.

use std::net::TcpListener;

use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{
    SILENCE, until,
    world::{World, group, runs},
};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];
const TWO: [&str; 2] = ["us-east", "eu-central"];

fn pids(world: &World, regions: &[&str]) -> Vec<u32> {
    regions.iter().map(|region| world.pid(region).unwrap()).collect()
}

async fn all_end(pids: &[u32]) {
    until("the end of all regions", || async {
        (!pids.iter().any(|pid| runs(*pid))).then_some(())
    })
    .await;
}

/// What the admin port says of one region.
async fn seen(world: &World, region: &str) -> Value {
    let (_, view) = world.admin(Method::GET, "/world", "").await;
    let regions = view["regions"].as_array().unwrap();
    regions.iter().find(|seen| seen["name"] == region).unwrap().clone()
}

#[tokio::test]
async fn a_world_says_what_it_is_made_of_and_then_that_it_is_ready() {
    let mut world = World::stopped(&THREE);
    world.flag("--wan");
    world.restart().await;
    let said = world.said();
    assert!(said.ends_with("\nready\n"), "{said}");
    for region in THREE {
        let row = said
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{region}  ")))
            .unwrap();
        let (port, pid) = (world.port(region), world.pid(region).unwrap());
        for part in [
            format!("http://127.0.0.1:{port}/v1 "),
            format!("ws://127.0.0.1:{port}/v1/connect "),
            format!("http://127.0.0.1:{} ", port + 1),
            format!("{} ", world.data().join(region).display()),
            format!(" {pid}"),
        ] {
            assert!(format!("{row} ").contains(&part), "{part} is missing in {row}");
        }
        world.ready(region).await;
    }
    assert!(
        said.contains("eu-central and us-east: a round trip takes 90 ms"),
        "{said}"
    );

    let (status, links) = world.admin(Method::GET, "/links", "").await;
    assert_eq!((status, links.as_array().unwrap().len()), (200, 6));
    let (status, link) = world
        .admin(Method::PUT, "/links/us-east/eu-central", r#"{"state":"reset"}"#)
        .await;
    assert_eq!(
        (status, &link["state"], &link["delayMs"]),
        (200, &"reset".into(), &45.into()),
        "{link}"
    );

    let pids = pids(&world, &THREE);
    // A terminal sends Ctrl-C to a group: the regions shall hear of it from their supervisor, once and in order.
    assert!(pids.iter().all(|pid| group(*pid) == *pid));
    world.signal("INT").await;
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.log());
    assert!(!pids.iter().any(|pid| runs(*pid)));
    assert!(!THREE.iter().any(|region| world.pid(region).is_some()));
}

#[tokio::test]
async fn a_world_is_not_ready_before_its_last_region_is() {
    for _ in 0..5 {
        let mut world = World::stopped(&THREE);
        world.begin();
        until("a process", || async { world.pid("ap-northeast") }).await;
        world.signal_region("STOP", "ap-northeast").await;
        world.ready("us-east").await;
        sleep(SILENCE).await;
        if world.said().contains("ap-northeast: ready") {
            // It was ready before it was frozen.
            continue;
        }
        assert_eq!(world.readies(), 0, "{}", world.said());
        world.signal_region("CONT", "ap-northeast").await;
        until("`ready`", || async { (world.readies() == 1).then_some(()) }).await;
        return;
    }
    panic!("a region was never frozen in time");
}

#[tokio::test]
async fn a_region_that_is_killed_comes_back_with_what_it_held_and_the_others_do_not_notice() {
    let mut world = World::start(&TWO).await;
    let (alice, bob) = (
        world.person("us-east", "alice").await,
        world.person("us-east", "bob").await,
    );
    let talk = alice.direct(&bob).await;
    alice.send(&talk, "before").await;
    let before = pids(&world, &TWO);

    world.signal_region("KILL", "us-east").await;
    until("another process", || async {
        world.pid("us-east").filter(|pid| *pid != before[0])
    })
    .await;
    world.ready("us-east").await;
    assert_eq!(bob.page(&talk, "afterSeq=0").await.len(), 1);
    assert_eq!(world.pid("eu-central"), Some(before[1]));
    let view = seen(&world, "us-east").await;
    assert_eq!(
        (&view["starts"], &view["lastEnd"]),
        (&2.into(), &"signal 9 (SIGKILL)".into()),
        "{view}"
    );
    assert!(world.log().contains("signal 9 (SIGKILL)"), "{}", world.log());

    world.signal("TERM").await;
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.log());
}

#[tokio::test]
async fn regions_whose_supervisor_is_killed_end_by_themselves_and_the_world_starts_again() {
    let mut world = World::start(&TWO).await;
    let (alice, bob) = (
        world.person("us-east", "alice").await,
        world.person("us-east", "bob").await,
    );
    let talk = alice.direct(&bob).await;
    alice.send(&talk, "before").await;
    let before = pids(&world, &TWO);
    world.kill9().await;
    all_end(&before).await;
    assert!(!TWO.iter().any(|region| world.pid(region).is_some()));

    world.restart().await;
    let again = pids(&world, &TWO);
    world.kill9().await;
    // At once: what is still ending is waited for.
    world.restart().await;
    assert!(!again.iter().any(|pid| runs(*pid)));
    assert_eq!(bob.page(&talk, "afterSeq=0").await.len(), 1);
}

#[tokio::test]
async fn a_frozen_region_is_seen_as_frozen_and_ends_with_the_world() {
    let mut world = World::start(&TWO).await;
    let (status, _) = world.admin(Method::POST, "/regions/eu-central/stop", "").await;
    assert_eq!(status, 200);
    assert_eq!(seen(&world, "eu-central").await["state"], "frozen");
    let pids = pids(&world, &TWO);
    world.signal("TERM").await;
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.log());
    assert!(!pids.iter().any(|pid| runs(*pid)));
}

#[tokio::test]
async fn a_region_can_be_kept_away_and_called_back() {
    let world = World::start(&TWO).await;
    let (status, _) = world
        .admin(Method::POST, "/regions/eu-central/kill", r#"{"downMs":3600000}"#)
        .await;
    assert_eq!(status, 200);
    until("its end", || async {
        (seen(&world, "eu-central").await["state"] == "waiting").then_some(())
    })
    .await;
    assert_eq!(world.pid("eu-central"), None);
    let (status, words) = world.admin(Method::POST, "/regions/eu-central/stop", "").await;
    assert_eq!(status, 409, "{words}");
    world.admin(Method::POST, "/regions/eu-central/restart", "").await;
    world.ready("eu-central").await;
}

#[tokio::test]
async fn a_world_is_not_started_twice_nor_with_other_regions() {
    let mut world = World::start(&TWO).await;
    let words = world.refused("us-east,eu-central").await;
    assert!(words.contains("runs already"), "{words}");
    world.signal("TERM").await;
    world.ended().await;
    let words = world.refused("us-east,ap-northeast").await;
    assert!(words.contains("--regions us-east,eu-central"), "{words}");
}

#[tokio::test]
async fn a_world_that_cannot_start_says_why_and_leaves_no_world_behind() {
    let mut world = World::stopped(&TWO);
    let taken = TcpListener::bind(("127.0.0.1", world.port("eu-central") + 50)).unwrap();
    let words = world.refused("us-east,eu-central").await;
    let port = taken.local_addr().unwrap().port();
    assert!(
        words.contains(&format!("port {port} of 127.0.0.1")) && words.contains("--base-port"),
        "{words}"
    );
    assert!(!world.data().join("world.toml").exists());
}

#[tokio::test]
async fn a_setting_that_no_region_can_work_with_ends_the_world_with_its_words() {
    let mut world = World::stopped(&TWO);
    std::fs::create_dir_all(world.data().join("eu-central")).unwrap();
    std::fs::write(world.data().join("eu-central/directory"), "no folder").unwrap();
    let words = world.refused("us-east,eu-central").await;
    assert!(
        words.contains("the region eu-central cannot start: exit code 1") && words.contains("eu-central/directory"),
        "{words}"
    );
}
