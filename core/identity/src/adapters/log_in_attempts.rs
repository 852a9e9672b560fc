use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_types::{TimestampMs, UserId};
use moka::sync::Cache;

use crate::{
    IdentityError, IdentityOptions,
    domain::{Throttle, Throttled},
};

/// The log-ins that failed lately, by account. Bounded: what is asked for least is forgotten first. Kept by the node that owns
/// the account's slot, and so forgotten when the slot moves.
pub(crate) struct LogInAttempts {
    throttle: Throttle,
    full_at_ms: Cache<UserId, Arc<AtomicU64>>,
}

impl LogInAttempts {
    pub(crate) fn new(options: &IdentityOptions) -> Self {
        let whole_again = options.log_in_interval.saturating_mul(options.log_in_burst);
        let full_at_ms = Cache::builder()
            .max_capacity(options.log_in_accounts_max)
            .time_to_idle(whole_again)
            .build();
        Self {
            throttle: options.throttle(),
            full_at_ms,
        }
    }

    /// Counts an attempt before it is checked.
    pub(crate) fn begin(&self, user_id: UserId, now_ms: TimestampMs) -> Result<(), IdentityError> {
        let full_at_ms = self.full_at_ms.get_with(user_id, Arc::default);
        let mut refused = None;
        let counted = full_at_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at_ms| {
            self.throttle
                .attempt(full_at_ms, now_ms)
                .inspect_err(|throttled| refused = Some(*throttled))
                .ok()
        });
        match (counted, refused) {
            (Err(_), Some(Throttled { retry_after_ms })) => Err(IdentityError::Throttled { retry_after_ms }),
            (Ok(_) | Err(_), _) => Ok(()),
        }
    }

    /// Takes back one attempt: its password was never checked.
    pub(crate) fn undo(&self, user_id: UserId) {
        if let Some(full_at_ms) = self.full_at_ms.get(&user_id) {
            let undone = |full_at_ms: u64| Some(full_at_ms.saturating_sub(self.throttle.interval_ms));
            let _ = full_at_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, undone);
        }
    }

    /// Forgets the attempts of an account: its password was right.
    pub(crate) fn forget(&self, user_id: UserId) {
        self.full_at_ms.invalidate(&user_id);
    }
}
