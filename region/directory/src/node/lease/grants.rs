use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use parking_lot::Mutex;

use super::LeaseOptions;
use crate::{
    domain::{RegionId, RegionStatus, State},
    raft::placeholder::LeaseGrantor,
};

/// What a leader knows of the leases; nothing while the node does not lead.
#[derive(Default)]
pub(crate) struct Grants {
    granting: Mutex<Option<Granting>>,
}

struct Granting {
    term: u64,
    grantor: LeaseGrantor,
    incarnations: BTreeMap<RegionId, u64>,
    /// Those whose end was decided and is not carried out yet, or not known to be.
    condemned: BTreeSet<RegionId>,
    looked_at: Instant,
}

/// Why a lease is not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoGrant {
    /// The node does not lead, or not in the term that was confirmed.
    NotLeading,
    /// The leader says no.
    Refused(String),
}

impl Grants {
    /// The node leads from `now` on: nobody's lease ends before a whole one has passed.
    pub(crate) fn begin(&self, term: u64, options: &LeaseOptions, now: Instant) {
        *self.granting.lock() = Some(Granting {
            term,
            grantor: LeaseGrantor::new(options.lease(), options.margin(), now),
            incarnations: BTreeMap::new(),
            condemned: BTreeSet::new(),
            looked_at: now,
        });
    }

    /// The node leads no longer.
    pub(crate) fn end(&self) {
        *self.granting.lock() = None;
    }

    /// Whether a region's renewal may be looked at; the term in which.
    pub(super) fn admit(&self, region: RegionId, incarnation: u64) -> Result<u64, NoGrant> {
        let granting = self.granting.lock();
        let granting = granting.as_ref().ok_or(NoGrant::NotLeading)?;
        granting.admit(region, incarnation)?;
        Ok(granting.term)
    }

    /// Renews, from when the renewal was received, unless something has changed while leadership was confirmed.
    pub(super) fn renew(
        &self,
        term: u64,
        region: RegionId,
        incarnation: u64,
        received: Instant,
    ) -> Result<(), NoGrant> {
        let mut granting = self.granting.lock();
        let granting = granting
            .as_mut()
            .filter(|granting| granting.term == term)
            .ok_or(NoGrant::NotLeading)?;
        granting.admit(region, incarnation)?;
        granting.incarnations.insert(region, incarnation);
        granting.grantor.renewed(region, received);
        Ok(())
    }

    /// Decides who is down: those are renewed no more until [`Grants::carried_out`].
    pub(crate) fn condemn(&self, options: &LeaseOptions, state: &State, now: Instant) -> Vec<RegionId> {
        let mut granting = self.granting.lock();
        let Some(granting) = granting.as_mut() else {
            return Vec::new();
        };
        let slept = now.saturating_duration_since(granting.looked_at);
        granting.looked_at = now;
        if slept > options.lease() / 2 {
            // This process stood still. Renewals may wait to be read, so nobody's silence means anything.
            granting.grantor = LeaseGrantor::new(options.lease(), options.margin(), now);
        }
        for (id, region) in &state.regions {
            if region.status != RegionStatus::Down && granting.grantor.has_expired(*id, now) {
                granting.condemned.insert(*id);
            }
        }
        granting.condemned.iter().copied().collect()
    }

    /// A region is down now, and may come back.
    pub(crate) fn carried_out(&self, region: RegionId) {
        if let Some(granting) = self.granting.lock().as_mut() {
            granting.condemned.remove(&region);
        }
    }

    /// The state refuses to have a region down: its silence counts anew.
    pub(crate) fn refused(&self, region: RegionId, now: Instant) {
        if let Some(granting) = self.granting.lock().as_mut() {
            granting.condemned.remove(&region);
            granting.grantor.renewed(region, now);
        }
    }

    /// Regions that are down and hold a lease all the same: they are back.
    pub(crate) fn returned(&self, state: &State, now: Instant) -> Vec<RegionId> {
        let granting = self.granting.lock();
        let Some(granting) = granting.as_ref() else {
            return Vec::new();
        };
        let down = state
            .regions
            .iter()
            .filter(|(_, region)| region.status == RegionStatus::Down);
        let back = down.filter(|(id, _)| {
            let renewed = granting.grantor.was_renewed(**id) && !granting.grantor.has_expired(**id, now);
            renewed && !granting.condemned.contains(id)
        });
        back.map(|(id, _)| *id).collect()
    }
}

impl Granting {
    fn admit(&self, region: RegionId, incarnation: u64) -> Result<(), NoGrant> {
        if let Some(newer) = self.incarnations.get(&region).filter(|known| **known > incarnation) {
            let message = format!(
                "a newer process of region {} (incarnation {newer}) holds its lease",
                region.0
            );
            return Err(NoGrant::Refused(message));
        }
        if self.condemned.contains(&region) {
            return Err(NoGrant::Refused(format!("region {} is being declared down", region.0)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Addresses, Region};

    const OPTIONS: LeaseOptions = LeaseOptions {
        lease_ms: 4_000,
        margin_ms: 500,
        renewal_ms: 1_000,
    };

    fn state(status: RegionStatus) -> State {
        let region = Region {
            name: "r1".to_owned(),
            addresses: Addresses::default(),
            status,
        };
        State {
            regions: BTreeMap::from([(RegionId(1), region)]),
            ..State::default()
        }
    }

    /// Looks every 500 ms, from `from_ms` to `to_ms`; when the region was condemned first.
    fn condemned_at(grants: &Grants, start: Instant, from_ms: u64, to_ms: u64) -> Option<u64> {
        (from_ms..=to_ms).step_by(500).find(|at_ms| {
            let now = start + Duration::from_millis(*at_ms);
            !grants.condemn(&OPTIONS, &state(RegionStatus::Active), now).is_empty()
        })
    }

    #[test]
    fn a_new_leader_waits_a_lease_and_margin() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        assert_eq!(condemned_at(&grants, start, 0, 4_500), None);
        assert_eq!(condemned_at(&grants, start, 5_000, 6_000), Some(5_000));
    }

    #[test]
    fn a_lease_counts_from_when_its_renewal_was_received() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        let received = start + Duration::from_millis(2_000);
        let term = grants.admit(RegionId(1), 1).unwrap();
        grants.renew(term, RegionId(1), 1, received).unwrap();
        assert_eq!(condemned_at(&grants, start, 0, 10_000), Some(7_000));
    }

    #[test]
    fn who_is_being_declared_down_is_not_renewed_until_that_is_done() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        // The renewal comes before the end, and leadership is confirmed after it.
        let term = grants.admit(RegionId(1), 1).unwrap();
        let at = condemned_at(&grants, start, 0, 6_000).unwrap();
        let now = start + Duration::from_millis(at);
        assert!(matches!(
            grants.renew(term, RegionId(1), 1, now),
            Err(NoGrant::Refused(_))
        ));
        assert!(grants.returned(&state(RegionStatus::Down), now).is_empty());

        grants.carried_out(RegionId(1));
        grants.renew(term, RegionId(1), 1, now).unwrap();
        assert_eq!(grants.returned(&state(RegionStatus::Down), now), [RegionId(1)]);
    }

    #[test]
    fn a_renewal_does_not_count_in_another_term() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        let term = grants.admit(RegionId(1), 1).unwrap();
        grants.end();
        assert_eq!(grants.renew(term, RegionId(1), 1, start), Err(NoGrant::NotLeading));
        grants.begin(9, &OPTIONS, start);
        assert_eq!(grants.renew(term, RegionId(1), 1, start), Err(NoGrant::NotLeading));
    }

    #[test]
    fn an_older_process_of_a_region_is_refused() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        grants.renew(7, RegionId(1), 2, start).unwrap();
        assert!(matches!(grants.admit(RegionId(1), 1), Err(NoGrant::Refused(_))));
        grants.admit(RegionId(1), 3).unwrap();
    }

    #[test]
    fn a_leader_that_stood_still_declares_nobody_down_for_it() {
        let (grants, start) = (Grants::default(), Instant::now());
        grants.begin(7, &OPTIONS, start);
        assert_eq!(condemned_at(&grants, start, 0, 1_000), None);
        let woken_ms = 60_000;
        assert_eq!(condemned_at(&grants, start, woken_ms, woken_ms + 4_500), None);
        assert_eq!(
            condemned_at(&grants, start, woken_ms + 5_000, woken_ms + 6_000),
            Some(woken_ms + 5_000)
        );
    }
}
