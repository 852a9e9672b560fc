//! Which in-sync set a home asks the directory for: a pure decision.

use std::{cmp::Reverse, time::Duration};

use antiphon_directory::domain::RegionId;
use tokio::time::Instant;

/// By how much nearer another region has to be before it takes a member's place: a fifth, and this.
const NEARER_MIN: Duration = Duration::from_millis(5);

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

/// The set to ask for, without the home; `None` when the present one is right. `target` is what the set should be if all were level.
/// A member that lags is replaced by an observer that is level; without one it goes only as long as enough members stay. A member that
/// keeps up goes when one of the target has come in for it.
pub(crate) fn wanted(
    members: &[Copy],
    observers: &[Copy],
    target: &[RegionId],
    rules: Rules,
    now: Instant,
) -> Option<Vec<RegionId>> {
    let lags = |copy: &&Copy| !copy.is_level && now.saturating_duration_since(copy.level_at) > rules.lag_max;
    let mut set: Vec<RegionId> = members
        .iter()
        .filter(|copy| !lags(copy))
        .map(|copy| copy.region)
        .collect();
    let mut level: Vec<RegionId> = observers
        .iter()
        .filter(|copy| copy.is_level)
        .map(|copy| copy.region)
        .collect();
    level.sort_by_key(|region| !target.contains(region));
    for region in level {
        if target.contains(&region) || set.len() + 1 < rules.in_sync_copies {
            set.push(region);
        }
    }
    // Those of the target first: what is too many after them goes.
    set.sort_by_key(|region| Reverse(target.contains(region)));
    set.truncate(rules.in_sync_copies.saturating_sub(1).max(target.len()));
    // A member that lags counts on rather than leave too few: nothing is acknowledged meanwhile, and nothing is lost.
    let too_few = rules.min_in_sync.saturating_sub(set.len() + 1);
    set.extend(members.iter().filter(lags).map(|copy| copy.region).take(too_few));
    let is_same = set.len() == members.len() && members.iter().all(|copy| set.contains(&copy.region));
    (!is_same).then_some(set)
}

/// The regions by their distance, nearest first. Who is in the set is taken for nearer than measured, so that two that are about as far
/// do not take turns; and as long as the distance of one of the set is not known, nobody is nearer.
pub(crate) fn nearest(round_trips: &[(u64, Duration)], present: &[RegionId]) -> Vec<RegionId> {
    let is_measured = |region: &RegionId| round_trips.iter().any(|(measured, _)| *measured == region.0);
    if !present.iter().all(is_measured) {
        return Vec::new();
    }
    let mut ranked: Vec<(Duration, RegionId)> = round_trips
        .iter()
        .map(|(region, round_trip)| {
            let region = RegionId(*region);
            let counts = if present.contains(&region) {
                (*round_trip * 4 / 5).saturating_sub(NEARER_MIN)
            } else {
                *round_trip
            };
            (counts, region)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(_, region)| region).collect()
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
        let target: Vec<u64> = members.iter().map(|(region, _)| *region).collect();
        aim(members, observers, &target, rules)
    }

    fn aim(members: &[(u64, u64)], observers: &[(u64, u64)], target: &[u64], rules: Rules) -> Option<Vec<u64>> {
        let now = Instant::now() + Duration::from_secs(60);
        let target: Vec<RegionId> = target.iter().copied().map(RegionId).collect();
        let set = wanted(&copies(now, members), &copies(now, observers), &target, rules, now)?;
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

    #[test]
    fn a_member_makes_place_for_one_that_is_wanted_once_that_is_level() {
        assert_eq!(aim(&[(2, 0)], &[(3, 100)], &[3], RULES), None);
        assert_eq!(aim(&[(2, 0)], &[(3, 0)], &[3], RULES), Some(vec![3]));
        assert_eq!(aim(&[(2, 0)], &[(3, 0), (4, 0)], &[2], RULES), None);
    }

    #[test]
    fn a_set_that_has_grown_too_large_loses_who_is_not_wanted() {
        assert_eq!(aim(&[(2, 0), (3, 0)], &[], &[3], RULES), Some(vec![3]));
        let all = Rules {
            in_sync_copies: 3,
            ..RULES
        };
        assert_eq!(aim(&[(2, 0), (3, 0)], &[], &[3], all), None);
    }

    #[test]
    fn two_that_are_about_as_far_do_not_take_turns() {
        let order = |round_trips_ms: &[(u64, u64)], present: u64| -> Vec<u64> {
            let round_trips: Vec<_> = round_trips_ms
                .iter()
                .map(|(region, ms)| (*region, Duration::from_millis(*ms)))
                .collect();
            let nearest = nearest(&round_trips, &[RegionId(present)]);
            nearest.into_iter().map(|region| region.0).collect()
        };
        assert_eq!(order(&[(2, 80), (3, 70)], 2), [2, 3]);
        assert_eq!(order(&[(2, 80), (3, 70)], 3), [3, 2]);
        assert_eq!(order(&[(2, 200), (3, 70)], 2), [3, 2]);
        assert_eq!(order(&[(2, 4), (3, 1)], 2), [2, 3]);
        assert_eq!(order(&[(3, 1)], 2), [0; 0], "how far the present one is, is not known");
    }
}
