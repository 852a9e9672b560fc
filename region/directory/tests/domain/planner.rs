use antiphon_directory::domain::{Command, Policy, RegionId, RegionStatus, plan, plan_rebalance, wanted_in_sync};
use antiphon_types::Slot;

use crate::world::{World, add, ids, policy, slot};

#[test]
fn a_draining_region_ends_up_home_of_nothing_and_in_no_in_sync_set() {
    let mut world = World::of(4);
    world.set_status(1, RegionStatus::Draining);
    let rounds = settle(&mut world, plan);
    assert!(rounds <= 3, "{rounds} rounds");
    assert_eq!(world.homes_of(1), 0);
    world.apply(&Command::RemoveRegion { region: RegionId(1) });
}

#[test]
fn what_a_draining_region_had_is_spread_evenly() {
    let mut world = World::with(4, policy(4, 2, &[]));
    world.set_status(1, RegionStatus::Draining);
    settle(&mut world, plan);
    let homes = [2, 3, 4].map(|region| world.homes_of(region));
    assert_eq!(homes.iter().sum::<usize>(), 4096);
    assert!(homes.iter().all(|homes| (1365..=1366).contains(homes)), "{homes:?}");
}

#[test]
fn a_drain_prefers_who_is_in_sync_and_falls_back_on_an_observer() {
    let mut world = World::of(3);
    world.set_status(1, RegionStatus::Draining);
    assert_eq!(wish_after(&mut world), Some(RegionId(2)));

    let mut world = World::of(3);
    world.set_status(2, RegionStatus::Draining);
    world.set_status(1, RegionStatus::Draining);
    assert_eq!(
        wish_after(&mut world),
        Some(RegionId(3)),
        "the in-sync one is leaving too"
    );
    assert_eq!(wanted_in_sync(&world.state, slot(0), &ids(&[2, 3])), ids(&[1, 3]));
    // Had it to catch up, and another is level by now, that one is better.
    world.set_status(2, RegionStatus::Active);
    assert_eq!(wish_after(&mut world), Some(RegionId(2)));
}

#[test]
fn wishes_that_have_become_impossible_are_taken_back() {
    let mut world = World::of(3);
    let wish = |to: u64| Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(to)))],
    };
    world.apply(&wish(2));
    assert_eq!(plan(&world.state), [], "possible");
    world.set_status(2, RegionStatus::Down);
    assert_eq!(wish_after(&mut world), None);
    assert_eq!(plan(&world.state), []);

    world.apply(&wish(3));
    world.set_status(3, RegionStatus::Draining);
    wish_after(&mut world);
    assert_eq!(world.slot(0).moving_to, None);
}

#[test]
fn a_drain_that_is_called_off_leaves_homes_where_they_are() {
    let mut world = World::of(3);
    world.set_status(1, RegionStatus::Draining);
    wish_after(&mut world);
    world.set_status(1, RegionStatus::Active);
    assert!(world.state.slots().all(|(_, placement)| placement.moving_to.is_none()));
    assert_eq!(plan(&world.state), []);
}

#[test]
fn homes_return_to_where_they_belong_only_when_rebalance_is_asked() {
    let mut world = World::of(3);
    let founded: Vec<RegionId> = homes(&world);
    world.set_status(1, RegionStatus::Down);
    world.set_status(1, RegionStatus::Active);
    settle(&mut world, plan);
    assert_eq!(world.homes_of(1), 0);

    settle(&mut world, |state| plan_rebalance(state, 500));
    assert_eq!(homes(&world), founded);
}

#[test]
fn homes_that_were_drained_belong_where_they_were() {
    let mut world = World::of(3);
    let founded = homes(&world);
    world.set_status(1, RegionStatus::Draining);
    settle(&mut world, plan);
    world.set_status(1, RegionStatus::Active);
    settle(&mut world, |state| plan_rebalance(state, 4096));
    assert_eq!(homes(&world), founded);
}

#[test]
fn a_rebalance_moves_no_more_at_once_than_it_is_told() {
    let mut world = World::of(3);
    world.set_status(1, RegionStatus::Down);
    world.set_status(1, RegionStatus::Active);
    for _ in 0..2 {
        for command in plan_rebalance(&world.state, 100) {
            world.apply(&command);
        }
        let wishes = world
            .state
            .slots()
            .filter(|(_, placement)| placement.moving_to.is_some());
        assert_eq!(wishes.count(), 100);
    }
    assert_eq!(world.homes_act(|_| ids(&[1, 2, 3])), 100);
}

#[test]
fn a_new_region_gets_its_share_and_keeps_it_after_an_absence() {
    let mut world = World::of(3);
    world.apply(&add("r4"));
    let before = homes(&world);
    settle(&mut world, |state| plan_rebalance(state, 200));
    for region in 1..=4 {
        assert_eq!(world.homes_of(region), 1024, "region {region}");
    }
    let balanced = homes(&world);
    let moved = before
        .iter()
        .zip(&balanced)
        .filter(|(before, after)| before != after)
        .count();
    assert_eq!(moved, 1024, "no more than needed");

    world.set_status(4, RegionStatus::Down);
    world.set_status(4, RegionStatus::Active);
    settle(&mut world, |state| plan_rebalance(state, 200));
    assert_eq!(homes(&world), balanced);
}

#[test]
fn homes_stay_apart_where_the_policy_keeps_them_apart() {
    let rules: &[(&str, &[&str])] = &[("r1", &["r2"]), ("r2", &["r1"]), ("r3", &["r4"]), ("r4", &["r3"])];
    let mut world = World::with(4, policy(2, 2, rules));
    world.set_status(1, RegionStatus::Draining);
    settle(&mut world, plan);
    let homes = [1, 2, 3, 4].map(|region| world.homes_of(region));
    assert_eq!(homes, [0, 2048, 1024, 1024]);
}

#[test]
fn a_home_aims_at_the_nearest_that_are_up_and_staying() {
    let mut world = World::of(5);
    let wanted = |world: &World| wanted_in_sync(&world.state, slot(0), &ids(&[4, 3, 2, 5]));
    assert_eq!(wanted(&world), ids(&[1, 4]));
    world.set_status(4, RegionStatus::Draining);
    assert_eq!(wanted(&world), ids(&[1, 3]));
    world.set_status(3, RegionStatus::Down);
    assert_eq!(wanted(&world), ids(&[1, 2]));
    world.apply(&Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(5)))],
    });
    assert_eq!(wanted(&world), ids(&[1, 5]), "where it moves to has to be level");
    world.set_status(2, RegionStatus::Down);
    world.set_status(5, RegionStatus::Down);
    assert_eq!(wanted(&world), ids(&[1, 4]), "for want of others");
}

#[test]
fn not_having_measured_is_no_reason_to_shrink() {
    let world = World::of(3);
    assert_eq!(wanted_in_sync(&world.state, slot(0), &[]), ids(&[1, 2]));
    assert_eq!(wanted_in_sync(&world.state, slot(0), &ids(&[3])), ids(&[1, 3]));
}

#[test]
fn a_standby_that_could_not_give_the_slot_back_comes_last() {
    // r1's data may be anywhere, r2's and r3's not in r1.
    let rules: &[(&str, &[&str])] = &[("r2", &["r3"]), ("r3", &["r2"])];
    let mut world = World::with(3, policy(2, 2, rules));
    world.apply(&add("r4"));
    assert_eq!(wanted_in_sync(&world.state, slot(0), &ids(&[2, 3, 4])), ids(&[1, 4]));
}

#[test]
fn planning_every_slot_takes_milliseconds() {
    let limit = std::time::Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 20 });
    let mut world = World::with(5, Policy::default());
    world.set_status(1, RegionStatus::Draining);
    world.apply(&add("r6"));
    let once = || {
        let started = std::time::Instant::now();
        assert!(!plan(&world.state).is_empty());
        assert!(!plan_rebalance(&world.state, 4096).is_empty());
        started.elapsed()
    };
    let took = (0..5).map(|_| once()).min().unwrap();
    assert!(took < limit, "{took:?}");
}

/// Plans, and lets the homes act, until there is nothing to plan. Returns the number of rounds.
fn settle(world: &mut World, planned: impl Fn(&antiphon_directory::domain::State) -> Vec<Command>) -> usize {
    for round in 0..100 {
        let commands = planned(&world.state);
        for command in &commands {
            assert_eq!(world.apply(command).refused, []);
        }
        let moved = world.homes_act(|_| ids(&[1, 2, 3, 4, 5, 6]));
        if commands.is_empty() && moved == 0 {
            return round;
        }
    }
    panic!("homes keep moving");
}

/// Plans once; returns what is wished of slot 0 then.
fn wish_after(world: &mut World) -> Option<RegionId> {
    for command in plan(&world.state) {
        assert_eq!(world.apply(&command).refused, []);
    }
    world.slot(0).moving_to
}

fn homes(world: &World) -> Vec<RegionId> {
    Slot::all()
        .map(|slot| world.state.placement(slot).unwrap().home)
        .collect()
}
