use std::{f64::consts::TAU, time::Duration};

use tokio::time::Instant;

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

    /// When the overload of this run ends, if it has one.
    pub(crate) fn overload_ends(&self) -> Option<Instant> {
        match self.shape {
            Shape::Overload { calm, .. } => Some(self.ends - calm),
            Shape::Even | Shape::Day => None,
        }
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
        assert_eq!(times.overload_ends(), Some(began + seconds(40)));
        let due = (0..400).map(|at| (times.due(times.pause * at) - began).as_secs_f64());
        let due: Vec<f64> = due.take_while(|at| *at < 50.0).collect();
        assert!(due.is_sorted(), "{due:?}");
        let among = |from: f64, to: f64| due.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!((among(0.0, 10.0), among(10.0, 40.0), among(40.0, 50.0)), (25, 300, 25));
    }
}
