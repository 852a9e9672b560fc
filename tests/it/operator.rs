//! What an operator asks of a deployment, and is told when it cannot be.

use serde_json::Value;

use super::members::{ctl, try_ctl};
use crate::support::world::World;

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];

/// The first slot of a home, as `ctl slots` shows it.
async fn slot_of(world: &World, home: &str) -> Value {
    let slots = ctl(world, THREE[0], &["slots", "--home", home, "--json"]).await;
    let slots: Value = serde_json::from_str(&slots).unwrap();
    slots[0].clone()
}

#[tokio::test]
async fn a_fail_over_that_moves_nothing_fails_and_says_why() {
    let world = World::start(&THREE).await;
    let slot = slot_of(&world, "us-east").await;
    let number = slot["slot"].to_string();
    let observer = slot["observers"][0].as_str().unwrap();
    let (ok, said) = try_ctl(&world, "us-east", &["failover", "--slot", &number, "--to", observer]).await;
    assert!(
        !ok && said.contains(&format!("slot {number}: ")) && said.contains("not in sync"),
        "{said}"
    );
    assert_eq!(slot_of(&world, "us-east").await, slot);

    let (ok, said) = try_ctl(&world, "us-east", &["failover", "--slot", &number]).await;
    assert!(ok && said.contains("1 slots have another home"), "{said}");
    assert_ne!(slot_of(&world, "us-east").await["slot"], slot["slot"]);
}

#[tokio::test]
async fn a_drain_that_takes_longer_than_allowed_says_what_is_left() {
    let world = World::start(&THREE).await;
    let (ok, said) = try_ctl(&world, "us-east", &["drain", "us-east", "--seconds", "0"]).await;
    assert!(
        !ok && said.contains("us-east is still home of") && said.contains(" from us-east to "),
        "{said}"
    );

    // It goes on by itself, and homes come back the same way.
    ctl(&world, "us-east", &["drain", "us-east"]).await;
    ctl(&world, "us-east", &["undrain", "us-east"]).await;
    let (ok, said) = try_ctl(&world, "us-east", &["rebalance", "--seconds", "0"]).await;
    assert!(!ok && said.contains("homes are not even after 0 s"), "{said}");
    ctl(&world, "us-east", &["rebalance"]).await;
    assert!(slot_of(&world, "us-east").await["slot"].is_number());
}
