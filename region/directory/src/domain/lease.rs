//! The lease under which a region may act as home, seen from both ends, with neither clock nor network.
//!
//! # Why a holder never believes in a lease that the grantor has declared expired
//! The holder counts from the moment before it asked, and for `lease − margin`. The grantor counts from the moment at which the
//! question reached it, which is later, and for `lease + margin`. Each counts on its own monotonic clock: those share no zero, so only
//! spans are compared, and a clock may run fast or slow by [`CLOCK_DRIFT_PERCENT`] of 100. The holder's span then lasts at most
//! `(lease − margin) / 0.99` of true time and the grantor's at least `(lease + margin) / 1.01`. The first is no longer than the second
//! when `margin ≥ lease / 100`, and [`LeaseTerms::new`] takes no less, with a millisecond on top: clocks are read in whole ones, which
//! can have the grantor count from a millisecond too early. What the margin has beyond that is left for what is no clock's fault: the
//! holder's own delay between looking at the lease and acting upon it.
//!
//! A new leader knows nothing of what the one before it has granted. But a leader confirms that it still leads *after* a question has
//! reached it and before it answers, so every question that was ever answered by an earlier leader reached that one before the new
//! leader was elected: counting from the election is as good as counting from the question.
//!
//! Between declaring a region down and knowing that this is committed, a question of that region may arrive. It is refused until the
//! region is readmitted, so that no answer revives a lease behind the declaration. A declaration that outlives its leader in the log is
//! safe as well: the next leader confirms its leadership only when all of the log that it took over is applied, and a holder counts on
//! its lease only when it has applied as much.

use std::collections::BTreeMap;

use antiphon_types::sabotage::{self, Rule};

use super::RegionId;

/// How far a clock's rate may be off true time. NTP slews a clock by a twentieth of that at most.
pub const CLOCK_DRIFT_PERCENT: u64 = 1;

/// For how long a lease holds at either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    lease_ms: u64,
    margin_ms: u64,
    renewal_ms: u64,
}

/// Terms that cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTermsError {
    /// Clocks that drift apart would have both ends believe otherwise.
    #[error(
        "a margin of {margin_ms} ms is less than {least_ms} ms, by which clocks can drift apart in a lease of {lease_ms} ms"
    )]
    Margin {
        /// The margin.
        margin_ms: u64,
        /// The least that is safe.
        least_ms: u64,
        /// The lease.
        lease_ms: u64,
    },
    /// One lost renewal would end the lease.
    #[error(
        "a renewal every {renewal_ms} ms leaves no time for a second try in the {held_ms} ms for which a lease is held"
    )]
    Renewal {
        /// Time between renewals.
        renewal_ms: u64,
        /// How long the holder counts on the lease.
        held_ms: u64,
    },
}

impl LeaseTerms {
    /// A lease of `lease_ms`, of which the holder stops `margin_ms` early and for which the directory waits `margin_ms` more, renewed
    /// every `renewal_ms`.
    ///
    /// # Errors
    /// When the margin is less than the clocks' drift over the lease, or there is no time to renew twice.
    pub fn new(lease_ms: u64, margin_ms: u64, renewal_ms: u64) -> Result<Self, LeaseTermsError> {
        let least_ms = lease_ms
            .saturating_mul(CLOCK_DRIFT_PERCENT)
            .div_ceil(100)
            .saturating_add(1);
        if margin_ms < least_ms {
            return Err(LeaseTermsError::Margin {
                margin_ms,
                least_ms,
                lease_ms,
            });
        }
        let held_ms = lease_ms.saturating_sub(margin_ms);
        if renewal_ms.saturating_mul(2) > held_ms || renewal_ms == 0 {
            return Err(LeaseTermsError::Renewal { renewal_ms, held_ms });
        }
        Ok(Self {
            lease_ms,
            margin_ms,
            renewal_ms,
        })
    }

    /// For how long the holder counts on a lease.
    #[must_use]
    pub fn held_ms(&self) -> u64 {
        self.lease_ms.saturating_sub(self.margin_ms)
    }

    /// For how long the directory waits before it declares a region down.
    #[must_use]
    pub fn waited_ms(&self) -> u64 {
        self.lease_ms.saturating_add(self.margin_ms)
    }
}

impl Default for LeaseTerms {
    /// 4 s, with half a second to either side, renewed every second.
    fn default() -> Self {
        Self {
            lease_ms: 4_000,
            margin_ms: 500,
            renewal_ms: 1_000,
        }
    }
}

/// A question for the lease that is under way; its answer counts from when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the answer is worth nothing without the question"]
pub struct Ask {
    asked_at_ms: u64,
}

/// A region's own view of its lease. Every `now_ms` is of one monotonic clock.
#[derive(Debug, Clone)]
pub struct LeaseHolder {
    terms: LeaseTerms,
    asked_at_ms: Option<u64>,
    granted_from_ms: Option<u64>,
}

impl LeaseHolder {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(terms: LeaseTerms) -> Self {
        Self {
            terms,
            asked_at_ms: None,
            granted_from_ms: None,
        }
    }

    /// To be called before the question leaves.
    pub fn ask(&mut self, now_ms: u64) -> Ask {
        self.asked_at_ms = Some(now_ms);
        Ask { asked_at_ms: now_ms }
    }

    /// The leader has granted what was asked. Answers may come in any order.
    pub fn granted(&mut self, ask: Ask) {
        self.granted_from_ms = self.granted_from_ms.max(Some(ask.asked_at_ms));
    }

    /// Whether the region may act as home.
    #[must_use]
    pub fn is_valid(&self, now_ms: u64) -> bool {
        self.valid_until_ms().is_some_and(|until_ms| now_ms < until_ms)
    }

    /// When the lease ends, or has ended, unless it is renewed; none before the first grant.
    #[must_use]
    pub fn valid_until_ms(&self) -> Option<u64> {
        let from_ms = self.granted_from_ms?;
        Some(from_ms.saturating_add(self.terms.held_ms()))
    }

    /// When to ask again, whether or not the last question was answered; 0 before the first.
    #[must_use]
    pub fn next_renewal_ms(&self) -> u64 {
        let asked_at_ms = self
            .asked_at_ms
            .map(|at_ms| at_ms.saturating_add(self.terms.renewal_ms));
        asked_at_ms.unwrap_or(0)
    }
}

/// A renewal is refused: the region is down, declared to be, or not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("region {} has to be admitted before it can have a lease", .0.0)]
pub struct NotAdmitted(pub RegionId);

/// The directory leader's view of the leases of all regions, for one term of leadership. Every `now_ms` is of one monotonic clock.
#[derive(Debug, Clone)]
pub struct LeaseGrantor {
    terms: LeaseTerms,
    elected_at_ms: u64,
    regions: BTreeMap<RegionId, Lease>,
}

#[derive(Debug, Clone, Copy)]
enum Lease {
    /// Asked for at that moment, or possibly until then.
    Running { from_ms: u64 },
    /// Run out, and told.
    Expired,
}

impl LeaseGrantor {
    /// Starts with the election of this node; `regions` are those that are not down.
    #[must_use]
    pub fn new(terms: LeaseTerms, elected_at_ms: u64, regions: impl IntoIterator<Item = RegionId>) -> Self {
        let from_ms = elected_at_ms;
        let running = regions.into_iter().map(|region| (region, Lease::Running { from_ms }));
        Self {
            terms,
            elected_at_ms,
            regions: running.collect(),
        }
    }

    /// A region asks for its lease. To be called when the question has come and before this node confirms that it still leads; to be
    /// answered only after that.
    ///
    /// # Errors
    /// When its lease has been told to have expired and it has not been readmitted, or it is not known at all.
    pub fn asked(&mut self, region: RegionId, now_ms: u64) -> Result<(), NotAdmitted> {
        match self.regions.get_mut(&region) {
            Some(Lease::Running { from_ms }) => *from_ms = now_ms.max(*from_ms),
            Some(Lease::Expired) | None => return Err(NotAdmitted(region)),
        }
        Ok(())
    }

    /// The regions whose leases have run out. Told again at each call until [`LeaseGrantor::forget`], so that the caller may fail to
    /// declare them down and try again; but once told they are refused until they are readmitted.
    pub fn expired(&mut self, now_ms: u64) -> Vec<RegionId> {
        let waited_ms = match sabotage::is_broken(Rule::LeasesAreWaitedOut) {
            true => self.terms.renewal_ms * 3 / 2,
            false => self.terms.waited_ms(),
        };
        let mut expired = Vec::new();
        for (region, lease) in &mut self.regions {
            if let Lease::Running { from_ms } = *lease
                && now_ms.saturating_sub(from_ms) < waited_ms
            {
                continue;
            }
            *lease = Lease::Expired;
            expired.push(*region);
        }
        expired
    }

    /// When the next lease runs out, if nobody asks until then.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        let running = self.regions.values().filter_map(|lease| match lease {
            Lease::Running { from_ms } => Some(from_ms.saturating_add(self.terms.waited_ms())),
            Lease::Expired => None,
        });
        running.min()
    }

    /// The region is up again, or new, and that is committed: from now on it may ask. It is given the time of one lease to do so.
    pub fn readmit(&mut self, region: RegionId, now_ms: u64) {
        let from_ms = now_ms.max(self.elected_at_ms);
        self.regions.insert(region, Lease::Running { from_ms });
    }

    /// The region is down or removed, and that is committed.
    pub fn forget(&mut self, region: RegionId) {
        self.regions.remove(&region);
    }
}
