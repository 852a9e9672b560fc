use antiphon_types::{Epoch, Slot};

use super::{Applied, check_epoch, each_slot, no_region};
use crate::domain::{RegionId, RegionStatus, Rejection, State};

impl State {
    pub(super) fn set_wishes(&mut self, moves: &[(Slot, Epoch, Option<RegionId>)]) -> Result<Applied, Rejection> {
        let regions = &self.regions;
        let parts = moves.iter().map(|(slot, epoch, to)| (*slot, (*epoch, *to)));
        Ok(each_slot(
            &mut self.placements,
            parts,
            |slot, placement, (epoch, to)| {
                check_epoch(slot, placement, epoch)?;
                if let Some(to) = to {
                    let status = regions.get(&to).ok_or_else(|| no_region(to))?.status;
                    if status != RegionStatus::Active || to == placement.home || !placement.replicas.contains(&to) {
                        return Err(Rejection::Refused(format!(
                            "slot {slot} cannot move to region {}, which is {status:?}: only to another that is active and holds a copy",
                            to.0
                        )));
                    }
                }
                let changed = placement.moving_to != to;
                placement.moving_to = to;
                Ok(changed)
            },
        ))
    }
}
