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
    pub(crate) is_day: bool,
}

impl Times {
    /// When something is due that would be due `even` after the beginning if all hours were the same. A day begins and ends in its night
    /// with a tenth of the mean rate, and has nearly twice that in the middle.
    pub(crate) fn due(&self, even: Duration) -> Instant {
        let day = self.ends.saturating_duration_since(self.began);
        if !self.is_day || even >= day {
            return self.began + even;
        }
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
            is_day: true,
        };
        let due: Vec<f64> = (0..100)
            .map(|even| (times.due(seconds(even)) - began).as_secs_f64())
            .collect();
        assert!(due.is_sorted() && due[99] < 100.0, "{due:?}");
        let among = |from: f64, to: f64| due.iter().filter(|at| (from..to).contains(*at)).count();
        assert!(among(0.0, 10.0) <= 4 && among(45.0, 55.0) >= 18, "{due:?}");
        assert_eq!(times.due(seconds(150)), began + seconds(150), "after the day");
    }
}
