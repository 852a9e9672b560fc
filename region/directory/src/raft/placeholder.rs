use serde::{Deserialize, Serialize};

use crate::domain::{Command, Placement, Region, RegionId, RegionStatus, Rejection, State};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied(pub u64);

pub(crate) fn apply(state: &mut State, command: &Command) -> Result<Applied, Rejection> {
    match command {
        Command::Found {
            deployment,
            regions,
            policy,
        } => {
            if state.deployment.is_empty() {
                state.deployment = deployment.clone();
                state.policy = policy.clone();
                for (number, (name, addresses)) in (1..).zip(regions) {
                    let region = Region {
                        name: name.clone(),
                        addresses: addresses.clone(),
                        status: RegionStatus::Active,
                    };
                    state.regions.insert(RegionId(number), region);
                    state.region_id_max = RegionId(number);
                }
                let home = RegionId(1);
                let placement = Placement {
                    home,
                    in_sync: vec![home],
                    replicas: vec![home],
                    epoch: 1,
                    version: 1,
                    preferred_home: home,
                    moving_to: None,
                };
                state.placements = vec![placement; 4096];
                state.version += 1;
            }
        }
        Command::AddRegion { name, addresses } => {
            let id = RegionId(state.region_id_max.0 + 1);
            state.region_id_max = id;
            let region = Region {
                name: name.clone(),
                addresses: addresses.clone(),
                status: RegionStatus::Active,
            };
            state.regions.insert(id, region);
            state.version += 1;
        }
        Command::RemoveRegion { region } => {
            state
                .regions
                .remove(region)
                .ok_or_else(|| Rejection::NoRegion(region.0.to_string()))?;
            state.version += 1;
        }
        Command::SetStatus { region, status } => {
            let found = state
                .regions
                .get_mut(region)
                .ok_or_else(|| Rejection::NoRegion(region.0.to_string()))?;
            found.status = *status;
            state.version += 1;
        }
        Command::SetPolicy { policy } => {
            state.policy = policy.clone();
            state.version += 1;
        }
        _ => state.version += 1,
    }
    Ok(Applied(state.version))
}

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub(crate) struct LeaseHolder {
    length: Duration,
    until: Option<Instant>,
}
impl LeaseHolder {
    pub(crate) fn new(lease: Duration, margin: Duration) -> Self {
        Self {
            length: lease - margin,
            until: None,
        }
    }
    pub(crate) fn renewed(&mut self, asked: Instant) {
        self.until = self.until.max(Some(asked + self.length));
    }
    pub(crate) fn valid_until(&self) -> Option<Instant> {
        self.until
    }
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}
pub(crate) struct LeaseGrantor {
    wait: Duration,
    since: Instant,
    renewed: BTreeMap<RegionId, Instant>,
}
impl LeaseGrantor {
    pub(crate) fn new(lease: Duration, margin: Duration, elected: Instant) -> Self {
        Self {
            wait: lease + margin,
            since: elected,
            renewed: BTreeMap::new(),
        }
    }
    pub(crate) fn renewed(&mut self, region: RegionId, received: Instant) {
        self.renewed.insert(region, received);
    }
    pub(crate) fn has_expired(&self, region: RegionId, now: Instant) -> bool {
        let since = self.renewed.get(&region).copied().unwrap_or(self.since).max(self.since);
        now.saturating_duration_since(since) > self.wait
    }
    pub(crate) fn was_renewed(&self, region: RegionId) -> bool {
        self.renewed.contains_key(&region)
    }
}
