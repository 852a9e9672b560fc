use std::collections::BTreeMap;

use antiphon_types::{SLOT_COUNT, Slot};

use super::{Applied, regions::check_name};
use crate::domain::{Addresses, Placement, Policy, Region, RegionId, RegionStatus, Rejection, State, rules::Rules};

impl State {
    pub(super) fn found(
        &mut self,
        deployment: &str,
        regions: &[(String, Addresses)],
        policy: &Policy,
    ) -> Result<Applied, Rejection> {
        if self.deployment == deployment && !deployment.is_empty() {
            return Ok(Applied::default());
        }
        if !self.deployment.is_empty() {
            return Err(Rejection::Refused(format!(
                "this is deployment {:?} and not {deployment:?}",
                self.deployment
            )));
        }
        if deployment.is_empty() || regions.is_empty() {
            return Err(Rejection::Refused(
                "a deployment has a name and at least one region".to_owned(),
            ));
        }
        let regions = first_regions(regions)?;
        policy.check(regions.values().map(|region| region.name.as_str()))?;

        self.deployment = deployment.to_owned();
        self.region_id_max = regions.keys().next_back().copied().unwrap_or_default();
        self.placements = first_placements(&regions, policy);
        self.regions = regions;
        self.policy = policy.clone();
        Ok(Applied {
            changed: true,
            ..Applied::slots_changed(self.placements.len())
        })
    }
}

fn first_regions(regions: &[(String, Addresses)]) -> Result<BTreeMap<RegionId, Region>, Rejection> {
    let mut first = BTreeMap::new();
    for (id, (name, addresses)) in (1..).zip(regions) {
        check_name(name, &first)?;
        let region = Region {
            name: name.clone(),
            addresses: addresses.clone(),
            status: RegionStatus::Active,
            was_draining: false,
            nodes: Vec::new(),
        };
        first.insert(RegionId(id), region);
    }
    Ok(first)
}

/// Homes go round the ring of regions, and so do the in-sync sets from each home: evenly spread, and the homes will choose nearer
/// ones as soon as they have measured who is near.
fn first_placements(regions: &BTreeMap<RegionId, Region>, policy: &Policy) -> Vec<Placement> {
    let rules = Rules::new(regions, policy);
    let ring = || regions.keys().copied().cycle();
    let homes = ring().take(usize::from(SLOT_COUNT)).zip(Slot::all());
    let placement = |home: RegionId| {
        let from_home = ring().skip_while(|region| *region != home).take(regions.len());
        let allowed = from_home.filter(|region| rules.allows(home, *region));
        let in_sync: Vec<RegionId> = allowed.take(usize::from(policy.in_sync_copies)).collect();
        Placement {
            home,
            replicas: rules.replicas(home, &in_sync),
            in_sync,
            epoch: 1,
            version: 1,
            opening: 0,
            forced: false,
            preferred_home: home,
            moving_to: None,
        }
    };
    homes.map(|(home, _)| placement(home)).collect()
}
