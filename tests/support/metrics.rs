//! What a node counts, as its operators' port tells it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PATIENCE, SILENCE, http::get};

/// The sum over its labels of a metric of the node whose operators' port is at `admin_url`; None when there is no such line.
pub(crate) async fn metric(admin_url: &str, name: &str) -> Option<f64> {
    let text = get(format!("{admin_url}/metrics")).await.ok()?.text().await.ok()?;
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values = text
        .lines()
        .filter(of_name)
        .map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| Some(sum? + value?))?
}

/// Waits until nothing has been committed for longer than anything is put off.
pub(crate) async fn commits_rest(admin_url: &str) {
    const QUIET: Duration = Duration::from_millis(1_500);
    let deadline = Instant::now() + PATIENCE;
    let (mut before, mut since) = (None, Instant::now());
    while before.is_none() || since.elapsed() < QUIET {
        let now = metric(admin_url, "antiphon_kv_commit_seconds_count").await;
        if now != before {
            (before, since) = (now, Instant::now());
        }
        assert!(Instant::now() < deadline, "the node commits without end");
        sleep(SILENCE / 8).await;
    }
}
