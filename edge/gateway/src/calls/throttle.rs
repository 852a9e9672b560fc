use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use antiphon_session::Refusal;
use antiphon_types::{ErrorCode, SLOT_COUNT, Slot};

/// The slots whose nodes have said that they have too much to do, each until when it is left alone.
///
/// What would be refused there is refused here, for a tenth of the work, and the node comes to what waits (Beyer et al., "Site
/// Reliability Engineering", chapter 21: client-side throttling).
pub(super) struct Throttle {
    began: Instant,
    /// By slot, milliseconds since then.
    until_ms: Box<[AtomicU64]>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            until_ms: (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Notes what a slot has answered.
    pub(super) fn note(&self, slot: Slot, refusal: &Refusal, now: Instant) {
        if let (ErrorCode::ResourceExhausted, Some(wait_ms)) = (refusal.code, refusal.retry_after_ms) {
            self.until(slot).fetch_max(self.ms(now) + wait_ms, Ordering::Relaxed);
        }
    }

    /// Refuses what is for a slot that is to be left alone.
    pub(super) fn check(&self, slot: Slot, now: Instant) -> Result<(), Refusal> {
        let wait_ms = self.until(slot).load(Ordering::Relaxed).saturating_sub(self.ms(now));
        if wait_ms == 0 {
            return Ok(());
        }
        metrics::counter!("antiphon_throttled_total").increment(1);
        let message = "the place where this is kept has too much to do";
        Err(Refusal::new(ErrorCode::ResourceExhausted, message).retry_after(wait_ms))
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(clippy::indexing_slicing, reason = "one for each slot")]
    fn until(&self, slot: Slot) -> &AtomicU64 {
        &self.until_ms[usize::from(slot.number())]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_slot_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_says() {
        let (throttle, now) = (Throttle::new(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        let (one, other) = (Slot::new(1).unwrap(), Slot::new(2).unwrap());
        let refused = |code, wait_ms| Refusal::new(code, "").retry_after(wait_ms);
        throttle.note(one, &refused(ErrorCode::Unavailable, 60_000), now);
        throttle.note(one, &Refusal::new(ErrorCode::ResourceExhausted, ""), now);
        assert_eq!(throttle.check(one, now), Ok(()));
        throttle.note(one, &refused(ErrorCode::ResourceExhausted, 500), now);
        let refusal = throttle.check(one, later(100)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ResourceExhausted);
        assert!((400..=401).contains(&refusal.retry_after_ms.unwrap()), "{refusal:?}");
        assert_eq!(throttle.check(other, now), Ok(()));
        assert_eq!(throttle.check(one, later(501)), Ok(()));
    }
}
