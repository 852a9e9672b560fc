//! What all members measure together.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Counts and times. All members write to one.
#[derive(Debug)]
pub(crate) struct Measure {
    /// What is sent earlier is in no latency.
    counts_from: Instant,
    measured: Mutex<Measured>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Sends that got an error or no answer: each attempt but the one that was acknowledged.
    pub(crate) failed: u64,
    /// Of messages that were refused for good.
    pub(crate) refusals: Vec<String>,
    /// From the call to the acknowledgement, of each acknowledged message that was sent after the warm-up.
    pub(crate) latencies: Vec<Duration>,
    conversations: HashMap<String, Waiting>,
}

/// How long a conversation was without an acknowledgement while somebody waited for one.
#[derive(Debug, Clone)]
struct Waiting {
    unanswered: u64,
    since: Instant,
    longest: Duration,
}

impl Measure {
    pub(crate) fn new(counts_from: Instant) -> Self {
        Self {
            counts_from,
            measured: Mutex::default(),
        }
    }

    /// A message is sent.
    pub(crate) fn sends(&self, conversation: &str, now: Instant) {
        let mut measured = self.measured.lock();
        measured.sent += 1;
        let waiting = measured.waiting(conversation, now);
        if waiting.unanswered == 0 {
            waiting.since = now;
        }
        waiting.unanswered += 1;
    }

    /// What was sent when `began` was acknowledged, after so many attempts.
    pub(crate) fn acknowledged(&self, conversation: &str, (began, now): (Instant, Instant), attempts: u32) {
        let mut measured = self.measured.lock();
        measured.acknowledged += 1;
        measured.failed += u64::from(attempts.saturating_sub(1));
        if began >= self.counts_from {
            measured.latencies.push(now - began);
        }
        measured.waiting(conversation, now).answered(now);
    }

    /// It was refused for good.
    pub(crate) fn refused(&self, conversation: &str, why: &str, now: Instant) {
        let mut measured = self.measured.lock();
        measured.failed += 1;
        measured
            .refusals
            .push(format!("a send in {conversation} was refused: {why}"));
        let waiting = measured.waiting(conversation, now);
        // A refusal does not show that the conversation can be written to.
        waiting.unanswered -= 1;
    }

    /// Messages without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        let measured = self.measured.lock();
        measured.conversations.values().map(|waiting| waiting.unanswered).sum()
    }

    /// All of it, with what is unanswered counted up to `now`.
    pub(crate) fn measured(&self, now: Instant) -> Measured {
        let mut measured = self.measured.lock().clone();
        for waiting in measured.conversations.values_mut() {
            measured.failed += waiting.unanswered;
            if waiting.unanswered > 0 {
                waiting.longest = waiting.longest.max(now - waiting.since);
            }
        }
        measured
    }
}

impl Measured {
    /// The longest time that a conversation was without an acknowledgement while somebody waited for one.
    pub(crate) fn longest_wait(&self) -> Duration {
        let longest = self.conversations.values().map(|waiting| waiting.longest).max();
        longest.unwrap_or_default()
    }

    /// In words: what was never answered.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let waiting = self.conversations.iter().filter(|(_, waiting)| waiting.unanswered > 0);
        let mut unanswered: Vec<String> = waiting
            .map(|(conversation, waiting)| {
                format!("{} sends in {conversation} were never acknowledged", waiting.unanswered)
            })
            .collect();
        unanswered.sort();
        unanswered
    }

    fn waiting(&mut self, conversation: &str, now: Instant) -> &mut Waiting {
        self.conversations
            .entry(conversation.to_owned())
            .or_insert_with(|| Waiting {
                unanswered: 0,
                since: now,
                longest: Duration::ZERO,
            })
    }
}

impl Waiting {
    fn answered(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.since);
        self.since = now;
        self.unanswered -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_is_from_the_first_unanswered_send_or_the_last_acknowledgement() {
        let began = Instant::now();
        let measure = Measure::new(began);
        let at = |seconds: u32| began + SECOND * seconds;
        measure.sends("c", at(0));
        measure.sends("c", at(1));
        measure.acknowledged("c", (at(0), at(2)), 1);
        assert_eq!(measure.measured(at(2)).longest_wait(), SECOND * 2);
        // Counted from the first acknowledgement on, and not from the send.
        measure.acknowledged("c", (at(1), at(5)), 1);
        assert_eq!(measure.measured(at(5)).longest_wait(), SECOND * 3);
    }

    #[test]
    fn a_conversation_that_nobody_writes_in_does_not_wait() {
        let began = Instant::now();
        let measure = Measure::new(began);
        for round in 0..2 {
            let sent = began + SECOND * 60 * round;
            measure.sends("c", sent);
            measure.acknowledged("c", (sent, sent + SECOND), 1);
        }
        assert_eq!(measure.measured(began + SECOND * 999).longest_wait(), SECOND);
        assert_eq!(measure.unanswered(), 0);
    }

    #[test]
    fn what_is_sent_before_the_warm_up_is_over_is_counted_and_in_no_latency() {
        let began = Instant::now();
        let measure = Measure::new(began + SECOND);
        for (sent, took) in [(began, SECOND * 9), (began + SECOND, SECOND * 2)] {
            measure.sends("c", sent);
            measure.acknowledged("c", (sent, sent + took), 1);
        }
        let measured = measure.measured(began + SECOND * 9);
        assert_eq!((measured.acknowledged, measured.latencies), (2, vec![SECOND * 2]));
    }

    #[test]
    fn what_is_never_answered_counts_as_failed_and_waits_to_the_end() {
        let began = Instant::now();
        let measure = Measure::new(began);
        measure.sends("c", began);
        measure.sends("d", began);
        measure.acknowledged("d", (began, began), 3);
        let measured = measure.measured(began + SECOND * 9);
        assert_eq!((measured.sent, measured.acknowledged, measured.failed), (2, 1, 3));
        assert_eq!(measured.longest_wait(), SECOND * 9);
    }
}
