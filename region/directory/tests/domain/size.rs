use antiphon_directory::domain::{Addresses, Command, Region, RegionId, RegionStatus, State};
use antiphon_types::Slot;

use crate::world::{World, change, ids, policy};

#[test]
fn the_whole_state_is_below_a_megabyte_and_reads_back() {
    let mut world = World::with(5, policy(3, 2, &[]));
    // As large as it gets: every number long, every wish made.
    for placement in &mut world.state.placements {
        placement.epoch = 1 << 40;
        placement.version = 1 << 40;
        placement.moving_to = placement.in_sync.last().copied();
    }
    let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
    assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
    let read: State = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(read, world.state);
}

#[test]
fn commands_read_back() {
    let world = World::of(3);
    for command in [
        crate::world::found(3, policy(2, 1, &[("r1", &["r2"]), ("r2", &[])])),
        world.in_sync_change(0, &[1, 3]),
        world.move_of(0, 2),
        crate::world::set_nodes(1, &[1, 2]),
    ] {
        let bytes = rmp_serde::to_vec_named(&command).unwrap();
        assert_eq!(rmp_serde::from_slice::<Command>(&bytes).unwrap(), command);
    }
}

/// Snapshots and logs of before regions had several nodes.
#[test]
fn what_was_written_without_nodes_reads_as_regions_of_one_process() {
    #[derive(serde::Serialize)]
    struct RegionOfOld {
        name: String,
        addresses: Addresses,
        status: RegionStatus,
        was_draining: bool,
    }
    let region = &World::of(1).state.regions[&RegionId(1)];
    let old = RegionOfOld {
        name: region.name.clone(),
        addresses: region.addresses.clone(),
        status: region.status,
        was_draining: region.was_draining,
    };
    let bytes = rmp_serde::to_vec_named(&old).unwrap();
    assert_eq!(&rmp_serde::from_slice::<Region>(&bytes).unwrap(), region);
}

#[test]
fn a_batch_of_every_slot_is_applied_whole() {
    let founded = World::with(1, policy(2, 2, &[]));
    let mut founded = founded.state;
    for number in 2..=5 {
        founded.apply(&crate::world::add(&format!("r{number}"))).unwrap();
    }
    let grown = |slot| change(slot, 1, 1, ids(&[1, 2, 3, 4, 5]));
    let home = RegionId(1);
    let grow = Command::ChangeInSync {
        home,
        changes: Slot::all().map(grown).collect(),
    };
    let stale = Command::ChangeInSync {
        home,
        changes: Slot::all().map(|slot| change(slot, 1, 9, ids(&[1]))).collect(),
    };
    let moves = Command::MoveHome {
        home,
        moves: Slot::all().map(|slot| (slot, 1, RegionId(2))).collect(),
    };
    let fail_over = Command::FailOver {
        slots: Slot::all().collect(),
        to: None,
    };
    let down = Command::SetStatus {
        region: RegionId(1),
        status: RegionStatus::Down,
    };
    let mut grown = founded.clone();
    grown.apply(&grow).unwrap();
    for (state, command, changed) in [
        (&founded, &grow, 4096),
        (&founded, &stale, 0),
        (&grown, &moves, 4096),
        (&grown, &fail_over, 4096),
        (&grown, &down, 4096),
    ] {
        let applied = state.clone().apply(command).unwrap();
        assert_eq!(applied.slots_changed, changed);
    }
}
