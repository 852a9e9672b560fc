use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    checker::{Rule, Violation},
    delays::Delay,
    measure::Measure,
};

/// What became of a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Messages that were sent, each counted once.
    pub sent: u64,
    /// Of these, those that were acknowledged.
    pub acknowledged: u64,
    /// Broken rules by which somebody misses a message, or has another than was sent.
    pub lost: u64,
    /// Broken rules by which a message is there twice, or under two seqs.
    pub duplicated: u64,
    /// Broken rules by which somebody sees another order.
    pub reordered: u64,
    /// Sends that got an error or no answer and had to be made again, or never were acknowledged.
    pub failed_sends: u64,
    /// The longest time that a conversation was without an acknowledgement while somebody waited for one.
    pub writable_again_ms: u64,
    /// Of what was sent after the warm-up, from the call to the acknowledgement, connections that had to be opened anew included: half were
    /// faster.
    pub p50_ms: u64,
    /// As `p50_ms`: one in a hundred was slower.
    pub p99_ms: u64,
    /// What is broken, in words; sends that were refused for good or never answered among it, and edges that showed nothing.
    pub violations: Vec<String>,
    /// How long messages took to arrive, by the way that they went.
    #[serde(skip)]
    pub delays: Vec<Delay>,
}

impl Report {
    /// `silent` are edges that did not answer when all was to be read.
    pub(crate) fn of(measure: &Measure, violations: &[Violation], silent: &[String], delays: Vec<Delay>) -> Self {
        let measured = measure.measured(Instant::now());
        let longest_wait = measured.longest_wait();
        let unanswered = measured.unanswered();
        let unread = silent
            .iter()
            .map(|edge| format!("nobody answers at {edge}: what its region shows was not read"));
        let mut latencies = measured.latencies;
        latencies.sort_unstable();
        let count = |rules: &[Rule]| {
            let broken = violations.iter().filter(|violation| rules.contains(&violation.rule));
            broken.count() as u64
        };
        let broken = violations.iter().map(ToString::to_string);
        Self {
            sent: measured.sent,
            acknowledged: measured.acknowledged,
            lost: count(&[Rule::Lost, Rule::Vanished, Rule::Altered, Rule::Hole, Rule::PushMissing]),
            duplicated: count(&[Rule::Doubled, Rule::Moved, Rule::SeqChanged]),
            reordered: count(&[Rule::Reordered, Rule::ReadersDiffer]),
            failed_sends: measured.failed,
            writable_again_ms: ms(longest_wait),
            p50_ms: ms(percentile(&latencies, 50)),
            p99_ms: ms(percentile(&latencies, 99)),
            violations: measured
                .refusals
                .into_iter()
                .chain(unanswered)
                .chain(unread)
                .chain(broken)
                .collect(),
            delays,
        }
    }
}

/// The smallest of `sorted` that so many of a hundred do not exceed.
#[must_use]
pub fn percentile(sorted: &[Duration], of_hundred: usize) -> Duration {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&sorted[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn each_broken_rule_is_counted_where_it_belongs() {
        let rules = [
            Rule::Lost,
            Rule::Vanished,
            Rule::Altered,
            Rule::Hole,
            Rule::PushMissing,
            Rule::Doubled,
            Rule::Moved,
            Rule::SeqChanged,
            Rule::Reordered,
            Rule::ReadersDiffer,
            Rule::NotJudged,
        ];
        let violations = rules.map(|rule| Violation {
            rule,
            what: "it".to_owned(),
        });
        let report = Report::of(&Measure::new(Instant::now()), &violations, &[], Vec::new());
        assert_eq!((report.lost, report.duplicated, report.reordered), (5, 3, 2));
        assert_eq!(report.violations.len(), 11);
    }

    #[test]
    fn what_was_refused_or_never_answered_and_whoever_showed_nothing_is_broken() {
        let now = Instant::now();
        let measure = Measure::new(now);
        for conversation in ["c_1", "c_2", "c_2"] {
            measure.sends(conversation, now);
        }
        measure.refused("c_1", "FORBIDDEN", now);
        let report = Report::of(&measure, &[], &["http://e".to_owned()], Vec::new());
        assert_eq!(
            report.violations,
            [
                "a send in c_1 was refused: FORBIDDEN",
                "2 sends in c_2 were never acknowledged",
                "nobody answers at http://e: what its region shows was not read",
            ]
        );
    }
}
