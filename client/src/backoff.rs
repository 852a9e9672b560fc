use std::time::Duration;

/// Pauses between attempts with full jitter: uniform between nothing and a ceiling that doubles.
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone)]
pub struct Backoff {
    base_ms: u64,
    max_ms: u64,
    attempt: u32,
}

impl Backoff {
    /// Pauses of at most `base_ms` at first and `max_ms` in the end.
    #[must_use]
    pub const fn new(base_ms: u64, max_ms: u64) -> Self {
        Self {
            base_ms,
            max_ms,
            attempt: 0,
        }
    }

    /// The next pause; `random` is uniform in 0..1.
    pub fn pause(&mut self, random: f64) -> Duration {
        let ceiling_ms = self.base_ms.saturating_mul(1 << self.attempt.min(20)).min(self.max_ms);
        self.attempt += 1;
        Duration::from_millis(ceiling_ms).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Starts from the shortest pause again: the connection was healthy.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_ceiling_and_start_again() {
        let mut backoff = Backoff::new(100, 1_000);
        let pauses: Vec<u128> = (0..6).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.pause(0.0).as_millis(), 0);
        backoff.reset();
        assert_eq!(backoff.pause(0.5).as_millis(), 50);
    }
}
