use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Milliseconds since the Unix epoch.
pub type TimestampMs = u64;

/// The wall clock, so that a test can hold it still. Only the edges of the system read it; a domain is handed `now`.
#[derive(Clone, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ms` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(now_ms: TimestampMs) -> Self {
        Self {
            manual: Some(Arc::new(AtomicU64::new(now_ms))),
        }
    }

    /// The time now; 0 when the machine's clock stands before 1970.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now_ms(&self) -> TimestampMs {
        match &self.manual {
            Some(now_ms) => now_ms.load(Ordering::SeqCst),
            None => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Moves a manual clock forward by `by_ms`; the machine's clock is left alone.
    pub fn advance(&self, by_ms: u64) {
        if let Some(now_ms) = &self.manual {
            now_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", if self.manual.is_some() { "manual" } else { "system" })
    }
}
