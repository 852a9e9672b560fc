use antiphon_directory::domain::{Command, InSyncChange, Policy, RegionId, RegionStatus};

use crate::world::{World, add, addresses, change, found, ids, policy, set_nodes, slot};

#[test]
fn founding_spreads_homes_evenly_each_with_its_neighbour_in_sync() {
    let world = World::of(3);
    let homes = [1, 2, 3].map(|region| world.homes_of(region));
    assert_eq!(homes, [1366, 1365, 1365]);
    for (number, in_sync) in [(0, [1, 2]), (1, [2, 3]), (2, [3, 1])] {
        assert_eq!(world.slot(number).in_sync, ids(&in_sync));
        assert_eq!(world.slot(number).replicas.len(), 3);
        assert_eq!(world.slot(number).preferred_home, world.slot(number).home);
    }
}

#[test]
fn founding_again_changes_nothing_and_another_deployment_is_refused() {
    let mut world = World::of(3);
    assert!(!world.apply(&found(3, Policy::default())).changed);
    let Command::Found { regions, policy, .. } = found(3, Policy::default()) else {
        unreachable!()
    };
    let deployment = "other".to_owned();
    let refusal = world.refuse(&Command::Found {
        deployment,
        regions,
        policy,
    });
    assert!(refusal.contains("\"test\""), "{refusal}");
}

#[test]
fn nothing_is_done_before_the_deployment_is_founded() {
    let mut world = World {
        state: antiphon_directory::domain::State::default(),
    };
    assert!(world.refuse(&add("r1")).contains("not founded"));
}

#[test]
fn a_change_of_the_in_sync_set_names_the_epoch_and_version_it_was_decided_on() {
    let mut world = World::of(3);
    let change = world.in_sync_change(0, &[1, 3]);
    world.apply(&change);
    assert_eq!(world.slot(0).in_sync, ids(&[1, 3]));
    assert_eq!(world.slot(0).version, 2);
    assert_eq!(world.slot(0).replicas, ids(&[1, 3, 2]));
    let refusal = world.refuse_slot(&change);
    assert_eq!(
        refusal,
        "the in-sync set's version of slot 0 is at 2 and the command was decided at 1"
    );

    let before = world.in_sync_change(0, &[1, 2]);
    world.apply(&world.move_of(0, 3));
    let refusal = world.refuse_slot(&before);
    assert_eq!(refusal, "the epoch of slot 0 is at 2 and the command was decided at 1");
}

#[test]
fn the_present_set_asked_for_again_ends_what_was_asked_for_before_it() {
    let mut world = World::of(3);
    // On its way, and nobody knows where.
    let lost = world.in_sync_change(0, &[1, 3]);
    world.apply(&world.in_sync_change(0, &[1, 2]));
    assert_eq!(
        (world.slot(0).in_sync.clone(), world.slot(0).version),
        (ids(&[1, 2]), 2)
    );
    let refusal = world.refuse_slot(&lost);
    assert!(refusal.contains("is at 2"), "{refusal}");
}

#[test]
fn a_home_does_not_take_over_with_copies_where_its_own_rule_forbids_them() {
    // What is homed in r2 is to stay in r2 and r3.
    let mut world = World::with(3, policy(2, 2, &[("r2", &["r3"]), ("r3", &["r2"])]));
    assert_eq!(world.slot(0).in_sync, ids(&[1, 2]));
    assert!(!world.state.can_move(slot(0), RegionId(2)));
    let refusal = world.refuse_slot(&world.move_of(0, 2));
    assert!(refusal.contains("fewer than 2"), "{refusal}");
    world.apply(&world.in_sync_change(0, &[1, 2, 3]));
    assert!(world.state.can_move(slot(0), RegionId(2)));
    world.apply(&world.move_of(0, 2));
    assert_eq!(world.slot(0).in_sync, ids(&[2, 3]));
}

#[test]
fn a_lease_that_is_to_be_waited_out_is_not_forgotten_with_another_home() {
    let mut world = World::of(3);
    world.apply(&Command::FailOver {
        slots: vec![slot(0)],
        to: Some(RegionId(2)),
    });
    assert!(world.slot(0).forced, "region 1 was up and may hold its lease");
    world.apply(&world.in_sync_change(0, &[2, 1, 3]));
    world.set_status(2, RegionStatus::Down);
    assert!(world.slot(0).home != RegionId(2) && world.slot(0).forced);
}

#[test]
fn an_in_sync_set_holds_the_home_first_and_copies_that_are_up_once() {
    let mut world = World::of(4);
    world.set_status(4, RegionStatus::Down);
    for (set, why) in [
        (&[][..], "begin with its home"),
        (&[2, 1], "begin with its home"),
        (&[1, 2, 2], "twice"),
        (&[1, 4], "down"),
        (&[1, 9], "no copy"),
    ] {
        let refusal = world.refuse_slot(&world.in_sync_change(0, set));
        assert!(refusal.contains(why), "{set:?}: {refusal}");
    }
    world.apply(&world.in_sync_change(0, &[1]));
    world.apply(&world.in_sync_change(0, &[1, 3, 2]));
    assert_eq!(world.slot(0).version, 3);
}

#[test]
fn only_the_home_changes_the_in_sync_set_or_hands_over() {
    let mut world = World::of(3);
    let change = vec![change(slot(1), 1, 1, ids(&[2, 1]))];
    let home = RegionId(1);
    let refusal = world.refuse_slot(&Command::ChangeInSync { home, changes: change });
    assert_eq!(refusal, "the home of slot 1 is region 2 and not 1");
    let moves = vec![(slot(1), 1, RegionId(3))];
    let refusal = world.refuse_slot(&Command::MoveHome { home, moves });
    assert_eq!(refusal, "the home of slot 1 is region 2 and not 1");
}

#[test]
fn what_an_earlier_opening_of_the_slot_has_asked_for_comes_too_late() {
    let mut world = World::of(3);
    let home = RegionId(1);
    let asked = |opening, version, set: &[u64]| Command::ChangeInSync {
        home,
        changes: vec![InSyncChange {
            opening,
            ..change(slot(0), 1, version, ids(set))
        }],
    };
    world.apply(&asked(2, 1, &[1, 2]));
    assert_eq!((world.slot(0).opening, world.slot(0).version), (2, 2));
    // It may well know the version: it follows the same table.
    let refusal = world.refuse_slot(&asked(1, 2, &[1, 2, 3]));
    assert_eq!(
        refusal,
        "the home's opening of slot 0 is at 2 and the command was decided at 1"
    );
    assert_eq!(world.slot(0).in_sync, ids(&[1, 2]));
    world.apply(&world.move_of(0, 2));
    assert_eq!(world.slot(0).opening, 0, "openings are counted in each epoch");
}

#[test]
fn a_home_that_drops_whom_it_was_to_move_to_ends_that_wish() {
    let mut world = World::of(3);
    let wish = |to| Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(to)))],
    };
    world.apply(&wish(2));
    world.apply(&world.in_sync_change(0, &[1]));
    assert_eq!(world.slot(0).moving_to, None);
    // One that is yet to be taken in is not dropped by a change that does not take it in.
    world.apply(&wish(3));
    world.apply(&world.in_sync_change(0, &[1, 2]));
    assert_eq!(world.slot(0).moving_to, Some(RegionId(3)));
}

#[test]
fn one_stale_slot_does_not_hold_up_the_others_of_its_batch() {
    let mut world = World::of(3);
    world.apply(&world.in_sync_change(3, &[1]));
    let home = RegionId(1);
    let change = |number, version| change(slot(number), 1, version, ids(&[1, 2, 3]));
    let changes = vec![change(0, 1), change(3, 1), change(1, 1), change(6, 1)];
    let applied = world.apply(&Command::ChangeInSync { home, changes });
    assert_eq!(applied.slots_changed, 2);
    let refused: Vec<u16> = applied.refused.iter().map(|(slot, _)| slot.number()).collect();
    assert_eq!(refused, [3, 1], "stale, and another's");
    assert_eq!(world.slot(6).in_sync, ids(&[1, 2, 3]));
}

#[test]
fn a_home_moves_to_an_active_in_sync_region_and_stays_in_sync() {
    let mut world = World::of(4);
    assert!(world.refuse_slot(&world.move_of(0, 3)).contains("not in sync"));
    world.apply(&Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(2)))],
    });
    let moving = world.move_of(0, 2);
    world.apply(&moving);
    assert_eq!(world.slot(0).home, RegionId(2));
    assert_eq!(world.slot(0).in_sync, ids(&[2, 1]));
    assert_eq!((world.slot(0).epoch, world.slot(0).moving_to), (2, None));
    assert!(world.refuse_slot(&moving).contains("epoch"));

    world.set_status(1, RegionStatus::Draining);
    assert!(world.refuse_slot(&world.move_of(0, 1)).contains("Draining"));
}

#[test]
fn a_wished_for_hand_over_that_is_refused_leaves_the_slot_where_it_belongs() {
    let mut world = World::with(4, policy(2, 2, &[("r2", &["r3"]), ("r3", &["r2"])]));
    world.apply(&Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(2)))],
    });
    let refused = world.refuse_slot(&world.move_of(0, 2));
    assert!(refused.contains("fewer than 2"), "{refused}");
    assert_eq!(world.slot(0).preferred_home, RegionId(1));
}

#[test]
fn a_region_that_goes_down_gives_its_homes_to_in_sync_regions_and_leaves_their_sets() {
    let mut world = World::with(3, policy(3, 2, &[]));
    let applied = world.set_status(1, RegionStatus::Down);
    assert_eq!(applied.slots_changed, 4096, "it was in every set");
    assert_eq!(world.homes_of(1), 0);
    let homes = [world.homes_of(2), world.homes_of(3)];
    assert_eq!(homes, [2048, 2048], "evenly");
    for (_, placement) in world.state.slots() {
        assert!(!placement.in_sync.contains(&RegionId(1)));
        assert_eq!(placement.in_sync.len(), 2);
        let moved = placement.preferred_home == RegionId(1);
        assert_eq!(placement.epoch, 1 + u64::from(moved));
    }
}

#[test]
fn a_region_that_comes_back_gets_nothing_until_the_homes_take_it_in() {
    let mut world = World::of(3);
    world.set_status(1, RegionStatus::Down);
    let placements = world.state.placements.clone();
    world.set_status(1, RegionStatus::Active);
    assert_eq!(world.state.placements, placements);
    world.apply(&world.in_sync_change(0, &[2, 1]));
    assert_eq!(world.slot(0).in_sync, ids(&[2, 1]));
}

#[test]
fn nobody_takes_over_from_the_only_in_sync_copy() {
    let mut world = World::of(3);
    world.apply(&world.in_sync_change(0, &[1]));
    world.set_status(1, RegionStatus::Down);
    let alone = world.slot(0).clone();
    assert_eq!((alone.home, alone.epoch, alone.in_sync), (RegionId(1), 1, ids(&[1])));
    assert_eq!(world.slot(3).home, RegionId(2), "the others moved on");

    // One that is down has nothing to say, not even of what is still its own.
    assert!(world.refuse(&world.in_sync_change(0, &[1, 2])).contains("down"));
    let slots = vec![slot(0)];
    let fail_over = |to| Command::FailOver {
        slots: slots.clone(),
        to,
    };
    assert!(world.refuse_slot(&fail_over(None)).contains("no other region"));
    assert!(world.refuse_slot(&fail_over(Some(RegionId(2)))).contains("not in sync"));

    world.set_status(1, RegionStatus::Active);
    world.apply(&world.in_sync_change(0, &[1, 2]));
    assert_eq!(world.slot(0).epoch, 1);
}

#[test]
fn an_operator_may_give_up_what_only_regions_hold_that_are_down() {
    let mut world = World::of(3);
    world.apply(&world.in_sync_change(0, &[1]));
    let force = |to| Command::ForceHome {
        slots: vec![slot(0)],
        to: RegionId(to),
    };
    assert!(world.refuse_slot(&force(2)).contains("nothing need be lost"));
    world.set_status(1, RegionStatus::Down);
    assert!(world.refuse(&force(1)).contains("down"));
    world.apply(&force(2));
    assert_eq!((world.slot(0).home, world.slot(0).epoch), (RegionId(2), 2));
    assert_eq!(world.slot(0).in_sync, ids(&[2]));
    assert_eq!(world.slot(0).replicas, ids(&[2, 1, 3]));
}

#[test]
fn an_operator_fails_over_without_the_home_to_an_in_sync_region_that_is_up() {
    let mut world = World::with(4, policy(3, 2, &[]));
    let fail_over = |to| Command::FailOver {
        slots: vec![slot(0)],
        to,
    };
    assert!(world.refuse_slot(&fail_over(Some(RegionId(4)))).contains("not in sync"));
    world.apply(&fail_over(Some(RegionId(3))));
    assert_eq!(world.slot(0).in_sync, ids(&[3, 1, 2]), "the old home is not thrown out");
    assert_eq!(world.slot(0).epoch, 2);
    assert!(!world.apply(&fail_over(Some(RegionId(3)))).changed, "asked again");

    world.apply(&Command::FailOver {
        slots: vec![slot(2), slot(6), slot(10)],
        to: Some(RegionId(1)),
    });
    assert!(world.homes_of(1) > world.homes_of(2));
    world.apply(&fail_over(None));
    assert_eq!(world.slot(0).home, RegionId(1), "the preferred home before any other");
    world.set_status(2, RegionStatus::Down);
    assert!(world.refuse(&fail_over(Some(RegionId(2)))).contains("down"));
}

#[test]
fn a_region_that_is_emptied_is_chosen_only_for_want_of_another() {
    let mut world = World::with(3, policy(3, 2, &[]));
    world.set_status(2, RegionStatus::Draining);
    world.set_status(1, RegionStatus::Down);
    assert_eq!(world.slot(0).home, RegionId(3));
    world.set_status(3, RegionStatus::Down);
    assert_eq!(world.slot(0).home, RegionId(2));
}

#[test]
fn a_region_that_comes_follows_every_slot_and_is_home_of_none() {
    let mut world = World::of(2);
    let applied = world.apply(&add("r3"));
    assert_eq!((applied.region, applied.slots_changed), (Some(RegionId(3)), 4096));
    assert_eq!(world.slot(0).replicas, ids(&[1, 2, 3]));
    assert_eq!((world.homes_of(3), world.slot(0).version), (0, 1));

    let again = world.apply(&add("r3"));
    assert_eq!((again.region, again.changed), (Some(RegionId(3)), false));
    let taken = Command::AddRegion {
        name: "r3".to_owned(),
        addresses: addresses("elsewhere"),
    };
    assert!(world.refuse(&taken).contains("region 3's"));
    for malformed in ["", "R4", "r_4", &"r".repeat(33)] {
        assert!(world.refuse(&add(malformed)).contains("lower-case"), "{malformed:?}");
    }
}

#[test]
fn a_region_goes_when_no_slot_needs_it_and_its_id_is_not_given_again() {
    let mut world = World::of(3);
    world.apply(&add("r4"));
    world.apply(&world.in_sync_change(0, &[1, 4]));
    let remove = |region| Command::RemoveRegion {
        region: RegionId(region),
    };
    assert!(
        world
            .refuse(&remove(4))
            .contains("home of 0 slots and in the in-sync sets of 1")
    );
    assert!(
        world
            .refuse(&remove(1))
            .contains("home of 1366 slots and in the in-sync sets of 2731")
    );
    world.apply(&world.in_sync_change(0, &[1, 2]));
    world.apply(&remove(4));
    assert_eq!(world.slot(0).replicas, ids(&[1, 2, 3]));
    assert!(world.refuse(&remove(4)).contains("no region"));
    assert_eq!(world.apply(&add("r4")).region, Some(RegionId(5)));
}

#[test]
fn a_slot_that_preferred_a_removed_region_prefers_where_it_is() {
    let mut world = World::of(3);
    world.set_status(1, RegionStatus::Down);
    world.apply(&Command::RemoveRegion { region: RegionId(1) });
    assert_eq!(world.slot(0).home, RegionId(2));
    assert_eq!(world.slot(0).preferred_home, RegionId(2));
}

#[test]
fn copies_are_only_where_the_policy_of_the_home_allows_them() {
    let two_apart = policy(
        2,
        2,
        &[("r1", &["r2"]), ("r2", &["r1"]), ("r3", &["r4"]), ("r4", &["r3"])],
    );
    let mut world = World::with(4, two_apart);
    assert_eq!(world.slot(0).replicas, ids(&[1, 2]));
    assert_eq!(world.slot(3).in_sync, ids(&[4, 3]));
    assert!(world.refuse_slot(&world.in_sync_change(0, &[1, 3])).contains("no copy"));
    let elsewhere = Command::Plan {
        moves: vec![(slot(0), 1, Some(RegionId(3)))],
    };
    assert!(world.refuse_slot(&elsewhere).contains("holds a copy"));
    world.apply(&add("r5"));
    assert_eq!(world.slot(0).replicas, ids(&[1, 2]));
}

#[test]
fn a_new_policy_drops_observers_at_once_and_in_sync_copies_when_replaced() {
    let mut world = World::of(3);
    let rules: &[(&str, &[&str])] = &[("r1", &["r3"]), ("r3", &["r1"])];
    world.apply(&Command::SetPolicy {
        policy: policy(2, 2, rules),
    });
    assert_eq!(world.slot(0).in_sync, ids(&[1, 2]), "no copy is lost by a word");
    assert_eq!(world.slot(0).replicas, ids(&[1, 2, 3]));
    world.apply(&world.in_sync_change(0, &[1, 3]));
    assert_eq!(world.slot(0).replicas, ids(&[1, 3]));
    assert!(world.refuse_slot(&world.in_sync_change(0, &[1, 2])).contains("no copy"));
}

#[test]
fn a_policy_that_cannot_be_kept_is_refused() {
    let mut world = World::of(3);
    let leak: &[(&str, &[&str])] = &[("r1", &["r2"])];
    let wider: &[(&str, &[&str])] = &[("r1", &["r2"]), ("r2", &["r1", "r3"])];
    let lonely: &[(&str, &[&str])] = &[("r1", &[])];
    for (refused, why) in [
        (policy(2, 0, &[]), "at least 1"),
        (policy(1, 2, &[]), "no less"),
        (policy(2, 2, leak), "its own rule allows every region"),
        (policy(2, 2, wider), "its own rule allows r3"),
        (policy(2, 2, lonely), "may have 1 copies and must have 2"),
    ] {
        let refusal = world.refuse(&Command::SetPolicy { policy: refused });
        assert!(refusal.contains(why), "{refusal}");
    }
    world.apply(&Command::SetPolicy {
        policy: policy(2, 1, lonely),
    });
}

#[test]
fn addresses_change_alone() {
    let mut world = World::of(2);
    let set = |region| Command::SetAddresses {
        region: RegionId(region),
        addresses: addresses("moved"),
    };
    assert!(world.apply(&set(2)).changed);
    assert!(!world.apply(&set(2)).changed);
    assert_eq!(world.state.regions[&RegionId(2)].addresses, addresses("moved"));
    assert!(world.refuse(&set(9)).contains("no region"));
}

#[test]
fn a_region_tells_which_of_its_nodes_live() {
    let mut world = World::of(2);
    let ids = |world: &World| -> Vec<String> {
        let nodes = &world.state.regions[&RegionId(2)].nodes;
        nodes.iter().map(|node| node.id.to_string()).collect()
    };
    assert!(world.apply(&set_nodes(2, &[3, 1])).changed);
    assert_eq!(ids(&world), ["1", "3"]);
    assert!(!world.apply(&set_nodes(2, &[1, 3])).changed);
    assert!(world.refuse(&set_nodes(2, &[1, 1])).contains("twice"));
    assert!(world.refuse(&set_nodes(9, &[1])).contains("no region"));
    assert!(world.apply(&set_nodes(2, &[])).changed);
    assert!(ids(&world).is_empty());
}

#[test]
fn a_region_that_goes_down_while_it_is_emptied_is_remembered_as_such() {
    let mut world = World::of(3);
    let remembered = |world: &World| world.state.regions[&RegionId(2)].was_draining;
    world.set_status(2, RegionStatus::Draining);
    assert!(!remembered(&world));
    world.set_status(2, RegionStatus::Down);
    assert!(remembered(&world));
    world.set_status(2, RegionStatus::Draining);
    assert!(!remembered(&world));
    world.set_status(2, RegionStatus::Active);
    world.set_status(2, RegionStatus::Down);
    assert!(!remembered(&world));
}
