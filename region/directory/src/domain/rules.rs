use std::collections::{BTreeMap, BTreeSet};

use super::{Policy, Region, RegionId, Rejection};

/// Who may hold copies of whose slots. Made once for a command: the policy speaks of names, placements of ids.
#[derive(Debug)]
pub(super) struct Rules {
    allowed: BTreeMap<RegionId, Vec<RegionId>>,
}

impl Rules {
    pub(super) fn new(regions: &BTreeMap<RegionId, Region>, policy: &Policy) -> Self {
        let allowed_for = |home: &Region| {
            let allowed = regions
                .iter()
                .filter(|(_, region)| policy.allows(&home.name, &region.name));
            allowed.map(|(id, _)| *id).collect()
        };
        Self {
            allowed: regions.iter().map(|(id, home)| (*id, allowed_for(home))).collect(),
        }
    }

    /// Who may hold copies of the slots of `home`, in the order of their ids; the home among them.
    pub(super) fn of(&self, home: RegionId) -> &[RegionId] {
        self.allowed.get(&home).map_or(&[], Vec::as_slice)
    }

    pub(super) fn allows(&self, home: RegionId, region: RegionId) -> bool {
        self.of(home).binary_search(&region).is_ok()
    }

    /// The replicas of a slot: its in-sync set, then everybody else who is allowed. A member of the in-sync set that is no longer
    /// allowed stays until the home has put another in its place, so that a change of policy never costs a slot its copies.
    pub(super) fn replicas(&self, home: RegionId, in_sync: &[RegionId]) -> Vec<RegionId> {
        let observers = self.of(home).iter().filter(|region| !in_sync.contains(region));
        in_sync.iter().chain(observers).copied().collect()
    }
}

impl Policy {
    /// Whether `region` may hold copies of the slots of `home`.
    pub(super) fn allows(&self, home: &str, region: &str) -> bool {
        home == region || self.allowed.get(home).is_none_or(|rule| rule.contains(region))
    }

    /// Whether the policy can be kept by these regions.
    pub(super) fn check<'a>(&self, regions: impl Iterator<Item = &'a str>) -> Result<(), Rejection> {
        let regions: Vec<&str> = regions.collect();
        if self.min_in_sync == 0 || self.in_sync_copies < self.min_in_sync {
            return Err(Rejection::Refused(format!(
                "min_in_sync is {} and in_sync_copies {}: the first has to be at least 1 and the second no less",
                self.min_in_sync, self.in_sync_copies
            )));
        }
        self.check_rules_are_closed()?;
        self.check_copies(&regions, usize::from(self.min_in_sync).min(regions.len()))
    }

    /// Whether a slot, wherever its home is, may have this many copies.
    pub(super) fn check_copies(&self, regions: &[&str], copies: usize) -> Result<(), Rejection> {
        for home in regions {
            let allowed = regions.iter().filter(|region| self.allows(home, region)).count();
            if allowed < copies {
                return Err(Rejection::Refused(format!(
                    "a slot whose home is {home} may have {allowed} copies and must have {copies} to be written"
                )));
            }
        }
        Ok(())
    }

    fn check_rules_are_closed(&self) -> Result<(), Rejection> {
        for (home, rule) in &self.allowed {
            for region in rule.iter().filter(|region| *region != home) {
                let leak = match self.allowed.get(region) {
                    None => Some("every region"),
                    Some(theirs) => beyond(theirs, home, rule),
                };
                if let Some(leak) = leak {
                    return Err(Rejection::Refused(format!(
                        "{region} may hold copies of {home}'s slots and so come to be their home, but its own rule allows {leak}, \
                         and {home}'s does not"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The first that is in `theirs` and not allowed by `home`'s `rule`.
fn beyond<'a>(theirs: &'a BTreeSet<String>, home: &str, rule: &BTreeSet<String>) -> Option<&'a str> {
    let mut theirs = theirs.iter().map(String::as_str);
    theirs.find(|region| *region != home && !rule.contains(*region))
}
