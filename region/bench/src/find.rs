use anyhow::{Result, anyhow};

use crate::{Figures, Say};

/// Halvings between the highest rate that was kept and the lowest that was not: to about 4 %.
const HALVINGS: u32 = 4;
/// Of what is offered, at least this much has to be acknowledged in time.
const KEPT_MIN: f64 = 0.95;
/// With fewer messages a second nothing is looked for.
const RATE_MIN: f64 = 1.0;

/// The highest rate that a server keeps.
#[derive(Debug)]
pub struct Highest {
    /// The figures of all runs, in the order of their rates.
    pub all: Vec<Figures>,
    /// None: no rate that was tried was kept.
    pub rate: Option<f64>,
    /// What ended the search before any rate was kept; a rate above one that fails is not kept.
    pub failed: Option<anyhow::Error>,
}

/// Runs at one rate after the other, and finds the highest that a server keeps: at least 95 of 100 messages acknowledged in time, 99 of 100 of
/// these within `p99_ms_max`, none refused, lost or stored twice, no rule broken.
pub async fn find_max(
    rate: f64,
    p99_ms_max: f64,
    mut run: impl AsyncFnMut(f64) -> Result<Figures>,
    say: Say,
) -> Highest {
    let mut all: Vec<(f64, Figures)> = Vec::new();
    let (mut kept, mut not_kept) = (None, None);
    let is_rate = rate.is_finite() && rate >= RATE_MIN;
    let mut failed =
        (!is_rate).then(|| anyhow!("a search begins with {RATE_MIN} messages a second or more, not with {rate}"));
    let mut next = rate;
    let mut halvings = 0;
    while failed.is_none() && next >= RATE_MIN && halvings <= HALVINGS {
        match run(next).await {
            Ok(mut figures) => {
                let is_kept = keeps(&figures, p99_ms_max);
                let bound = if is_kept { &mut kept } else { &mut not_kept };
                *bound = Some(next);
                figures.is_kept = Some(is_kept);
                all.push((next, figures));
            }
            // Too much for it: what a lower rate came to stands.
            Err(error) if kept.is_some() => {
                say(&format!("{next:.0} messages/s: {error:#}"));
                not_kept = Some(next);
            }
            Err(error) => failed = Some(error),
        }
        next = match (kept, not_kept) {
            (Some(kept), None) => kept * 2.0,
            (None, Some(not_kept)) => not_kept / 2.0,
            (Some(kept), Some(not_kept)) => {
                halvings += 1;
                f64::midpoint(kept, not_kept)
            }
            (None, None) => break,
        };
    }
    all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    Highest {
        all: all.into_iter().map(|(_, figures)| figures).collect(),
        rate: kept,
        failed,
    }
}

fn keeps(figures: &Figures, p99_ms_max: f64) -> bool {
    let (offered, done) = (figures.offered_per_s, figures.messages_per_s);
    let is_done = offered
        .zip(done)
        .is_some_and(|(offered, done)| done >= offered * KEPT_MIN);
    let is_fast = figures.p99_ms.is_some_and(|p99| p99 <= p99_ms_max);
    let is_whole = figures.refused == Some(0) && figures.lost == Some(0) && figures.duplicated == Some(0);
    is_done && is_fast && is_whole && figures.broken_rules.is_none_or(|broken| broken == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a rate that the server does, as fast as that.
    fn figures(rate: f64, p99_ms: f64) -> Figures {
        Figures {
            offered_per_s: Some(rate),
            messages_per_s: Some(rate),
            p99_ms: Some(p99_ms),
            refused: Some(0),
            lost: Some(0),
            duplicated: Some(0),
            ..Figures::default()
        }
    }

    fn rates(found: &Highest) -> Vec<f64> {
        found.all.iter().filter_map(|figures| figures.offered_per_s).collect()
    }

    /// A server that is fast up to a rate.
    async fn find(first: f64, limit: f64) -> Highest {
        let run = async |rate: f64| Ok(figures(rate, if rate <= limit { 2.0 } else { 200.0 }));
        find_max(first, 10.0, run, |_| {}).await
    }

    #[tokio::test]
    async fn the_highest_rate_is_found_from_below_and_from_above() {
        for first in [100.0, 100_000.0] {
            let found = find(first, 3_000.0).await;
            assert!(rates(&found).is_sorted());
            let mut kept = found.all.iter().filter(|figures| figures.is_kept == Some(true));
            assert_eq!(kept.next_back().and_then(|figures| figures.offered_per_s), found.rate);
            let highest = found.rate.unwrap();
            assert!(
                (2_800.0..=3_000.0).contains(&highest),
                "{highest} from {first}: {found:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_run_that_fails_is_a_rate_that_is_not_kept() {
        let run = async |rate: f64| match rate <= 3_000.0 {
            true => Ok(figures(rate, 2.0)),
            false => Err(anyhow::anyhow!("a connection was lost")),
        };
        let found = find_max(1_000.0, 10.0, run, |_| {}).await;
        assert_eq!((found.rate, found.failed.is_none()), (Some(3_000.0), true));
    }

    #[tokio::test]
    async fn a_search_that_fails_before_any_rate_was_kept_has_what_it_has_measured() {
        let run = async |rate: f64| match rate > 3_000.0 {
            true => Ok(figures(rate, 200.0)),
            false => Err(anyhow::anyhow!("a connection was lost")),
        };
        let found = find_max(8_000.0, 10.0, run, |_| {}).await;
        assert_eq!((rates(&found), found.rate), (vec![4_000.0, 8_000.0], None));
        assert!(found.failed.is_some());
    }

    #[test]
    fn a_rate_at_which_anything_is_wrong_is_not_kept() {
        type Change = fn(&mut Figures);
        let is_kept = |change: Change| {
            let mut figures = figures(1_000.0, 10.0);
            change(&mut figures);
            keeps(&figures, 10.0)
        };
        let right: [Change; 2] = [|_| {}, |of| of.messages_per_s = Some(950.0)];
        let wrong: [Change; 6] = [
            |of| of.messages_per_s = Some(949.0),
            |of| of.p99_ms = Some(10.1),
            |of| of.refused = Some(1),
            |of| of.lost = Some(1),
            |of| of.duplicated = Some(1),
            |of| of.broken_rules = Some(1),
        ];
        assert_eq!(right.map(is_kept), [true; 2]);
        assert_eq!(wrong.map(is_kept), [false; 6]);
    }

    #[tokio::test]
    async fn a_rate_that_is_none_is_refused_by_name() {
        for rate in [0.5, f64::NAN, f64::INFINITY] {
            let found = find(rate, 3_000.0).await;
            let said = found.failed.map(|error| error.to_string()).unwrap_or_default();
            assert!(
                found.all.is_empty() && said.ends_with(&format!("not with {rate}")),
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_keeps_nothing_has_no_highest_rate() {
        let found = find(100.0, 0.0).await;
        assert_eq!((found.rate, found.failed.is_none()), (None, true));
    }
}
