use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::Asker;
use crate::domain::{LeaseGrantor, LeaseTerms, RegionId, RegionStatus, State};

/// What a leader knows of the leases; nothing while the node does not lead. Every `now_ms` is of one monotonic clock.
#[derive(Default)]
pub(crate) struct Grants {
    granting: Mutex<Option<Granting>>,
}

struct Granting {
    term: u64,
    grantor: LeaseGrantor,
    /// The newest process of each node of each region.
    incarnations: BTreeMap<RegionId, BTreeMap<String, u64>>,
    /// Whom the grantor grants leases.
    running: BTreeSet<RegionId>,
    /// Those whose end was decided and is not yet in the state.
    condemned: BTreeSet<RegionId>,
    /// Those that are down and ask again.
    knocking: BTreeSet<RegionId>,
    /// Version of the newest state that was seen.
    version: u64,
    looked_at_ms: u64,
    stood_still_ms: u64,
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
    /// The node leads from `now_ms` on: nobody's lease ends before a whole one has passed.
    pub(crate) fn begin(&self, term: u64, terms: LeaseTerms, state: &State, now_ms: u64) {
        let mut granting = Granting {
            term,
            grantor: LeaseGrantor::new(terms, now_ms, []),
            incarnations: BTreeMap::new(),
            running: BTreeSet::new(),
            condemned: BTreeSet::new(),
            knocking: BTreeSet::new(),
            version: 0,
            looked_at_ms: now_ms,
            stood_still_ms: terms.held_ms() / 2,
        };
        granting.follow(state, now_ms);
        *self.granting.lock() = Some(granting);
    }

    /// The node leads no longer.
    pub(crate) fn end(&self) {
        *self.granting.lock() = None;
    }

    /// A renewal has come. Returns the term in which leadership is to be confirmed.
    pub(super) fn asked(&self, state: &State, asker: &Asker, now_ms: u64) -> Result<u64, NoGrant> {
        let mut granting = self.granting.lock();
        let granting = granting.as_mut().ok_or(NoGrant::NotLeading)?;
        granting.follow(state, now_ms);
        granting.check_incarnation(asker)?;
        granting.grantor.asked(asker.region, now_ms).map_err(|declared| {
            granting.knocking.insert(asker.region);
            NoGrant::Refused(declared.to_string())
        })?;
        Ok(granting.term)
    }

    /// Leadership was confirmed after the renewal had come: it is granted unless something has changed meanwhile.
    pub(super) fn grant(&self, state: &State, term: u64, asker: &Asker, now_ms: u64) -> Result<(), NoGrant> {
        let mut granting = self.granting.lock();
        let granting = granting.as_mut().filter(|granting| granting.term == term);
        let granting = granting.ok_or(NoGrant::NotLeading)?;
        granting.follow(state, now_ms);
        granting.check_incarnation(asker)?;
        if !granting.running.contains(&asker.region) {
            let why = format!("region {} has been declared down", asker.region.0);
            return Err(NoGrant::Refused(why));
        }
        let nodes = granting.incarnations.entry(asker.region).or_default();
        nodes.insert(asker.node.clone(), asker.incarnation);
        Ok(())
    }

    /// To be called often. If the last time was too long ago, this process stood still: renewals may wait to be read, so nobody's
    /// silence means anything.
    pub(crate) fn look(&self, now_ms: u64) {
        if let Some(granting) = self.granting.lock().as_mut() {
            granting.look(now_ms);
        }
    }

    /// Decides who is down: those are refused until the state has them down, or refuses to ([`Grants::stays_up`]).
    pub(crate) fn condemn(&self, state: &State, now_ms: u64) -> Vec<RegionId> {
        let mut granting = self.granting.lock();
        let Some(granting) = granting.as_mut() else {
            return Vec::new();
        };
        granting.follow(state, now_ms);
        granting.look(now_ms);
        for region in granting.grantor.expired(now_ms) {
            granting.running.remove(&region);
            granting.condemned.insert(region);
        }
        granting.condemned.iter().copied().collect()
    }

    /// The state refuses to have a region down: its silence counts anew.
    pub(crate) fn stays_up(&self, region: RegionId, now_ms: u64) {
        if let Some(granting) = self.granting.lock().as_mut()
            && granting.condemned.remove(&region)
        {
            granting.admit(region, now_ms);
        }
    }

    /// Regions that are down and have asked for their lease since this was called last: they are back.
    pub(crate) fn back(&self, state: &State) -> Vec<RegionId> {
        let mut granting = self.granting.lock();
        let Some(granting) = granting.as_mut() else {
            return Vec::new();
        };
        let knocking = std::mem::take(&mut granting.knocking);
        let down = |region: &RegionId| state.is(*region, RegionStatus::Down);
        knocking.into_iter().filter(down).collect()
    }
}

impl Granting {
    /// Brings those who may have a lease in line with the state.
    fn follow(&mut self, state: &State, now_ms: u64) {
        if state.version < self.version {
            return;
        }
        self.version = state.version;
        for (id, region) in &state.regions {
            match region.status {
                RegionStatus::Down => self.forget(*id),
                RegionStatus::Active | RegionStatus::Draining => {
                    if !self.running.contains(id) && !self.condemned.contains(id) {
                        self.admit(*id, now_ms);
                    }
                }
            }
        }
        let there = self.running.union(&self.condemned);
        let gone: Vec<RegionId> = there.copied().filter(|id| !state.regions.contains_key(id)).collect();
        for id in gone {
            self.forget(id);
        }
    }

    fn look(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.looked_at_ms) > self.stood_still_ms {
            for region in &self.running {
                self.grantor.readmit(*region, now_ms);
            }
        }
        self.looked_at_ms = now_ms;
    }

    fn admit(&mut self, region: RegionId, now_ms: u64) {
        self.grantor.readmit(region, now_ms);
        self.running.insert(region);
    }

    fn forget(&mut self, region: RegionId) {
        self.grantor.forget(region);
        self.running.remove(&region);
        self.condemned.remove(&region);
    }

    fn check_incarnation(&self, asker: &Asker) -> Result<(), NoGrant> {
        let nodes = self.incarnations.get(&asker.region);
        match nodes.and_then(|nodes| nodes.get(&asker.node)) {
            Some(newer) if *newer > asker.incarnation => Err(NoGrant::Refused(format!(
                "a newer process (incarnation {newer}) of node {} of region {} holds its lease",
                asker.node, asker.region.0
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Addresses, Region};

    const R1: RegionId = RegionId(1);

    fn state(version: u64, status: RegionStatus) -> State {
        let region = Region {
            name: "r1".to_owned(),
            addresses: Addresses::default(),
            status,
            was_draining: false,
            nodes: Vec::new(),
        };
        State {
            version,
            regions: BTreeMap::from([(R1, region)]),
            ..State::default()
        }
    }

    fn asker(node: &str, incarnation: u64) -> Asker {
        Asker {
            region: R1,
            node: node.to_owned(),
            incarnation,
        }
    }

    fn first(incarnation: u64) -> Asker {
        asker("1", incarnation)
    }

    fn active() -> State {
        state(1, RegionStatus::Active)
    }

    fn leading() -> Grants {
        let grants = Grants::default();
        grants.begin(7, LeaseTerms::default(), &active(), 0);
        grants
    }

    /// Looks every 500 ms; when the region was condemned first.
    fn condemned_at(grants: &Grants, from_ms: u64, to_ms: u64) -> Option<u64> {
        (from_ms..=to_ms)
            .step_by(500)
            .find(|now_ms| !grants.condemn(&active(), *now_ms).is_empty())
    }

    #[test]
    fn a_new_leader_waits_a_lease_and_margin() {
        let grants = leading();
        assert_eq!(condemned_at(&grants, 0, 4_000), None);
        assert_eq!(condemned_at(&grants, 4_500, 6_000), Some(4_500));
    }

    #[test]
    fn a_lease_counts_from_when_its_renewal_has_come() {
        let grants = leading();
        let term = grants.asked(&active(), &first(1), 2_000).unwrap();
        grants.grant(&active(), term, &first(1), 2_700).unwrap();
        assert_eq!(condemned_at(&grants, 0, 10_000), Some(6_500));
    }

    #[test]
    fn who_is_being_declared_down_is_not_renewed_until_it_is_active_again() {
        let grants = leading();
        let term = grants.asked(&active(), &first(1), 0).unwrap();
        let at = condemned_at(&grants, 0, 6_000).unwrap();
        // Confirming took so long that the region was given up meanwhile.
        assert!(matches!(
            grants.grant(&active(), term, &first(1), at),
            Err(NoGrant::Refused(_))
        ));
        assert!(matches!(
            grants.asked(&active(), &first(1), at),
            Err(NoGrant::Refused(_))
        ));
        // Not back before it is down: the declaration may still be under way.
        assert_eq!(grants.back(&active()), []);
        assert_eq!(grants.condemn(&active(), at), [R1], "it is tried until it is so");

        let down = state(2, RegionStatus::Down);
        assert_eq!(grants.condemn(&down, at), []);
        assert!(matches!(grants.asked(&down, &first(1), at), Err(NoGrant::Refused(_))));
        assert_eq!(grants.back(&down), [R1]);
        let again = state(3, RegionStatus::Active);
        let term = grants.asked(&again, &first(1), at).unwrap();
        grants.grant(&again, term, &first(1), at).unwrap();
    }

    #[test]
    fn an_older_state_revives_nobody() {
        let grants = leading();
        let down = state(2, RegionStatus::Down);
        assert!(grants.asked(&down, &first(1), 0).is_err());
        assert!(grants.asked(&active(), &first(1), 0).is_err());
    }

    #[test]
    fn a_region_that_stays_up_has_another_lease_of_time() {
        let grants = leading();
        assert_eq!(condemned_at(&grants, 0, 5_000), Some(4_500));
        grants.stays_up(R1, 4_500);
        assert_eq!(condemned_at(&grants, 5_000, 10_000), Some(9_000));
    }

    #[test]
    fn a_renewal_does_not_count_in_another_term() {
        let grants = leading();
        let term = grants.asked(&active(), &first(1), 0).unwrap();
        grants.end();
        assert_eq!(grants.grant(&active(), term, &first(1), 0), Err(NoGrant::NotLeading));
        grants.begin(9, LeaseTerms::default(), &active(), 0);
        assert_eq!(grants.grant(&active(), term, &first(1), 0), Err(NoGrant::NotLeading));
    }

    #[test]
    fn a_region_lives_as_long_as_its_last_node() {
        let grants = leading();
        for (now_ms, node) in [(1_000, "1"), (1_200, "2"), (2_000, "2")] {
            let term = grants.asked(&active(), &asker(node, 1), now_ms).unwrap();
            grants.grant(&active(), term, &asker(node, 1), now_ms).unwrap();
        }
        assert_eq!(condemned_at(&grants, 0, 10_000), Some(6_500));
    }

    #[test]
    fn processes_are_compared_with_those_of_the_same_node() {
        let grants = leading();
        grants.grant(&active(), 7, &asker("1", 9), 0).unwrap();
        grants.grant(&active(), 7, &asker("2", 5), 0).unwrap();
        grants.asked(&active(), &asker("1", 9), 0).unwrap();
        for older in [asker("1", 8), asker("2", 4)] {
            let refused = grants.asked(&active(), &older, 0);
            assert!(matches!(refused, Err(NoGrant::Refused(_))), "{older:?}");
        }
    }

    #[test]
    fn an_older_process_of_a_node_is_refused() {
        let grants = leading();
        grants.grant(&active(), 7, &first(2), 0).unwrap();
        assert!(matches!(
            grants.asked(&active(), &first(1), 0),
            Err(NoGrant::Refused(_))
        ));
        grants.asked(&active(), &first(3), 0).unwrap();
    }

    #[test]
    fn a_leader_that_is_kept_from_deciding_has_not_stood_still() {
        let grants = leading();
        for now_ms in (0..8_000).step_by(500) {
            grants.look(now_ms);
        }
        assert_eq!(grants.condemn(&active(), 8_000), [R1]);
    }

    #[test]
    fn a_leader_that_stood_still_declares_nobody_down_for_it() {
        let grants = leading();
        assert_eq!(condemned_at(&grants, 0, 1_000), None);
        assert_eq!(condemned_at(&grants, 60_000, 64_000), None);
        assert_eq!(condemned_at(&grants, 64_500, 66_000), Some(64_500));
    }
}
