use std::collections::BTreeMap;

use antiphon_types::{Epoch, Slot};

use super::{Applied, check_epoch, check_home, each_slot, no_region, successor::Successors};
use crate::domain::{Placement, Region, RegionId, RegionStatus, Rejection, State, rules::Rules};

impl State {
    pub(super) fn move_home(
        &mut self,
        home: RegionId,
        moves: &[(Slot, Epoch, RegionId)],
    ) -> Result<Applied, Rejection> {
        let from_active = check_up(&self.regions, home)? == RegionStatus::Active;
        let rules = Rules::new(&self.regions, &self.policy);
        let (regions, min_in_sync) = (&self.regions, self.min_in_sync());

        let parts = moves.iter().map(|(slot, epoch, to)| (*slot, (*epoch, *to)));
        Ok(each_slot(
            &mut self.placements,
            parts,
            |slot, placement, (epoch, to)| {
                check_epoch(slot, placement, epoch)?;
                check_home(slot, placement, home)?;
                check_other(slot, placement, to)?;
                check_in_sync(slot, placement, to)?;
                let status = regions.get(&to).ok_or_else(|| no_region(to))?.status;
                if status != RegionStatus::Active {
                    return Err(Rejection::Refused(format!(
                        "region {} is {status:?} and cannot become home of slot {slot}",
                        to.0
                    )));
                }
                let in_sync = after_move(placement, to, &rules, min_in_sync).ok_or_else(|| {
                    Rejection::Refused(format!(
                        "fewer than {min_in_sync} of the regions that the policy allows for region {} are in sync with slot {slot}",
                        to.0
                    ))
                })?;
                // The planner evens out: the slot belongs there from now on. Were it not so, the next rebalance would bring it back.
                if from_active && placement.moving_to == Some(to) && placement.preferred_home == home {
                    placement.preferred_home = to;
                }
                placement.give_home(in_sync, &rules);
                placement.forced = false;
                Ok(true)
            },
        ))
    }

    /// Whether the home of `slot` can hand it over to `to` now: that one and others whom its rule allows are in sync, as many as it takes
    /// to write.
    #[must_use]
    pub fn can_move(&self, slot: Slot, to: RegionId) -> bool {
        let rules = Rules::new(&self.regions, &self.policy);
        self.placement(slot)
            .is_some_and(|placement| after_move(placement, to, &rules, self.min_in_sync()).is_some())
    }

    /// The old home stays in sync: it holds all that was committed, and the new home drops it in the ordinary way if it does not
    /// answer.
    pub(super) fn fail_over(&mut self, slots: &[Slot], to: Option<RegionId>) -> Result<Applied, Rejection> {
        if let Some(to) = to {
            check_up(&self.regions, to)?;
        }
        let mut successors = Successors::new(&self.regions, &self.policy, &self.placements);
        let regions = &self.regions;

        let parts = slots.iter().map(|slot| (*slot, ()));
        Ok(each_slot(&mut self.placements, parts, |slot, placement, ()| {
            let home = match to {
                Some(to) if placement.home == to => return Ok(false),
                Some(to) => to,
                None => successors.choose(placement).ok_or_else(|| nobody_else(slot))?,
            };
            check_in_sync(slot, placement, home)?;
            let mut in_sync = with_first(home, &placement.in_sync);
            in_sync.retain(|member| is_up(regions, *member));
            // A home that is down has no lease any more.
            let was_up = is_up(regions, placement.home);
            placement.give_home(in_sync, successors.rules());
            placement.forced |= was_up;
            Ok(true)
        }))
    }

    pub(super) fn force_home(&mut self, slots: &[Slot], to: RegionId) -> Result<Applied, Rejection> {
        check_up(&self.regions, to)?;
        let rules = Rules::new(&self.regions, &self.policy);
        let regions = &self.regions;

        let parts = slots.iter().map(|slot| (*slot, ()));
        Ok(each_slot(&mut self.placements, parts, |slot, placement, ()| {
            if let Some(up) = placement.in_sync.iter().find(|member| is_up(regions, **member)) {
                return Err(Rejection::Refused(format!(
                    "region {} is in sync with slot {slot} and is up: nothing need be lost",
                    up.0
                )));
            }
            if !placement.replicas.contains(&to) {
                return Err(Rejection::Refused(format!(
                    "region {} holds no copy of slot {slot}",
                    to.0
                )));
            }
            placement.give_home(vec![to], &rules);
            Ok(true)
        }))
    }
}

/// The status of a region that is there and not down. A home that is down has nothing to say: its lease has run out, and its slots are
/// other regions' by now, or nobody's.
pub(super) fn check_up(regions: &BTreeMap<RegionId, Region>, region: RegionId) -> Result<RegionStatus, Rejection> {
    let found = regions.get(&region).ok_or_else(|| no_region(region))?;
    if found.status == RegionStatus::Down {
        return Err(Rejection::Refused(format!("region {} is down", found.name)));
    }
    Ok(found.status)
}

fn is_up(regions: &BTreeMap<RegionId, Region>, region: RegionId) -> bool {
    check_up(regions, region).is_ok()
}

fn check_other(slot: Slot, placement: &Placement, to: RegionId) -> Result<(), Rejection> {
    if placement.home != to {
        return Ok(());
    }
    Err(Rejection::Refused(format!(
        "region {} is home of slot {slot} already",
        to.0
    )))
}

fn check_in_sync(slot: Slot, placement: &Placement, to: RegionId) -> Result<(), Rejection> {
    if placement.in_sync.contains(&to) {
        return Ok(());
    }
    Err(Rejection::Refused(format!(
        "region {} is not in sync with slot {slot}",
        to.0
    )))
}

fn nobody_else(slot: Slot) -> Rejection {
    Rejection::Refused(format!("no other region that is up is in sync with slot {slot}"))
}

/// The in-sync set under another home, that first, without those whom its rule forbids to keep copies; `None` when it is not in sync,
/// or too few would be left.
fn after_move(placement: &Placement, to: RegionId, rules: &Rules, min_in_sync: u8) -> Option<Vec<RegionId>> {
    if !placement.in_sync.contains(&to) {
        return None;
    }
    let mut in_sync = with_first(to, &placement.in_sync);
    in_sync.retain(|member| rules.allows(to, *member));
    let enough = usize::from(min_in_sync).min(placement.in_sync.len());
    (in_sync.len() >= enough).then_some(in_sync)
}

fn with_first(home: RegionId, in_sync: &[RegionId]) -> Vec<RegionId> {
    let others = in_sync.iter().copied().filter(|member| *member != home);
    [home].into_iter().chain(others).collect()
}
