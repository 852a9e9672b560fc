use antiphon_types::Slot;

use super::{Applied, check_epoch, check_home, each_slot, homes::check_up};
use crate::domain::{InSyncChange, Placement, RegionId, RegionStatus, Rejection, State, rules::Rules};

impl State {
    pub(super) fn change_in_sync(&mut self, home: RegionId, changes: &[InSyncChange]) -> Result<Applied, Rejection> {
        check_up(&self.regions, home)?;
        let rules = Rules::new(&self.regions, &self.policy);
        let down = self
            .regions
            .iter()
            .filter(|(_, region)| region.status == RegionStatus::Down);
        let down: Vec<RegionId> = down.map(|(id, _)| *id).collect();

        let parts = changes.iter().map(|change| (change.slot, change));
        Ok(each_slot(&mut self.placements, parts, |slot, placement, change| {
            let set = &change.set;
            check_epoch(slot, placement, change.epoch)?;
            check_home(slot, placement, home)?;
            check_opening(slot, placement, change.opening)?;
            check_version(slot, placement, change.version)?;
            check_set(slot, placement, set, &down)?;
            placement.opening = change.opening;
            // The present set under the next version: what was asked for on this one, and is still on its way, is refused then.
            if placement.in_sync == *set {
                placement.version += 1;
                return Ok(true);
            }
            // The home drops one that has fallen behind: no wish holds against that. The planner looks again.
            let dropped = |to: &RegionId| placement.in_sync.contains(to) && !set.contains(to);
            placement.moving_to = placement.moving_to.filter(|to| !dropped(to));
            placement.set_in_sync(set.clone(), &rules);
            Ok(true)
        }))
    }
}

/// A process that had the slot before, in this epoch, does not know any more who has to hold what.
fn check_opening(slot: Slot, placement: &Placement, asks: u64) -> Result<(), Rejection> {
    if placement.opening <= asks {
        return Ok(());
    }
    Err(Rejection::Stale {
        what: format!("the home's opening of slot {slot}"),
        expected: asks,
        found: placement.opening,
    })
}

fn check_version(slot: Slot, placement: &Placement, expected: u64) -> Result<(), Rejection> {
    if placement.version == expected {
        return Ok(());
    }
    Err(Rejection::Stale {
        what: format!("the in-sync set's version of slot {slot}"),
        expected,
        found: placement.version,
    })
}

/// The policy needs no look of its own: replicas are those that it allows, and members that it has ceased to allow.
fn check_set(slot: Slot, placement: &Placement, set: &[RegionId], down: &[RegionId]) -> Result<(), Rejection> {
    if set.first() != Some(&placement.home) {
        return Err(Rejection::Refused(format!(
            "the in-sync set of slot {slot} has to begin with its home, region {}",
            placement.home.0
        )));
    }
    let mut rest = set;
    while let Some((member, after)) = rest.split_first() {
        if after.contains(member) {
            return Err(Rejection::Refused(format!(
                "region {} is twice in the in-sync set of slot {slot}",
                member.0
            )));
        }
        if !placement.replicas.contains(member) {
            return Err(Rejection::Refused(format!(
                "region {} holds no copy of slot {slot}: it is not there, or the policy does not allow it",
                member.0
            )));
        }
        if down.contains(member) {
            return Err(Rejection::Refused(format!(
                "region {} is down and cannot be in sync with slot {slot}",
                member.0
            )));
        }
        rest = after;
    }
    Ok(())
}
