use antiphon_types::TimestampMs;

/// Slows down the guessing of one account's password: `burst` attempts at once, then one an interval (the generic cell rate
/// algorithm of ITU-T I.371). An attempt counts from before it is checked, so that attempts side by side count too; a right
/// password wipes the slate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throttle {
    pub(crate) burst: u32,
    pub(crate) interval_ms: u64,
}

/// Too many attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Throttled {
    pub(crate) retry_after_ms: u64,
}

impl Throttle {
    /// Counts an attempt. `full_at_ms` is the whole state: when the burst will be whole again; 0 at first.
    pub(crate) fn attempt(self, full_at_ms: TimestampMs, now_ms: TimestampMs) -> Result<TimestampMs, Throttled> {
        let next_full_at_ms = full_at_ms.max(now_ms).saturating_add(self.interval_ms);
        let ahead_ms = next_full_at_ms - now_ms;
        let ahead_ms_max = self.interval_ms.saturating_mul(u64::from(self.burst));
        match ahead_ms.checked_sub(ahead_ms_max) {
            Some(over) if over > 0 => Err(Throttled { retry_after_ms: over }),
            Some(_) | None => Ok(next_full_at_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THROTTLE: Throttle = Throttle {
        burst: 3,
        interval_ms: 100,
    };

    proptest! {
        #[test]
        fn no_span_of_time_holds_more_attempts_than_the_burst_and_one_an_interval(
            pauses in prop::collection::vec(0..150_u64, 1..60),
        ) {
            let (mut full_at_ms, mut now_ms, mut taken) = (0, 1_000_u64, Vec::new());
            for pause_ms in pauses {
                now_ms += pause_ms;
                match THROTTLE.attempt(full_at_ms, now_ms) {
                    Ok(next) => {
                        full_at_ms = next;
                        taken.push(now_ms);
                    }
                    Err(Throttled { retry_after_ms }) => {
                        prop_assert!(THROTTLE.attempt(full_at_ms, now_ms + retry_after_ms - 1).is_err());
                        prop_assert!(THROTTLE.attempt(full_at_ms, now_ms + retry_after_ms).is_ok());
                    }
                }
            }
            for (at, start) in taken.iter().enumerate() {
                for (count, end) in taken[at..].iter().enumerate() {
                    prop_assert!((count as u64) < 3 + (end - start) / 100);
                }
            }
        }
    }
}
