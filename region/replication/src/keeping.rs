//! Which in-sync set a home asks the directory for: a pure decision.

use std::time::{Duration, Instant};

use antiphon_directory::domain::RegionId;

/// A region that keeps a copy, as its home sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    pub(crate) region: RegionId,
    /// When it last was level.
    pub(crate) level_at: Instant,
    /// Whether it is now.
    pub(crate) is_level: bool,
    /// Whether it is being emptied.
    pub(crate) leaves: bool,
}

/// The rules that a decision keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) in_sync_copies: usize,
    pub(crate) min_in_sync: usize,
    pub(crate) lag_max: Duration,
}

/// The set to ask for, without the home; `None` when the present one is right. A member that lags is replaced by an observer that is
/// level; without one it goes only as long as enough members stay. One that is being emptied is replaced the same way, and stays
/// for want of others.
pub(crate) fn wanted(members: &[Copy], observers: &[Copy], rules: Rules, now: Instant) -> Option<Vec<RegionId>> {
    let lags = |copy: &&Copy| !copy.is_level && now.saturating_duration_since(copy.level_at) > rules.lag_max;
    let mut set: Vec<RegionId> = members
        .iter()
        .filter(|copy| !lags(copy) && !copy.leaves)
        .map(|copy| copy.region)
        .collect();
    let level = observers.iter().filter(|copy| copy.is_level);
    let keeps_up_and_leaves = members.iter().filter(|copy| !lags(copy) && copy.leaves);
    let in_turn = level.clone().filter(|copy| !copy.leaves);
    let in_turn = in_turn
        .chain(keeps_up_and_leaves)
        .chain(level.filter(|copy| copy.leaves));
    let missing = rules.in_sync_copies.saturating_sub(set.len() + 1);
    set.extend(in_turn.take(missing).map(|copy| copy.region));
    // A member that lags counts on rather than leave too few: nothing is acknowledged meanwhile, and nothing is lost.
    let too_few = rules.min_in_sync.saturating_sub(set.len() + 1);
    set.extend(members.iter().filter(lags).map(|copy| copy.region).take(too_few));
    let is_same = set.len() == members.len() && members.iter().all(|copy| set.contains(&copy.region));
    (!is_same).then_some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        in_sync_copies: 2,
        min_in_sync: 2,
        lag_max: Duration::from_secs(3),
    };

    /// Regions from here on are being emptied.
    const LEAVING: u64 = 100;

    fn copies(now: Instant, lags_ms: &[(u64, u64)]) -> Vec<Copy> {
        let copy = |(region, lag_ms): &(u64, u64)| Copy {
            region: RegionId(*region),
            level_at: now.checked_sub(Duration::from_millis(*lag_ms)).unwrap(),
            is_level: *lag_ms == 0,
            leaves: *region >= LEAVING,
        };
        lags_ms.iter().map(copy).collect()
    }

    fn decide(members: &[(u64, u64)], observers: &[(u64, u64)], rules: Rules) -> Option<Vec<u64>> {
        let now = Instant::now() + Duration::from_secs(60);
        let set = wanted(&copies(now, members), &copies(now, observers), rules, now)?;
        Some(set.into_iter().map(|region| region.0).collect())
    }

    #[test]
    fn a_set_that_keeps_up_stays() {
        assert_eq!(decide(&[(2, 0)], &[(3, 0)], RULES), None);
        assert_eq!(decide(&[(2, 2_900)], &[(3, 0)], RULES), None);
    }

    #[test]
    fn a_member_that_lags_is_replaced_by_an_observer_that_is_level() {
        assert_eq!(decide(&[(2, 3_100)], &[(3, 0)], RULES), Some(vec![3]));
        assert_eq!(decide(&[(2, 3_100)], &[(3, 10), (4, 0)], RULES), Some(vec![4]));
    }

    #[test]
    fn a_member_that_lags_stays_rather_than_leave_too_few() {
        assert_eq!(decide(&[(2, 9_000)], &[(3, 100)], RULES), None);
        let two_of_three = Rules {
            in_sync_copies: 3,
            ..RULES
        };
        assert_eq!(decide(&[(2, 9_000), (3, 0)], &[], two_of_three), Some(vec![3]));
    }

    #[test]
    fn a_member_that_is_being_emptied_stays_until_another_is_level() {
        assert_eq!(decide(&[(100, 0)], &[(3, 50)], RULES), None);
        assert_eq!(decide(&[(100, 0)], &[(101, 0)], RULES), None);
        assert_eq!(decide(&[(100, 0)], &[(101, 0), (3, 0)], RULES), Some(vec![3]));
        assert_eq!(decide(&[(2, 0), (100, 0)], &[], RULES), Some(vec![2]));
        // For want of others.
        assert_eq!(decide(&[], &[(101, 0)], RULES), Some(vec![101]));
    }

    #[test]
    fn a_set_that_is_too_small_grows_as_soon_as_an_observer_is_level() {
        assert_eq!(decide(&[], &[(3, 50)], RULES), None);
        assert_eq!(decide(&[], &[(2, 10), (3, 0)], RULES), Some(vec![3]));
    }
}
