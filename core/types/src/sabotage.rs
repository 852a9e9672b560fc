//! Rules that a simulation breaks on purpose, to see that it would notice. Without the feature `sabotage`, which no product is built
//! with, nothing can break them.

#[cfg(feature = "sabotage")]
use std::sync::OnceLock;

/// A rule that data safety rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A replica that has promised an epoch takes nothing of an older one.
    OlderEpochsAreRefused,
    /// An entry is committed when every member of the in-sync set holds it.
    InSyncSetsAreWaitedFor,
    /// A region's slots are given away only when its lease is over on its own clock too.
    LeasesAreWaitedOut,
    /// A log that parts from its home's is cut.
    LogsAreCut,
    /// A read shows nothing above the high watermark.
    ReadsStopAtTheHighWatermark,
}

#[cfg(feature = "sabotage")]
static BROKEN: OnceLock<Rule> = OnceLock::new();

/// Breaks a rule for the rest of the process. Only the first call counts.
#[cfg(feature = "sabotage")]
pub fn break_rule(rule: Rule) {
    let _ = BROKEN.set(rule);
}

/// Whether the rule is broken in this process.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(&rule)
}

/// Whether the rule is broken in this process: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is_broken(_: Rule) -> bool {
    false
}
