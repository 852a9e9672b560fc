use std::{f64::consts::TAU, time::Duration};

use tokio::time::Instant;

use crate::Second;

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
    /// A calm, an overload, another calm: this long each calm, with this share of the overload's rate.
    Overload {
        /// How long each calm is.
        calm: Duration,
        /// Its rate over that of the overload.
        share: f64,
    },
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
                let (calm_even, overload) = (calm.mul_f64(share), day.saturating_sub(calm * 2));
                let stretched = |even: Duration| even.div_f64(share);
                match even.checked_sub(calm_even) {
                    None => self.began + stretched(even),
                    Some(even) if even < overload => self.began + calm + even,
                    Some(even) => self.began + calm + overload + stretched(even - overload),
                }
            }
        }
    }

    /// See [`crate::Figures::back_to_normal_ms`]; of a run that has an overload.
    pub(crate) fn back_to_normal_ms(&self, seconds: &[Second]) -> Option<f64> {
        let Shape::Overload { calm, .. } = self.shape else {
            return None;
        };
        let since = |at: Instant| at.saturating_duration_since(self.counts).as_secs_f64();
        let (begins, ends) = (since(self.began + calm), since(self.ends - calm));
        let before = seconds.iter().filter(|second| second.at_s <= begins);
        let normal_ms = 2.0 * before.map(|second| second.p99_ms).fold(0.0, f64::max);
        let is_slow = |second: &&Second| second.at_s > ends && second.p99_ms > normal_ms;
        let last = seconds.iter().rfind(is_slow);
        Some(last.map_or(0.0, |second| (second.at_s - ends) * 1_000.0))
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
            began,
            counts: began,
            ends: began + seconds(50),
            given_up: began + seconds(200),
            pause: Duration::from_millis(100),
            shape: Shape::Overload {
                calm: seconds(10),
                share: 0.25,
            },
        };
        let due = (0..400).map(|at| (times.due(times.pause * at) - began).as_secs_f64());
        let due: Vec<f64> = due.take_while(|at| *at < 50.0).collect();
        assert!(due.is_sorted(), "{due:?}");
        let among = |from: f64, to: f64| due.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!((among(0.0, 10.0), among(10.0, 40.0), among(40.0, 50.0)), (25, 300, 25));

        let second = |at_s: u32, p99_ms| Second {
            at_s: at_s.into(),
            acknowledged: 1,
            p99_ms,
            refused: 0,
            server_rss_bytes: 0,
            server_open_files: 0,
        };
        let mut seen: Vec<Second> = (1..=50).map(|at| second(at, 10.0)).collect();
        seen[3].p99_ms = 20.0;
        seen[30].p99_ms = 900.0;
        assert_eq!(times.back_to_normal_ms(&seen), Some(0.0));
        seen[42].p99_ms = 41.0;
        seen[45].p99_ms = 40.0;
        assert_eq!(
            times.back_to_normal_ms(&seen),
            Some(3_000.0),
            "twice the slowest of the calm is normal"
        );
    }
}
