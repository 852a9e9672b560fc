use std::collections::BTreeMap;

use super::{Applied, no_region};
use crate::domain::{Addresses, Region, RegionId, RegionStatus, Rejection, State, rules::Rules};

const NAME_LEN_MAX: usize = 32;

impl State {
    pub(super) fn add_region(&mut self, name: &str, addresses: &Addresses) -> Result<Applied, Rejection> {
        // Whoever did not hear the answer asks again.
        let same = |region: &Region| region.name == name && region.addresses == *addresses;
        if let Some((id, _)) = self.regions.iter().find(|(_, region)| same(region)) {
            return Ok(Applied {
                region: Some(*id),
                ..Applied::default()
            });
        }
        check_name(name, &self.regions)?;
        let names = self.regions.values().map(|region| region.name.as_str());
        self.policy.check(names.chain([name]))?;

        let id = RegionId(self.region_id_max.0 + 1);
        let region = Region {
            name: name.to_owned(),
            addresses: addresses.clone(),
            status: RegionStatus::Active,
            was_draining: false,
            nodes: Vec::new(),
        };
        self.region_id_max = id;
        self.regions.insert(id, region);
        Ok(Applied {
            changed: true,
            region: Some(id),
            ..Applied::slots_changed(self.follow_rules())
        })
    }

    pub(super) fn remove_region(&mut self, region: RegionId) -> Result<Applied, Rejection> {
        let removed = self.regions.get(&region).ok_or_else(|| no_region(region))?;
        let homes = self.placements.iter().filter(|placement| placement.home == region);
        let in_sync = self
            .placements
            .iter()
            .filter(|placement| placement.in_sync.contains(&region));
        let (homes, in_sync) = (homes.count(), in_sync.count());
        if in_sync > 0 {
            return Err(Rejection::Refused(format!(
                "region {} is home of {homes} slots and in the in-sync sets of {in_sync}",
                removed.name
            )));
        }
        let others = self.regions.iter().filter(|(id, _)| **id != region);
        let others: Vec<&str> = others.map(|(_, other)| other.name.as_str()).collect();
        self.policy.check_copies(&others, usize::from(self.min_in_sync))?;

        self.regions.remove(&region);
        for placement in &mut self.placements {
            placement.moving_to = placement.moving_to.filter(|to| *to != region);
            if placement.preferred_home == region {
                placement.preferred_home = placement.home;
            }
        }
        Ok(Applied {
            changed: true,
            ..Applied::slots_changed(self.follow_rules())
        })
    }

    pub(super) fn set_addresses(&mut self, region: RegionId, addresses: &Addresses) -> Result<Applied, Rejection> {
        let found = self.regions.get_mut(&region).ok_or_else(|| no_region(region))?;
        if found.addresses == *addresses {
            return Ok(Applied::default());
        }
        found.addresses = addresses.clone();
        Ok(Applied::changed())
    }

    /// Brings the replicas of every slot in line with the regions and rules that there are. Returns how many slots that changed.
    pub(super) fn follow_rules(&mut self) -> usize {
        let rules = Rules::new(&self.regions, &self.policy);
        let mut slots_changed = 0;
        for placement in &mut self.placements {
            let replicas = rules.replicas(placement.home, &placement.in_sync);
            if replicas != placement.replicas {
                placement.replicas = replicas;
                slots_changed += 1;
            }
        }
        slots_changed
    }
}

/// Refuses a name that is malformed or taken.
pub(super) fn check_name(name: &str, regions: &BTreeMap<RegionId, Region>) -> Result<(), Rejection> {
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(of_name) {
        return Err(Rejection::Refused(format!(
            "region name {name:?} is not 1 to {NAME_LEN_MAX} lower-case letters, digits and hyphens"
        )));
    }
    if let Some((id, _)) = regions.iter().find(|(_, region)| region.name == name) {
        return Err(Rejection::Refused(format!("the name {name:?} is region {}'s", id.0)));
    }
    Ok(())
}
