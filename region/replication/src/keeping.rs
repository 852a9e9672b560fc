//! Which in-sync set a home asks the directory for: a pure decision.

use std::time::Duration;

use antiphon_directory::domain::RegionId;
use tokio::time::Instant;

/// A region that keeps a copy, as its home sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    pub(crate) region: RegionId,
    /// When it last was level.
    pub(crate) level_at: Instant,
    /// Whether it is now.
    pub(crate) is_level: bool,
}

/// The rules that a decision keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) in_sync_copies: usize,
    pub(crate) min_in_sync: usize,
    pub(crate) lag_max: Duration,
}

/// The set to ask for, without the home; `None` when the present one is right. A member that lags is replaced by an observer that is
/// level; without one it goes only as long as enough members stay.
pub(crate) fn wanted(members: &[Copy], observers: &[Copy], rules: Rules, now: Instant) -> Option<Vec<RegionId>> {
    let lags = |copy: &&Copy| !copy.is_level && now.saturating_duration_since(copy.level_at) > rules.lag_max;
    let mut set: Vec<RegionId> = members
        .iter()
        .filter(|copy| !lags(copy))
        .map(|copy| copy.region)
        .collect();
    let level = observers.iter().filter(|copy| copy.is_level).map(|copy| copy.region);
    let missing = rules.in_sync_copies.saturating_sub(set.len() + 1);
    set.extend(level.take(missing));
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

    fn copies(now: Instant, lags_ms: &[(u64, u64)]) -> Vec<Copy> {
        let copy = |(region, lag_ms): &(u64, u64)| Copy {
            region: RegionId(*region),
            level_at: now.checked_sub(Duration::from_millis(*lag_ms)).unwrap(),
            is_level: *lag_ms == 0,
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
    fn a_set_that_is_too_small_grows_as_soon_as_an_observer_is_level() {
        assert_eq!(decide(&[], &[(3, 50)], RULES), None);
        assert_eq!(decide(&[], &[(2, 10), (3, 0)], RULES), Some(vec![3]));
    }
}
