use crate::domain::RegionId;
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
