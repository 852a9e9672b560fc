use std::collections::BTreeMap;

use crate::domain::{Placement, Policy, Region, RegionId, RegionStatus, rules::Rules};

/// Chooses new homes, so that none gets much more than the others.
pub(super) struct Successors<'a> {
    regions: &'a BTreeMap<RegionId, Region>,
    rules: Rules,
    homes: BTreeMap<RegionId, usize>,
}

impl<'a> Successors<'a> {
    pub(super) fn new(regions: &'a BTreeMap<RegionId, Region>, policy: &Policy, placements: &[Placement]) -> Self {
        let mut homes = BTreeMap::new();
        for placement in placements {
            *homes.entry(placement.home).or_default() += 1;
        }
        Self {
            regions,
            rules: Rules::new(regions, policy),
            homes,
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The in-sync region, other than the home and not down, that shall be home next; counts the slot as its. An active one before one
    /// that is being emptied, one that the policy allows before one it no longer allows, then the preferred home, then whoever is home
    /// of the fewest.
    pub(super) fn choose(&mut self, placement: &Placement) -> Option<RegionId> {
        let candidates = placement.in_sync.iter().copied().filter(|id| *id != placement.home);
        let ranked = candidates.filter_map(|id| {
            let unwanted = match self.regions.get(&id)?.status {
                RegionStatus::Active => false,
                RegionStatus::Draining => true,
                RegionStatus::Down => return None,
            };
            let homes = self.homes.get(&id).copied().unwrap_or(0);
            let forbidden = !self.rules.allows(placement.home, id);
            Some(((unwanted, forbidden, id != placement.preferred_home, homes), id))
        });
        let (_, home) = ranked.min_by_key(|(rank, _)| *rank)?;
        *self.homes.entry(home).or_default() += 1;
        if let Some(homes) = self.homes.get_mut(&placement.home) {
            *homes = homes.saturating_sub(1);
        }
        Some(home)
    }
}

impl Placement {
    /// Another home, the first of `in_sync`, under the next epoch. Whether it has to wait out a lease stays as it was: whoever it was
    /// that had to may not have done so.
    pub(super) fn give_home(&mut self, in_sync: Vec<RegionId>, rules: &Rules) {
        if let Some(home) = in_sync.first() {
            self.home = *home;
        }
        self.epoch += 1;
        self.opening = 0;
        self.moving_to = None;
        self.set_in_sync(in_sync, rules);
    }

    /// Another in-sync set, under the next version.
    pub(super) fn set_in_sync(&mut self, in_sync: Vec<RegionId>, rules: &Rules) {
        self.replicas = rules.replicas(self.home, &in_sync);
        self.in_sync = in_sync;
        self.version += 1;
    }
}
