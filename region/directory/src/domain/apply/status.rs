use super::{Applied, no_region, successor::Successors};
use crate::domain::{RegionId, RegionStatus, Rejection, State};

impl State {
    /// Coming back from `Down` changes no placement: the homes take the region into their in-sync sets again when it is level.
    pub(super) fn set_status(&mut self, region: RegionId, status: RegionStatus) -> Result<Applied, Rejection> {
        let found = self.regions.get_mut(&region).ok_or_else(|| no_region(region))?;
        if found.status == status {
            return Ok(Applied::default());
        }
        let before = found.status;
        found.status = status;
        found.was_draining = status == RegionStatus::Down && before == RegionStatus::Draining;
        let slots_changed = match status {
            RegionStatus::Down => self.leave_in_sync_sets(region),
            RegionStatus::Active if before == RegionStatus::Draining => self.stop_draining(region),
            RegionStatus::Active | RegionStatus::Draining => 0,
        };
        Ok(Applied {
            changed: true,
            ..Applied::slots_changed(slots_changed)
        })
    }

    /// Takes a region that is down out of every in-sync set and gives its homes to others of those sets. A slot that nobody else is in
    /// sync with keeps its home and its epoch: whoever took over would lose what was acknowledged.
    fn leave_in_sync_sets(&mut self, region: RegionId) -> usize {
        let mut successors = Successors::new(&self.regions, &self.policy, &self.placements);
        let mut slots_changed = 0;
        for placement in &mut self.placements {
            if !placement.in_sync.contains(&region) {
                continue;
            }
            if placement.home == region {
                let Some(home) = successors.choose(placement) else {
                    continue;
                };
                let others = placement.in_sync.iter().copied();
                let in_sync = others.filter(|member| *member != region && *member != home);
                let in_sync = [home].into_iter().chain(in_sync).collect();
                placement.give_home(in_sync, successors.rules());
            } else {
                let others = placement.in_sync.iter().copied();
                let in_sync = others.filter(|member| *member != region).collect();
                placement.set_in_sync(in_sync, successors.rules());
            }
            slots_changed += 1;
        }
        slots_changed
    }

    /// Takes back the wishes that were to empty the region.
    fn stop_draining(&mut self, region: RegionId) -> usize {
        let homes = self.placements.iter_mut().filter(|placement| placement.home == region);
        let wishes = homes.filter_map(|placement| placement.moving_to.take());
        wishes.count()
    }
}
