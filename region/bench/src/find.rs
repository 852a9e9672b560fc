use anyhow::Result;

use crate::{Figures, Say};

/// Halvings between the highest rate that was kept and the lowest that was not: to about 4 %.
const HALVINGS: u32 = 4;
/// Of what is offered, at least this much has to be acknowledged in time.
const KEPT_MIN: f64 = 0.95;
/// Below this many messages a second nothing is looked for.
const RATE_MIN: f64 = 1.0;

/// Runs at one rate after the other, and finds the highest that a server keeps: 99 of 100 messages within `p99_ms_max`, none refused,
/// none lost. Returns the figures of all runs, in the order of their rates, and which of them that is, if any.
///
/// # Errors
/// What `run` returns before any rate was kept; a rate above one is then not kept.
pub async fn find_max(
    rate: f64,
    p99_ms_max: f64,
    mut run: impl AsyncFnMut(f64) -> Result<Figures>,
    say: Say,
) -> Result<(Vec<Figures>, Option<usize>)> {
    let mut all: Vec<(f64, Figures)> = Vec::new();
    let (mut kept, mut failed) = (None, None);
    let mut next = rate;
    let mut halvings = 0;
    while next >= RATE_MIN && halvings <= HALVINGS {
        match run(next).await {
            Ok(figures) => {
                if keeps(&figures, p99_ms_max) {
                    kept = Some(next);
                } else {
                    failed = Some(next);
                }
                all.push((next, figures));
            }
            // Too much for it: what a lower rate came to stands.
            Err(error) if kept.is_some() => {
                say(&format!("{next:.0} messages/s: {error:#}"));
                failed = Some(next);
            }
            Err(error) => return Err(error),
        }
        next = match (kept, failed) {
            (Some(kept), None) => kept * 2.0,
            (None, Some(failed)) => failed / 2.0,
            (Some(kept), Some(failed)) => {
                halvings += 1;
                f64::midpoint(kept, failed)
            }
            (None, None) => break,
        };
    }
    all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let highest = all.iter().rposition(|(rate, _)| Some(*rate) == kept);
    Ok((all.into_iter().map(|(_, figures)| figures).collect(), highest))
}

fn keeps(figures: &Figures, p99_ms_max: f64) -> bool {
    let (offered, done) = (figures.offered_per_s, figures.messages_per_s);
    let is_done = offered
        .zip(done)
        .is_some_and(|(offered, done)| done >= offered * KEPT_MIN);
    let is_fast = figures.p99_ms.is_some_and(|p99| p99 <= p99_ms_max);
    is_done && is_fast && figures.refused == Some(0) && figures.lost == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is fast up to a rate.
    async fn find(first: f64, limit: f64) -> (Vec<f64>, Option<f64>) {
        let run = async |rate: f64| {
            let p99_ms = if rate <= limit { 2.0 } else { 200.0 };
            Ok(Figures {
                offered_per_s: Some(rate),
                messages_per_s: Some(rate),
                p99_ms: Some(p99_ms),
                refused: Some(0),
                lost: Some(0),
                ..Figures::default()
            })
        };
        let (all, highest) = find_max(first, 10.0, run, |_| {}).await.unwrap();
        let rates: Vec<f64> = all.iter().filter_map(|figures| figures.offered_per_s).collect();
        let highest = highest.map(|at| rates[at]);
        (rates, highest)
    }

    #[tokio::test]
    async fn the_highest_rate_is_found_from_below_and_from_above() {
        for first in [100.0, 100_000.0] {
            let (rates, highest) = find(first, 3_000.0).await;
            assert!(rates.is_sorted());
            let highest = highest.unwrap();
            assert!(
                (2_800.0..=3_000.0).contains(&highest),
                "{highest} from {first}: {rates:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_run_that_fails_is_a_rate_that_is_not_kept() {
        let of = async |first: f64| {
            let run = async |rate: f64| match rate <= 3_000.0 {
                true => Ok(Figures {
                    offered_per_s: Some(rate),
                    messages_per_s: Some(rate),
                    p99_ms: Some(2.0),
                    refused: Some(0),
                    lost: Some(0),
                    ..Figures::default()
                }),
                false => Err(anyhow::anyhow!("a connection was lost")),
            };
            find_max(first, 10.0, run, |_| {}).await
        };
        let (all, highest) = of(1_000.0).await.unwrap();
        assert_eq!(all[highest.unwrap()].offered_per_s, Some(3_000.0));
        assert!(of(4_000.0).await.is_err(), "nothing was kept before");
    }

    #[tokio::test]
    async fn a_server_that_keeps_nothing_has_no_highest_rate() {
        assert_eq!(find(100.0, 0.0).await.1, None);
    }
}
