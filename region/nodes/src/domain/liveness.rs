use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::NodeId;

/// What a node's row shows of its life: the process that writes it, and how far that has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// Drawn by the process at its start.
    pub process: u64,
    /// Grows with each heartbeat.
    pub heartbeat: u64,
}

/// Who is alive, as one observer sees it: by its own monotonic clock, and by whether signs change. What the others' clocks show is
/// of no interest.
///
/// A node is alive from when its row is first seen until its sign has stood still for `dead_after`. So a row that the observer finds
/// at its start counts: to take a slot from a node that lives would be worse than to wait a moment for one that does not.
///
/// Only time counts in which the observer has looked: of a long pause between two looks a quarter of `dead_after`. Else all nodes would
/// take each other for dead whenever a store that did not answer comes back, and one that was stopped would take all the others for it.
#[derive(Debug)]
pub struct Liveness {
    dead_after: Duration,
    looked_at: Option<Instant>,
    /// How much time has counted.
    watched: Duration,
    seen: BTreeMap<NodeId, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    sign: Sign,
    /// What of the watched time had passed then.
    changed_at: Duration,
}

impl Liveness {
    /// An observer who has seen nobody yet.
    #[must_use]
    pub const fn new(dead_after: Duration) -> Self {
        Self {
            dead_after,
            looked_at: None,
            watched: Duration::ZERO,
            seen: BTreeMap::new(),
        }
    }

    /// Takes in the signs of all rows that there are now.
    pub fn look(&mut self, now: Instant, signs: impl IntoIterator<Item = (NodeId, Sign)>) {
        let looked_at = self.looked_at.replace(now).unwrap_or(now);
        self.watched += now.saturating_duration_since(looked_at).min(self.dead_after / 4);
        let mut known = std::mem::take(&mut self.seen);
        let seen = signs.into_iter().map(|(node, sign)| {
            let same = known.remove(&node).filter(|seen| seen.sign == sign);
            let changed_at = same.map_or(self.watched, |seen| seen.changed_at);
            (node, Seen { sign, changed_at })
        });
        self.seen = seen.collect();
    }

    /// Whether the node was alive when it was looked last.
    #[must_use]
    pub fn is_alive(&self, node: &NodeId) -> bool {
        self.stands_still(node).is_some_and(|time| time < self.dead_after)
    }

    /// For how long the node's sign had not changed when it was looked last; `None` for one without a row.
    #[must_use]
    pub fn stands_still(&self, node: &NodeId) -> Option<Duration> {
        Some(self.watched.saturating_sub(self.seen.get(node)?.changed_at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEAT: Duration = Duration::from_millis(500);
    const DEAD_AFTER: Duration = Duration::from_secs(2);

    fn node(number: u8) -> NodeId {
        NodeId::parse(&number.to_string()).unwrap()
    }

    const fn sign(process: u64, heartbeat: u64) -> Sign {
        Sign { process, heartbeat }
    }

    #[test]
    fn a_row_counts_from_when_it_is_first_seen_until_it_has_stood_still() {
        let (mut liveness, start) = (Liveness::new(DEAD_AFTER), Instant::now());
        for beats in 0..4 {
            liveness.look(start + BEAT * beats, [(node(1), sign(7, 3))]);
            assert!(liveness.is_alive(&node(1)), "after {beats} looks");
        }
        liveness.look(start + BEAT * 4, [(node(1), sign(7, 3))]);
        assert!(!liveness.is_alive(&node(1)));
        liveness.look(start + BEAT * 5, [(node(1), sign(7, 4))]);
        assert!(liveness.is_alive(&node(1)), "it counts again");
    }

    #[test]
    fn another_process_with_the_same_count_is_a_sign_of_life() {
        let (mut liveness, start) = (Liveness::new(DEAD_AFTER), Instant::now());
        for beats in 0..=4 {
            liveness.look(start + BEAT * beats, [(node(1), sign(7, 0))]);
        }
        liveness.look(start + BEAT * 5, [(node(1), sign(8, 0))]);
        assert!(liveness.is_alive(&node(1)));
    }

    #[test]
    fn a_node_without_a_row_is_not_alive() {
        let (mut liveness, start) = (Liveness::new(DEAD_AFTER), Instant::now());
        liveness.look(start, [(node(1), sign(7, 0))]);
        liveness.look(start + BEAT, []);
        assert!(!liveness.is_alive(&node(1)));
        assert_eq!(liveness.stands_still(&node(1)), None);
    }

    #[test]
    fn who_could_not_look_takes_nobody_for_dead_and_wakes_no_dead() {
        let (mut liveness, start) = (Liveness::new(DEAD_AFTER), Instant::now());
        for beats in 0..=4 {
            let signs = [(node(1), sign(7, 0)), (node(2), sign(9, beats.into()))];
            liveness.look(start + BEAT * beats, signs);
        }
        let back = start + BEAT * 4 + DEAD_AFTER * 10;
        let signs = || [(node(1), sign(7, 0)), (node(2), sign(9, 4))];
        for beats in 0..3 {
            liveness.look(back + BEAT * beats, signs());
            assert!(!liveness.is_alive(&node(1)), "it was dead before");
            assert!(liveness.is_alive(&node(2)), "after {beats} looks");
        }
        liveness.look(back + BEAT * 3, signs());
        assert!(!liveness.is_alive(&node(2)), "it has had its time");
    }

    #[test]
    fn who_looks_seldom_sees_who_died_all_the_same() {
        let (mut liveness, start) = (Liveness::new(DEAD_AFTER), Instant::now());
        for looks in 0..=4 {
            liveness.look(start + DEAD_AFTER * 3 * looks, [(node(1), sign(7, 0))]);
        }
        assert!(!liveness.is_alive(&node(1)));
    }

    proptest! {
        /// However often and whenever it is looked: who counts at every second look at least is never taken for dead, and who counts
        /// no more is dead once it was watched for long enough.
        #[test]
        fn who_counts_lives_and_who_does_not_dies_in_time(
            pauses_ms in prop::collection::vec(1_u64..2_000, 20..60),
            dies_at in 5_usize..15,
        ) {
            let (mut liveness, mut now) = (Liveness::new(DEAD_AFTER), Instant::now());
            let mut watched = Duration::ZERO;
            for (looks, pause_ms) in pauses_ms.iter().enumerate() {
                let pause = Duration::from_millis(*pause_ms);
                now += pause;
                let heartbeat = (looks.min(dies_at) / 2) as u64;
                liveness.look(now, [(node(1), sign(7, heartbeat))]);
                if looks <= dies_at {
                    prop_assert!(liveness.is_alive(&node(1)), "taken for dead while it counted");
                } else {
                    watched += pause.min(BEAT);
                    prop_assert!(watched < DEAD_AFTER || !liveness.is_alive(&node(1)), "dead for {watched:?}");
                }
            }
        }
    }
}
