//! Attempts that are begun one after another and go on beside each other, until one succeeds: Happy Eyeballs (RFC 8305 section 5).

use std::{collections::VecDeque, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use tokio::time::sleep;

/// The first success; or why all of them failed. The others are dropped. Each attempt runs for `head_start` before the next one is
/// begun beside it; RFC 8305 section 8 says 250 ms.
pub(super) async fn first<T>(
    attempts: Vec<BoxFuture<'_, Result<T, String>>>,
    head_start: Duration,
) -> Result<T, String> {
    let mut waiting = VecDeque::from(attempts);
    let mut running = FuturesUnordered::new();
    let mut failures: Vec<String> = Vec::new();
    loop {
        match waiting.pop_front() {
            Some(next) => running.push(next),
            None if running.is_empty() => return Err(failures.join("; ")),
            None => {}
        }
        let mut next_is_due = OptionFuture::from((!waiting.is_empty()).then(|| Box::pin(sleep(head_start))));
        tokio::select! {
            Some(ended) = running.next() => match ended {
                Ok(won) => return Ok(won),
                Err(failure) => failures.push(failure),
            },
            Some(()) = &mut next_is_due => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    async fn first(attempts: Vec<BoxFuture<'_, Result<u32, String>>>) -> Result<u32, String> {
        super::first(attempts, Duration::from_millis(250)).await
    }

    fn attempt(after_ms: u64, result: Result<u32, &str>) -> BoxFuture<'_, Result<u32, String>> {
        let result = result.map_err(str::to_owned);
        async move {
            sleep(Duration::from_millis(after_ms)).await;
            result
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_there_first_wins_and_the_first_ones_have_a_head_start() {
        assert_eq!(first(vec![attempt(200, Ok(1)), attempt(0, Ok(2))]).await, Ok(1));
        assert_eq!(first(vec![attempt(300, Ok(1)), attempt(0, Ok(2))]).await, Ok(2));
        assert_eq!(first(vec![attempt(300, Ok(1)), attempt(100, Ok(2))]).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_begins_at_once_and_all_failures_are_told() {
        let began = Instant::now();
        assert_eq!(first(vec![attempt(10, Err("one")), attempt(10, Ok(2))]).await, Ok(2));
        assert_eq!(began.elapsed().as_millis(), 20);
        let all = first(vec![attempt(400, Err("one")), attempt(10, Err("two"))]).await;
        assert_eq!(all, Err("two; one".to_owned()));
    }
}
