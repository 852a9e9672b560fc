use antiphon_directory::domain::{Command, Policy, RegionId, RegionStatus};
use antiphon_types::Slot;

use crate::world::{World, add, change, ids, policy};

#[test]
fn a_deployment_of_one_region_can_be_written() {
    let world = World::of(1);
    assert_eq!(world.slot(0).in_sync, ids(&[1]));
    assert_eq!(world.state.min_in_sync(), 1);
}

#[test]
fn three_regions_that_have_lost_two_refuse_writes() {
    let mut world = World::of(3);
    assert_eq!(world.state.min_in_sync(), 2);
    world.set_status(2, RegionStatus::Down);
    world.set_status(3, RegionStatus::Down);
    assert_eq!(world.state.min_in_sync(), 2);
    let fewest = world.state.slots().map(|(_, placement)| placement.in_sync.len()).min();
    assert_eq!(fewest, Some(1), "fewer than the slot needs");
}

#[test]
fn removing_what_is_lost_does_not_make_one_copy_enough() {
    let mut world = World::of(2);
    world.set_status(2, RegionStatus::Down);
    let remove = Command::RemoveRegion { region: RegionId(2) };
    // Slots whose only copy was there are out of the way first.
    let lost: Vec<Slot> = world
        .state
        .slots()
        .filter(|(_, placement)| placement.home == RegionId(2))
        .map(|(slot, _)| slot)
        .collect();
    assert_eq!(lost, [], "both held all");
    assert!(world.refuse(&remove).contains("may have 1 copies and must have 2"));
    world.apply(&Command::SetPolicy {
        policy: policy(2, 1, &[]),
    });
    assert_eq!(world.state.min_in_sync(), 1, "the operator said so");
    world.apply(&remove);
}

#[test]
fn a_second_region_asks_for_two_copies_only_when_every_slot_has_them() {
    let mut world = World::of(1);
    world.apply(&add("r2"));
    assert_eq!(world.state.min_in_sync(), 1, "writes go on while it fills up");
    let change = |number| change(Slot::new(number).unwrap(), 1, 1, ids(&[1, 2]));
    let home = RegionId(1);
    world.apply(&Command::ChangeInSync {
        home,
        changes: (1..4096).map(change).collect(),
    });
    assert_eq!(world.state.min_in_sync(), 1, "slot 0 has one");
    world.apply(&Command::ChangeInSync {
        home,
        changes: vec![change(0)],
    });
    assert_eq!(world.state.min_in_sync(), 2);
    world.set_status(2, RegionStatus::Down);
    assert_eq!(world.state.min_in_sync(), 2, "and never falls by loss");
}

#[test]
fn a_stricter_policy_holds_when_every_slot_can_keep_it() {
    let mut world = World::of(3);
    let three = Policy {
        in_sync_copies: 3,
        min_in_sync: 3,
        ..Policy::default()
    };
    world.apply(&Command::SetPolicy { policy: three });
    assert_eq!(world.state.min_in_sync(), 2);
    world.set_status(3, RegionStatus::Down);
    assert_eq!(world.state.min_in_sync(), 2, "what was kept so far is kept");
    world.set_status(3, RegionStatus::Active);
    world.homes_act(|_| ids(&[1, 2, 3]));
    assert_eq!(world.state.min_in_sync(), 3);
}
