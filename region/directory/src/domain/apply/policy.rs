use super::Applied;
use crate::domain::{Policy, Rejection, State};

impl State {
    /// Observers that are no longer allowed are gone at once; in-sync members when their home has put others in their place.
    pub(super) fn set_policy(&mut self, policy: &Policy) -> Result<Applied, Rejection> {
        if self.policy == *policy {
            return Ok(Applied::default());
        }
        policy.check(self.regions.values().map(|region| region.name.as_str()))?;
        self.policy = policy.clone();
        self.min_in_sync = self.min_in_sync.min(policy.min_in_sync);
        Ok(Applied {
            changed: true,
            ..Applied::slots_changed(self.follow_rules())
        })
    }
}
