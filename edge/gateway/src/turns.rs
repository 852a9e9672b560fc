//! Whose Hello is worked at: so many at once, the others in the order in which they came.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use antiphon_session::Refusal;
use antiphon_types::ErrorCode;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::timeout,
};

/// The latest that anybody is told to come back, milliseconds.
const RETRY_MS_MAX: u64 = 30_000;

/// A line of Hellos in front of a bounded number of places.
pub(crate) struct Turns {
    places: Semaphore,
    max: usize,
    wait: Duration,
    /// How many stand in the line.
    waiting: AtomicU64,
    /// Somebody has left it.
    moved: Notify,
    /// How many have got their turn.
    begun: AtomicU64,
}

impl Turns {
    /// A line for `max` places in which nobody stands longer than `wait`.
    pub(crate) fn new(max: usize, wait: Duration) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Semaphore::new(max),
            max,
            wait,
            waiting: AtomicU64::new(0),
            moved: Notify::new(),
            begun: AtomicU64::new(0),
        }
    }

    /// Waits for a place, which is free again when it is dropped. Whoever waits in vain is told to come back when those before it
    /// will have had their turn, at the pace at which the line has moved meanwhile: so the line comes back in its order, and not faster than it
    /// is worked off.
    pub(crate) async fn take(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let began = self.begun.load(Ordering::Relaxed);
        let (line, ahead) = Line::enter(self);
        let place = timeout(self.wait, self.places.acquire()).await;
        drop(line);
        if let Ok(Ok(place)) = place {
            self.begun.fetch_add(1, Ordering::Relaxed);
            return Ok(place);
        }
        let begun = self.begun.load(Ordering::Relaxed).saturating_sub(began);
        let wait_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        let message = format!(
            "{} hellos are worked at, which is the limit, and {ahead} came before this one, whose turn did not come within {wait_ms} ms",
            self.max
        );
        Err(Refusal::new(ErrorCode::ResourceExhausted, message).retry_after(retry_ms(ahead, begun, wait_ms)))
    }

    /// Waits until the line is shorter than what is worked at: whoever is let in before that only stands in it.
    pub(crate) async fn is_short(&self) {
        loop {
            let moved = self.moved.notified();
            if self.waiting.load(Ordering::Relaxed) < self.max as u64 {
                return;
            }
            moved.await;
        }
    }
}

/// When those that are still ahead will have had their turn.
fn retry_ms(ahead: u64, begun: u64, wait_ms: u64) -> u64 {
    let ahead = ahead.saturating_sub(begun).max(1);
    wait_ms
        .saturating_mul(ahead)
        .div_ceil(begun.max(1))
        .clamp(1, RETRY_MS_MAX)
}

/// One that stands in the line.
struct Line<'a>(&'a Turns);

impl<'a> Line<'a> {
    /// Also how many are ahead.
    fn enter(turns: &'a Turns) -> (Self, u64) {
        metrics::gauge!("antiphon_hellos_waiting").increment(1);
        (Self(turns), turns.waiting.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        metrics::gauge!("antiphon_hellos_waiting").decrement(1);
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_who_waits_in_vain_is_told_when_its_turn_would_be() {
        let turns = Turns::new(1, Duration::from_secs(5));
        let order = parking_lot::Mutex::new(Vec::new());
        let one = |number| {
            let (turns, order) = (&turns, &order);
            async move {
                let place = turns.take().await?;
                order.lock().push(number);
                tokio::time::sleep(Duration::from_millis(900)).await;
                drop(place);
                Ok::<(), Refusal>(())
            }
        };
        let ended = futures_util::future::join_all((0..20).map(one)).await;
        assert_eq!(
            *order.lock(),
            [0, 1, 2, 3, 4, 5],
            "one each 900 ms, within five seconds"
        );
        let told: Vec<u64> = ended
            .into_iter()
            .filter_map(Result::err)
            .filter_map(|refusal| refusal.retry_after_ms)
            .collect();
        assert_eq!(told.len(), 14);
        assert!(told.is_sorted(), "{told:?}");
        // Of eighteen that were before the last one five have had their turn meanwhile: thirteen seconds for as many more.
        assert_eq!(told[13], 13_000, "{told:?}");
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        assert!(turns.take().await.is_ok(), "places are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_short_while_fewer_wait_than_are_worked_at() {
        let turns = Turns::new(2, Duration::from_secs(5));
        let _places = (turns.take().await.unwrap(), turns.take().await.unwrap());
        turns.is_short().await;
        let waiting = async { tokio::join!(turns.take(), turns.take()) };
        let short = async {
            tokio::task::yield_now().await;
            let began = tokio::time::Instant::now();
            turns.is_short().await;
            began.elapsed()
        };
        let (waited, short_after) = tokio::join!(waiting, short);
        assert!(waited.0.is_err() && waited.1.is_err());
        assert!(short_after >= Duration::from_secs(5), "{short_after:?}");
    }

    #[test]
    fn a_line_that_does_not_move_is_come_back_to_in_half_a_minute() {
        assert_eq!(retry_ms(1_000, 0, 5_000), RETRY_MS_MAX);
        assert_eq!(retry_ms(10, 20, 5_000), 250);
        assert_eq!(retry_ms(300, 100, 5_000), 10_000);
    }
}
