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
