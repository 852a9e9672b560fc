use std::{f64::consts::TAU, mem, time::Duration};

use tokio::time::Instant;

use crate::{Second, figures::float};

/// When what happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) began: Instant,
    pub(crate) counts: Instant,
    pub(crate) ends: Instant,
    pub(crate) given_up: Instant,
    /// Between two messages of one user.
    pub(crate) pause: Duration,
    pub(crate) shape: Shape,
}

/// How the rate of a run changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Not at all.
    Even,
    /// Low in its night and high in its evening.
    Day,
    /// A calm, which the warm-up is before, an overload, another calm: this long each calm, with this share of the overload's rate.
    Overload {
        /// How long each calm is.
        calm: Duration,
        /// Its rate over that of the overload.
        share: f64,
    },
}

/// For so many seconds in a row a server is to be as before an overload until it counts as recovered.
const LASTS_S: f64 = 10.0;

/// Between two seconds that were looked at, at the most.
const UNSEEN_MAX_S: f64 = 2.0;

/// The disk stands still in a second in which, or in the one before, a thread of the load waits longer for an fdatasync. A slow second is
/// the disk's when that wait is more than half of what its messages took.
const DISK_MS: f64 = 10.0;

/// How a server fares in an overload and recovers from it. In a slow second nothing was answered, or 99 of 100 messages took more than
/// twice as long as in any second of the calm before in which the disk did not stand still, or in any at all when it did in each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recovery {
    /// Messages a second that were acknowledged in it.
    pub(crate) overload_per_s: f64,
    /// What a second is slow above.
    pub(crate) slow_above_ms: f64,
    /// From the end of the overload until ten seconds begin of which none is slow; none when the calm has no such ten.
    pub(crate) took_ms: Option<f64>,
    /// As above, without those that are the disk's.
    pub(crate) took_but_disk_ms: Option<f64>,
    /// How many there are in all of the calm after it.
    pub(crate) slow_seconds: usize,
    /// Of these, those that are the disk's.
    pub(crate) slow_seconds_of_disk: usize,
}

impl Times {
    /// When something is due that would be due `even` after the beginning if all hours were the same. A day begins and ends in its night
    /// with a tenth of the mean rate, and has nearly twice that in the middle.
    pub(crate) fn due(&self, even: Duration) -> Instant {
        let day = self.ends.saturating_duration_since(self.began);
        match self.shape {
            Shape::Day if even < day => self.due_of_day(even, day),
            Shape::Even | Shape::Day => self.began + even,
            Shape::Overload { calm, share } => {
                let before = calm + self.counts.saturating_duration_since(self.began);
                let (calm_even, overload) = (before.mul_f64(share), day.saturating_sub(before + calm));
                let stretched = |even: Duration| even.div_f64(share);
                match even.checked_sub(calm_even) {
                    None => self.began + stretched(even),
                    Some(even) if even < overload => self.began + before + even,
                    Some(even) => self.began + before + overload + stretched(even - overload),
                }
            }
        }
    }

    /// See [`Recovery`]; of a run that has an overload.
    pub(crate) fn recovery(&self, seconds: &[Second]) -> Option<Recovery> {
        let Shape::Overload { calm, .. } = self.shape else {
            return None;
        };
        let since = |at: Instant| at.saturating_duration_since(self.counts).as_secs_f64().round();
        let (begins, ends, last) = (since(self.counts + calm), since(self.ends - calm), since(self.ends));
        let mut waited_ms = 0.0;
        let looks = seconds.iter().map(|second| {
            // What waited in one second is answered in the next, too.
            let waits_ms = second.fdatasync_ms.unwrap_or_default();
            let longest_ms = f64::max(waits_ms, mem::replace(&mut waited_ms, waits_ms));
            // It is seen a little after it has ended.
            (second.at_s.round(), second, longest_ms)
        });
        let looks: Vec<(f64, &Second, f64)> = looks.collect();
        let among = |from: f64, to: f64| looks.iter().filter(move |(at_s, ..)| *at_s > from && *at_s <= to);
        let longest_ms = |disk_ms: f64| {
            let before = among(f64::MIN, begins).filter(|(.., waited_ms)| *waited_ms <= disk_ms);
            before.filter_map(|(_, second, _)| second.p99_ms).reduce(f64::max)
        };
        let normal_ms = longest_ms(DISK_MS).or_else(|| longest_ms(f64::INFINITY));
        let slow_above_ms = 2.0 * normal_ms.unwrap_or_default();
        let mut seen_s = ends;
        // When, and whether it is the disk's.
        let mut slow: Vec<(f64, bool)> = Vec::new();
        for (at_s, second, waited_ms) in among(ends, last) {
            // One in which nothing was answered has no latencies, and what was not seen is not known to be well.
            let known_ms = second.p99_ms.filter(|_| second.acknowledged > 0);
            let is_unseen = at_s - seen_s > UNSEEN_MAX_S;
            if is_unseen || known_ms.is_none_or(|p99_ms| p99_ms > slow_above_ms) {
                let is_of_disk = |p99_ms: f64| *waited_ms > DISK_MS.max(p99_ms / 2.0);
                slow.push((*at_s, !is_unseen && known_ms.is_some_and(is_of_disk)));
            }
            seen_s = *at_s;
        }
        let is_seen = last - seen_s <= UNSEEN_MAX_S;
        let took_ms = |but_disk: bool| {
            let counted = slow.iter().filter(|(_, of_disk)| !(but_disk && *of_disk));
            let until = counted.fold(
                ends,
                |until, (at_s, _)| if at_s - until <= LASTS_S { *at_s } else { until },
            );
            (is_seen && until + LASTS_S <= last).then_some((until - ends) * 1_000.0)
        };
        let acknowledged: u64 = among(begins, ends).map(|(_, second, _)| second.acknowledged).sum();
        Some(Recovery {
            overload_per_s: float(acknowledged) / (ends - begins).max(1.0),
            slow_above_ms,
            took_ms: took_ms(false),
            took_but_disk_ms: took_ms(true),
            slow_seconds: slow.len(),
            slow_seconds_of_disk: slow.iter().filter(|(_, of_disk)| *of_disk).count(),
        })
    }

    fn due_of_day(&self, even: Duration, day: Duration) -> Instant {
        let done = |hour: f64| hour - 0.9 * (hour * TAU).sin() / TAU;
        let even = even.div_duration_f64(day);
        let (mut before, mut after) = (0.0, 1.0);
        // To a billionth of the day.
        for _ in 0..30 {
            let middle = f64::midpoint(before, after);
            if done(middle) < even {
                before = middle;
            } else {
                after = middle;
            }
        }
        self.began + day.mul_f64(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_as_many_messages_as_an_even_time_and_most_of_them_in_its_middle() {
        let began = Instant::now();
        let seconds = Duration::from_secs;
        let times = Times {
            began,
            counts: began,
            ends: began + seconds(100),
            given_up: began + seconds(200),
            pause: seconds(1),
            shape: Shape::Day,
        };
        let due: Vec<f64> = (0..100)
            .map(|even| (times.due(seconds(even)) - began).as_secs_f64())
            .collect();
        assert!(due.is_sorted() && due[99] < 100.0, "{due:?}");
        let among = |from: f64, to: f64| due.iter().filter(|at| (from..to).contains(*at)).count();
        assert!(among(0.0, 10.0) <= 4 && among(45.0, 55.0) >= 18, "{due:?}");
        assert_eq!(times.due(seconds(150)), began + seconds(150), "after the day");
    }

    #[test]
    fn an_overload_is_between_two_calms() {
        let began = Instant::now();
        let seconds = Duration::from_secs;
        let times = Times {
            began: began - seconds(4),
            counts: began,
            ends: began + seconds(80),
            given_up: began + seconds(200),
            pause: Duration::from_millis(100),
            shape: Shape::Overload {
                calm: seconds(20),
                share: 0.25,
            },
        };
        let due = (0..600).map(|at| (times.due(times.pause * at) - times.began).as_secs_f64() - 4.0);
        let due: Vec<f64> = due.take_while(|at| *at < 80.0).collect();
        assert!(due.is_sorted(), "{due:?}");
        let among = |from: f64, to: f64| due.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!(among(-4.0, 0.0), 10, "the warm-up is as calm");
        assert_eq!((among(0.0, 20.0), among(20.0, 60.0), among(60.0, 80.0)), (50, 400, 50));

        let second = |at_s: u32, p99_ms| Second {
            // As they are seen: a little late.
            at_s: f64::from(at_s) + 0.001,
            acknowledged: 1,
            p99_ms: Some(p99_ms),
            refused: 0,
            server_rss_bytes: 0,
            server_open_files: 0,
            server_tasks: None,
            fdatasync_ms: Some(1.0),
        };
        let recovery = |slow: &[(usize, f64)]| {
            let mut seen: Vec<Second> = (1..=85).map(|at| second(at, 10.0)).collect();
            seen[3].p99_ms = Some(20.0);
            for (at, p99_ms) in slow {
                seen[at - 1].p99_ms = Some(*p99_ms).filter(|_| *p99_ms > 0.0);
                seen[at - 1].acknowledged = u64::from(*p99_ms > 0.0);
            }
            let found = times.recovery(&seen).unwrap();
            assert_eq!(found.slow_above_ms, 40.0);
            let quiet = slow
                .iter()
                .filter(|(at, p99_ms)| (21..=60).contains(at) && *p99_ms == 0.0);
            let answered = u32::try_from(40 - quiet.count()).unwrap();
            assert_eq!(found.overload_per_s, f64::from(answered) / 40.0);
            (found.took_ms, found.slow_seconds)
        };
        assert_eq!(recovery(&[(21, 0.0), (60, 0.0)]), (Some(0.0), 0), "of the overload");
        assert_eq!(
            recovery(&[(30, 900.0), (60, 900.0), (81, 900.0)]),
            (Some(0.0), 0),
            "not of the calm"
        );
        assert_eq!(
            recovery(&[(63, 41.0), (66, 40.0)]),
            (Some(3_000.0), 1),
            "twice is normal"
        );
        assert_eq!(
            recovery(&[(61, 41.0), (70, 41.0)]),
            (Some(10_000.0), 2),
            "eight normal ones between"
        );
        assert_eq!(
            recovery(&[(61, 41.0), (72, 41.0)]),
            (Some(1_000.0), 2),
            "ten normal ones between"
        );
        assert_eq!(recovery(&[(64, 0.0)]), (Some(4_000.0), 1), "nothing was answered");
        assert_eq!(recovery(&[(62, 41.0), (71, 41.0)]), (None, 2), "nine are left");
        let of_disk = |waits: &[(usize, f64)]| {
            let mut seen: Vec<Second> = (1..=80).map(|at| second(at, 10.0)).collect();
            // Of the calm before: what is normal is not told by it.
            (seen[6].p99_ms, seen[6].fdatasync_ms, seen[7].p99_ms) = (Some(900.0), Some(900.0), Some(700.0));
            for at in [62, 65] {
                seen[at - 1].p99_ms = Some(30.0);
            }
            for (at, waited_ms) in waits {
                seen[at - 1].fdatasync_ms = Some(*waited_ms);
            }
            let found = times.recovery(&seen).unwrap();
            assert_eq!(found.slow_above_ms, 20.0);
            assert_eq!((found.took_ms, found.slow_seconds), (Some(5_000.0), 2));
            (found.took_but_disk_ms, found.slow_seconds_of_disk)
        };
        assert_eq!(of_disk(&[(65, 15.0), (62, 15.0)]), (Some(5_000.0), 0), "half is more");
        assert_eq!(of_disk(&[(65, 15.1)]), (Some(2_000.0), 1));
        assert_eq!(of_disk(&[(64, 15.1)]), (Some(2_000.0), 1), "the second before");
        assert_eq!(of_disk(&[(63, 99.0), (66, 99.0)]), (Some(5_000.0), 0), "another second");
        assert_eq!(of_disk(&[(61, 15.1), (65, 30.0)]), (Some(0.0), 2));
        let mut all_of_disk: Vec<Second> = (1..=80).map(|at| second(at, 10.0)).collect();
        for seen in &mut all_of_disk {
            seen.fdatasync_ms = Some(10.1);
        }
        assert_eq!(
            times.recovery(&all_of_disk).unwrap().slow_above_ms,
            20.0,
            "what is normal with that disk"
        );
        let until = |last: u32| (1..=last).map(|at| second(at, 10.0)).collect::<Vec<_>>();
        assert_eq!(
            times.recovery(&until(75)).unwrap().took_ms,
            None,
            "the end was not seen"
        );
        assert_eq!(times.recovery(&until(79)).unwrap().took_ms, Some(0.0));
    }
}
