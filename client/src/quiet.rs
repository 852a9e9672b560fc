//! When a connection is to be asked for a sign of life, and when it is lost.

use std::time::Duration;

use tokio::time::Instant;

/// How long it has been quiet on a connection.
///
/// A process that is gone sends a reset where TCP ends at its machine, and nothing over UDP or beyond a broken path: so what is written
/// and not followed by anything is what tells.
pub(crate) struct Quiet {
    written_at: Instant,
    pinged_at: Instant,
    /// When the first was written of what is to be answered, and nothing has followed.
    unanswered_since: Option<Instant>,
    has_asked: bool,
    /// The network has changed: whether this connection still is one is to be seen.
    is_doubtful: bool,
}

impl Quiet {
    pub(crate) fn new() -> Self {
        Self {
            written_at: Instant::now(),
            pinged_at: Instant::now(),
            unanswered_since: None,
            has_asked: false,
            is_doubtful: false,
        }
    }

    pub(crate) fn heard(&mut self) {
        (self.unanswered_since, self.has_asked) = (None, false);
    }

    pub(crate) fn written(&mut self, is_to_be_answered: bool) {
        self.written_at = Instant::now();
        if is_to_be_answered {
            self.unanswered_since.get_or_insert(self.written_at);
        }
    }

    pub(crate) fn pinged(&mut self) {
        (self.has_asked, self.is_doubtful) = (true, false);
        self.written(true);
        self.pinged_at = self.written_at;
    }

    /// A ping is due now.
    pub(crate) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// For how long, when that is longer than it may be.
    pub(crate) fn is_lost(&self, silence_max: Duration) -> Option<Duration> {
        let silent = self.unanswered_since?.elapsed();
        (silent > silence_max).then_some(silent)
    }

    /// The answer names conversations that have moved, so a device that is never quiet asks too, if more seldom.
    pub(crate) fn is_ping_due(&self, keep_alive: Duration, silence_max: Duration) -> bool {
        let unanswered = self
            .unanswered_since
            .is_some_and(|since| since.elapsed() > silence_max / 2);
        self.is_doubtful
            || self.written_at.elapsed() > keep_alive
            || self.pinged_at.elapsed() > keep_alive * 2
            || unanswered && !self.has_asked
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(15);
    const SILENCE_MAX: Duration = Duration::from_secs(12);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn is_due(quiet: &Quiet) -> bool {
        quiet.is_ping_due(KEEP_ALIVE, SILENCE_MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_say_pings_once_in_a_while_and_who_writes_more_seldom() {
        let mut quiet = Quiet::new();
        advance(seconds(15)).await;
        assert!(!is_due(&quiet));
        advance(seconds(1)).await;
        assert!(is_due(&quiet));
        quiet.pinged();
        quiet.heard();
        for _ in 0..3 {
            advance(seconds(10)).await;
            assert!(!is_due(&quiet));
            quiet.written(false);
        }
        advance(seconds(1)).await;
        assert!(is_due(&quiet), "not a ping for 31 s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_asked_about_once_and_ends_the_connection() {
        let mut quiet = Quiet::new();
        quiet.written(false);
        advance(seconds(13)).await;
        assert_eq!(quiet.is_lost(SILENCE_MAX), None, "nobody was to answer");
        quiet.written(true);
        advance(seconds(7)).await;
        assert!(is_due(&quiet));
        quiet.pinged();
        assert!(!is_due(&quiet));
        advance(seconds(6)).await;
        assert_eq!(quiet.is_lost(SILENCE_MAX), Some(seconds(13)), "since the first of it");
        quiet.heard();
        assert_eq!(quiet.is_lost(SILENCE_MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_network_is_tried_at_once() {
        let mut quiet = Quiet::new();
        quiet.doubt();
        assert!(is_due(&quiet));
        quiet.pinged();
        assert!(!is_due(&quiet));
    }
}
