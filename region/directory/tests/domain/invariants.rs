use antiphon_directory::domain::{Applied, Command, Placement, RegionId, RegionStatus, Rejection, State};
use antiphon_types::Slot;

/// What must hold after any command, whatever came before.
pub(crate) fn check(before: &State, command: &Command, result: &Result<Applied, Rejection>, after: &State) {
    let Ok(applied) = result else {
        assert_eq!(before, after, "a refused command changed something");
        return;
    };
    assert_eq!(applied.version, after.version);
    if applied.changed {
        assert_eq!(after.version, before.version + 1);
    } else {
        assert_eq!(before, after, "a change was not told");
    }
    check_regions(before, command, after);
    for (slot, placement) in after.slots() {
        check_placement(after, slot, placement);
        if let Some(old) = before.placement(slot) {
            check_step(before, command, after, slot, old, placement);
        }
    }
}

fn check_regions(before: &State, command: &Command, after: &State) {
    assert!(after.region_id_max >= before.region_id_max);
    for id in after.regions.keys() {
        assert!(*id <= after.region_id_max);
        assert!(
            before.regions.contains_key(id) || *id > before.region_id_max,
            "{id:?} was given twice"
        );
    }
    let by_word = matches!(command, Command::SetPolicy { .. });
    assert!(
        after.min_in_sync() >= before.min_in_sync() || by_word,
        "min_in_sync fell"
    );
    assert!(after.min_in_sync() <= after.policy.min_in_sync);
}

fn check_placement(state: &State, slot: Slot, placement: &Placement) {
    let Placement {
        home,
        in_sync,
        replicas,
        ..
    } = placement;
    assert_eq!(in_sync.first(), Some(home), "{slot:?}: home first");
    assert!(
        distinct(in_sync) && distinct(replicas),
        "{slot:?}: twice in {placement:?}"
    );
    assert!(
        in_sync.iter().all(|member| replicas.contains(member)),
        "{slot:?}: {placement:?}"
    );
    let named = replicas
        .iter()
        .chain([&placement.preferred_home])
        .chain(&placement.moving_to);
    for region in named {
        assert!(state.regions.contains_key(region), "{slot:?} names {region:?}");
    }
    assert_ne!(placement.moving_to, Some(*home), "{slot:?} moves to its home");
    for region in state.regions.keys() {
        let follows = replicas.contains(region);
        let due = in_sync.contains(region) || allowed(state, *home, *region);
        assert_eq!(follows, due, "{slot:?}: {region:?} in {placement:?}");
    }
    let alone = in_sync.len() == 1;
    for member in in_sync {
        let down = state.is(*member, RegionStatus::Down);
        assert!(!down || alone, "{slot:?}: {member:?} is down and in {placement:?}");
    }
}

fn check_step(before: &State, command: &Command, after: &State, slot: Slot, old: &Placement, new: &Placement) {
    let forced = matches!(command, Command::ForceHome { .. });
    if old.home == new.home {
        assert_eq!(old.epoch, new.epoch, "{slot:?}: another epoch for the same home");
    } else {
        assert_eq!(new.epoch, old.epoch + 1, "{slot:?}: another home in the same epoch");
        assert!(
            forced || old.in_sync.contains(&new.home),
            "{slot:?}: {old:?} lost to {new:?}"
        );
        assert!(
            !after.is(new.home, RegionStatus::Down),
            "{slot:?}: given to one that is down"
        );
        assert_eq!(new.moving_to, None, "{slot:?}: the wish was the old home's");
    }
    if old != new
        && let Command::ChangeInSync { home, .. } | Command::MoveHome { home, .. } = command
    {
        assert_eq!(old.home, *home, "{slot:?}: changed by one who is not its home");
    }
    assert!(
        new.epoch > old.epoch || new.opening >= old.opening,
        "{slot:?}: an earlier opening was heard: {old:?} to {new:?}"
    );
    let same_set = old.in_sync == new.in_sync;
    // The present set can be asked for, to be sure that nothing else which was asked for comes after it.
    let settled = same_set && matches!(command, Command::ChangeInSync { .. }) && new.version == old.version + 1;
    assert!(
        new.version == old.version + u64::from(!same_set) || settled,
        "{slot:?}: {old:?} to {new:?}"
    );
    let handed_over = old.home != new.home && matches!(command, Command::MoveHome { .. });
    if handed_over {
        assert!(
            new.in_sync.iter().all(|member| allowed(after, new.home, *member)),
            "{slot:?}: {new:?} is where its new home's rule does not allow it"
        );
    }
    if old.forced && !handed_over {
        assert!(new.forced, "{slot:?}: the lease that had to be waited out is forgotten");
    }
    for member in &new.in_sync {
        let came = !old.in_sync.contains(member);
        assert!(
            !came || allowed(after, new.home, *member),
            "{slot:?}: {member:?} may not hold it"
        );
        assert!(
            !came || old.replicas.contains(member),
            "{slot:?}: {member:?} did not follow before"
        );
    }
    if let Some(to) = new.moving_to.filter(|to| old.moving_to != Some(*to)) {
        assert!(before.is(to, RegionStatus::Active), "{slot:?} is to move to {to:?}");
    }
}

pub(crate) fn allowed(state: &State, home: RegionId, region: RegionId) -> bool {
    let name = |id| state.regions.get(&id).map(|region| region.name.as_str()).unwrap();
    let rule = state.policy.allowed.get(name(home));
    home == region || rule.is_none_or(|rule| rule.contains(name(region)))
}

fn distinct(regions: &[RegionId]) -> bool {
    let mut sorted = regions.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len() == regions.len()
}
