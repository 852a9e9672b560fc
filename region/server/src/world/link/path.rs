//! One direction between two regions, shared by all connections between them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{LinkChange, LinkSettings, LinkState};

/// The largest piece that is read at once.
const PIECE_BYTES_MAX: usize = 64 * 1024;
const PIECE_BYTES_MIN: usize = 256;
/// On a slow link a piece is what passes in a fiftieth of a second, so that connections take turns.
const PIECES_PER_S: u64 = 50;

/// What bytes from one region to another meet.
pub(super) struct Path {
    condition: watch::Sender<Condition>,
    /// When the bottleneck has sent all that it was given. A token bucket that holds one piece, written as a clock.
    free_at: Mutex<Instant>,
    carried_bytes: AtomicU64,
    connections: AtomicU64,
}

/// The settings, and how often the path was reset: a reset that is over before anybody looked has happened all the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Condition {
    pub(super) settings: LinkSettings,
    pub(super) resets: u64,
}

impl Condition {
    pub(super) fn is_up(&self) -> bool {
        self.settings.state == LinkState::Up
    }

    /// How many bytes may be read at once.
    pub(super) fn piece_bytes_max(&self) -> usize {
        let bits_per_s = self.settings.bits_per_s;
        if bits_per_s == 0 {
            return PIECE_BYTES_MAX;
        }
        usize::try_from(bits_per_s / 8 / PIECES_PER_S)
            .unwrap_or(PIECE_BYTES_MAX)
            .clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
    }

    /// The delay of one piece.
    pub(super) fn delay(&self) -> Duration {
        self.settings.drawn_delay()
    }
}

impl Path {
    pub(super) fn new(settings: LinkSettings) -> Self {
        Self {
            condition: watch::Sender::new(Condition { settings, resets: 0 }),
            free_at: Mutex::new(Instant::now()),
            carried_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    pub(super) fn settings(&self) -> LinkSettings {
        self.condition.borrow().settings
    }

    pub(super) fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    pub(super) fn change(&self, change: LinkChange) {
        self.condition.send_modify(|condition| {
            let settings = &mut condition.settings;
            settings.delay_ms = change.delay_ms.unwrap_or(settings.delay_ms);
            settings.jitter_ms = change.jitter_ms.unwrap_or(settings.jitter_ms);
            settings.state = change.state.unwrap_or(settings.state);
            if let Some(bits_per_s) = change.bits_per_s {
                settings.bits_per_s = bits_per_s;
                // What the old bandwidth would have taken says nothing of the new one.
                *self.free_at.lock() = Instant::now();
            }
            if change.state == Some(LinkState::Reset) {
                condition.resets += 1;
            }
        });
    }

    /// Puts `length` bytes behind all that wait for the bottleneck.
    ///
    /// Returns when the last of them leaves it, which is also when the same connection may offer its next ones.
    pub(super) fn take_turn(&self, length: usize, bits_per_s: u64, now: Instant) -> Instant {
        if bits_per_s == 0 {
            return now;
        }
        let bits = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(8);
        let nanos = u128::from(bits) * 1_000_000_000 / u128::from(bits_per_s);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock();
        *free_at = now.max(*free_at) + takes;
        *free_at
    }

    /// Waits until bytes pass.
    pub(super) async fn up(&self) {
        let _ = self.watch().wait_for(Condition::is_up).await;
    }

    /// Waits until the path is reset once more than `seen` times.
    pub(super) async fn reset_after(&self, seen: u64) {
        let _ = self.watch().wait_for(|condition| condition.resets > seen).await;
    }

    pub(super) fn carried(&self, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.carried_bytes.fetch_add(length, Ordering::Relaxed);
    }

    pub(super) fn carried_bytes(&self) -> u64 {
        self.carried_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn set_connections(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.connections.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bits_per_s: u64) -> Path {
        Path::new(LinkSettings {
            bits_per_s,
            ..LinkSettings::default()
        })
    }

    #[tokio::test]
    async fn pieces_leave_the_bottleneck_one_after_the_other() {
        let path = path(8_000);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(path.take_turn(500, 8_000, now), now + Duration::from_millis(500));
        assert_eq!(path.take_turn(250, 8_000, now), now + Duration::from_millis(750));
        let later = now + Duration::from_secs(5);
        assert_eq!(path.take_turn(250, 8_000, later), later + Duration::from_millis(250));
    }

    #[tokio::test]
    async fn a_new_bandwidth_does_not_wait_for_the_old_one() {
        let path = path(8);
        let now = Instant::now();
        assert!(path.take_turn(3_600, 8, now) >= now + Duration::from_secs(3_600));
        path.change(LinkChange {
            bits_per_s: Some(8_000_000),
            ..LinkChange::default()
        });
        assert!(path.take_turn(1_000, 8_000_000, now) < now + Duration::from_secs(60));
    }

    #[test]
    fn the_delay_is_never_below_the_one_that_was_set_nor_above_its_jitter() {
        let condition = Condition {
            settings: LinkSettings {
                delay_ms: 10,
                jitter_ms: 5,
                ..LinkSettings::default()
            },
            resets: 0,
        };
        let drawn: Vec<Duration> = (0..200).map(|_| condition.delay()).collect();
        let limits = Duration::from_millis(10)..=Duration::from_millis(15);
        assert!(drawn.iter().all(|delay| limits.contains(delay)), "{drawn:?}");
        assert!(drawn.iter().any(|delay| *delay != drawn[0]), "jitter draws nothing");
    }

    #[test]
    fn slow_links_take_small_pieces() {
        let piece = |bits_per_s| path(bits_per_s).condition().piece_bytes_max();
        assert_eq!(
            [piece(0), piece(8), piece(4_000_000), piece(u64::MAX)],
            [PIECE_BYTES_MAX, PIECE_BYTES_MIN, 10_000, PIECE_BYTES_MAX]
        );
    }
}
