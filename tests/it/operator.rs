//! What an operator asks of a deployment, and is told when it cannot be.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::members::{ctl, try_ctl};
use crate::support::{until, world::World};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];

/// The first slot of a home, as `ctl slots` shows it.
async fn slot_of(world: &World, home: &str) -> Value {
    let slots = ctl(world, THREE[0], &["slots", "--home", home, "--json"]).await;
    let slots: Value = serde_json::from_str(&slots).unwrap();
    slots[0].clone()
}

/// For longer than any test.
const fn kill(region: &str) -> [&str; 5] {
    ["process", region, "kill", "--down-ms", "3600000"]
}

#[tokio::test]
async fn a_fail_over_that_moves_nothing_fails_and_says_why() {
    let world = World::start(&THREE).await;
    // An observer may have come into the set since it was read: then the slot goes there, and another is tried.
    let (slot, number, said) = until("a fail-over to an observer", || async {
        let slot = slot_of(&world, "us-east").await;
        let number = slot["slot"].to_string();
        let observer = slot["observers"][0].as_str()?;
        let (ok, said) = try_ctl(&world, "us-east", &["failover", "--slot", &number, "--to", observer]).await;
        (!ok).then_some((slot.clone(), number, said))
    })
    .await;
    assert!(
        said.contains(&format!("slot {number}: ")) && said.contains("not in sync"),
        "{said}"
    );
    let still = slot_of(&world, "us-east").await;
    for what in ["slot", "home", "epoch", "movingTo"] {
        assert_eq!(still[what], slot[what], "{what}");
    }

    let (ok, said) = try_ctl(&world, "us-east", &["failover", "--slot", &number]).await;
    assert!(ok && said.contains("1 slots have another home"), "{said}");
    assert_ne!(slot_of(&world, "us-east").await["slot"], slot["slot"]);
}

#[tokio::test]
async fn a_drain_that_takes_longer_than_allowed_says_what_is_left() {
    let world = World::start(&THREE).await;
    // The directory's leader makes the first wishes in its own time, and carrying all of them out takes much longer.
    until("slots that are under way", || async {
        let (ok, said) = try_ctl(&world, "us-east", &["drain", "us-east", "--seconds", "0"]).await;
        assert!(!ok && said.contains("us-east is still home of"), "{said}");
        said.contains(" from us-east to ").then_some(())
    })
    .await;

    // It goes on by itself, and homes come back the same way.
    ctl(&world, "us-east", &["drain", "us-east"]).await;
    ctl(&world, "us-east", &["undrain", "us-east"]).await;
    let (ok, said) = try_ctl(&world, "us-east", &["rebalance", "--seconds", "0"]).await;
    assert!(!ok && said.contains("homes are not even after 0 s"), "{said}");
    ctl(&world, "us-east", &["rebalance"]).await;
    assert!(slot_of(&world, "us-east").await["slot"].is_number());
}

#[tokio::test]
async fn the_rules_of_placement_are_shown_and_changed() {
    let world = World::start(&THREE).await;
    let shown = ctl(&world, "us-east", &["policy"]).await;
    assert!(shown.contains("in-sync copies  2"), "{shown}");
    let european = [
        "policy",
        "--durability",
        "regional",
        "--min-in-sync",
        "1",
        "--allow",
        "eu-central: us-east",
    ];
    // Whoever may hold copies may become home, and would allow more.
    let (ok, said) = try_ctl(&world, "us-east", &european).await;
    assert!(!ok && said.contains("its own rule allows every region"), "{said}");
    ctl(
        &world,
        "us-east",
        &[&european[..], &["--allow", "us-east: eu-central"]].concat(),
    )
    .await;
    let shown: Value = serde_json::from_str(&ctl(&world, "ap-northeast", &["policy", "--json"]).await).unwrap();
    assert_eq!(
        (&shown["durability"], &shown["minInSync"], &shown["inSyncCopies"]),
        (&"regional".into(), &1.into(), &2.into())
    );
    assert_eq!(
        shown["allowed"]["eu-central"],
        serde_json::json!(["eu-central", "us-east"])
    );
    let (ok, said) = try_ctl(&world, "us-east", &["policy", "--allow", "us-east: mars"]).await;
    assert!(!ok && said.contains("no region mars"), "{said}");
}

#[tokio::test]
async fn a_region_that_has_moved_is_reached_at_its_new_address() {
    let world = World::start(&THREE).await;
    let edge = "https://edge.example.org";
    ctl(
        &world,
        "us-east",
        &["region", "address", "ap-northeast", "--edge", edge],
    )
    .await;
    let regions: Value = serde_json::from_str(&ctl(&world, "eu-central", &["regions", "--json"]).await).unwrap();
    let moved = &regions[2];
    assert_eq!((&moved["name"], &moved["edge"]), (&"ap-northeast".into(), &edge.into()));
    // Of what was not named nothing has changed.
    assert_eq!(moved["rpc"], format!("127.0.0.1:{}", world.port("ap-northeast") + 4));
    let (ok, said) = try_ctl(&world, "us-east", &["region", "address", "mars", "--edge", edge]).await;
    assert!(!ok && said.contains("no region mars"), "{said}");
}

#[tokio::test]
async fn slots_whose_home_and_standby_are_lost_are_given_up_by_an_operators_word_alone() {
    let mut world = World::stopped(&["us-east", "eu-central", "ap-northeast", "eu-west", "us-west"]);
    // Where distances are real, in-sync sets come to rest.
    world.flag("--wan");
    world.restart().await;
    let mut seen = Value::Null;
    let slot = loop {
        let slot = slot_of(&world, "us-east").await;
        if slot == seen {
            break slot;
        }
        seen = slot;
        sleep(Duration::from_secs(2)).await;
    };
    let number = slot["slot"].to_string();
    let standby = slot["inSync"][1].as_str().unwrap().to_owned();
    let other = slot["observers"][0].as_str().unwrap().to_owned();
    // At once: a home that outlives its standby, or the other way round, takes another into the set.
    let (home_kill, standby_kill) = (kill("us-east"), kill(&standby));
    tokio::join!(ctl(&world, &other, &home_kill), ctl(&world, &other, &standby_kill));
    until("both are down", || async {
        let (ok, regions) = try_ctl(&world, &other, &["regions", "--json"]).await;
        (ok && regions.matches(r#""status":"down""#).count() == 2).then_some(())
    })
    .await;
    // As it is asked for, and with the word that goes with it.
    let asked = ["failover", "--slot", &number, "--to", &other];
    let (ok, said) = try_ctl(&world, &other, &asked).await;
    assert!(!ok && said.contains("not in sync"), "{said}");
    let said = ctl(&world, &other, &[&asked[..], &["--accept-loss"]].concat()).await;
    assert!(said.contains("1 slots have another home"), "{said}");

    let slots = ctl(&world, &other, &["slots", "--home", &other, "--json"]).await;
    let slots: Value = serde_json::from_str(&slots).unwrap();
    let found = slots
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["slot"] == slot["slot"]);
    assert!(found.unwrap()["epoch"].as_u64() > slot["epoch"].as_u64(), "{slot}");
    // What somebody who is up holds is nobody's to give up.
    let held = slots
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["slot"] != slot["slot"])
        .unwrap();
    let observer = held["observers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|region| **region != *"us-east" && **region != *standby);
    let refused = [
        "failover",
        "--slot",
        &held["slot"].to_string(),
        "--to",
        observer.unwrap().as_str().unwrap(),
        "--accept-loss",
    ];
    let (ok, said) = try_ctl(&world, &other, &refused).await;
    assert!(!ok && said.contains("nothing need be lost"), "{said}");
}
