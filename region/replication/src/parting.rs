//! Where two logs part, by who wrote what (KIP-101): entries of one leader epoch are the same wherever they are.

use antiphon_proto::log::EpochStart;
use antiphon_types::LogIndex;

/// The last index up to which a follower's log is the home's. `None` when their histories have no epoch in common.
pub(crate) fn parts_behind(
    (home, home_last): (&[EpochStart], LogIndex),
    (follower, follower_last): (&[EpochStart], LogIndex),
) -> Option<LogIndex> {
    if follower_last == 0 {
        return Some(0);
    }
    follower.iter().enumerate().rev().find_map(|(at, started)| {
        let at_home = home.iter().position(|other| other.epoch == started.epoch)?;
        Some(end(follower, at, follower_last).min(end(home, at_home, home_last)))
    })
}

/// The last index that the epoch at `at` wrote.
fn end(epochs: &[EpochStart], at: usize, last: LogIndex) -> LogIndex {
    epochs
        .get(at + 1)
        .map_or(last, |next| next.first_index.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(epochs: &[u64]) -> (Vec<EpochStart>, LogIndex) {
        let mut starts: Vec<EpochStart> = Vec::new();
        for (epoch, first_index) in epochs.iter().zip(1..) {
            if starts.last().is_none_or(|last| last.epoch != *epoch) {
                starts.push(EpochStart {
                    epoch: *epoch,
                    first_index,
                });
            }
        }
        (starts, epochs.len() as u64)
    }

    fn parts(home: &[u64], follower: &[u64]) -> Option<LogIndex> {
        let (home, follower) = (history(home), history(follower));
        parts_behind((&home.0, home.1), (&follower.0, follower.1))
    }

    #[test]
    fn logs_part_where_the_last_common_epoch_ends_in_the_shorter_of_them() {
        assert_eq!(parts(&[1, 1, 1], &[1, 1, 1]), Some(3));
        assert_eq!(parts(&[1, 1, 1], &[1, 1]), Some(2));
        assert_eq!(parts(&[1, 1, 2, 2], &[1, 1, 1, 1]), Some(2));
        assert_eq!(parts(&[1, 1, 3], &[1, 1, 2, 2]), Some(2));
        assert_eq!(parts(&[1, 2, 2, 4], &[1, 2, 3, 3]), Some(2));
        assert_eq!(parts(&[2, 2], &[1, 1]), None);
        assert_eq!(parts(&[2, 2], &[]), Some(0));
    }

    /// Logs as homes write them: each home keeps what it found and writes on under a higher epoch.
    fn logs() -> impl Strategy<Value = Vec<Vec<u64>>> {
        prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize, 0..4_usize), 1..12).prop_map(|steps| {
            let mut logs: Vec<Vec<u64>> = vec![vec![]];
            for ((from, kept, written), epoch) in steps.into_iter().zip(1..) {
                let from = &logs[from.index(logs.len())];
                let mut log = from[..from.len() - kept.min(from.len())].to_vec();
                log.extend(std::iter::repeat_n(epoch, written));
                logs.push(log);
            }
            logs
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_same_in_both_logs(logs in logs(), a: prop::sample::Index, b: prop::sample::Index) {
            let (home, follower) = (&logs[a.index(logs.len())], &logs[b.index(logs.len())]);
            let kept = parts(home, follower).unwrap_or(0);
            let kept = usize::try_from(kept).unwrap();
            prop_assert_eq!(&home[..kept], &follower[..kept]);
            // Nothing that both have is cut.
            let common = home.iter().zip(follower).take_while(|(one, other)| one == other).count();
            prop_assert_eq!(kept, common);
        }
    }
}
