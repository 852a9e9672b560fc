//! Tells the presence service which sessions are here: at once when one comes or goes, and each of them again in every interval,
//! so that a report that failed is made good. They take turns: reports of all at one moment would hold up what is said meanwhile.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use antiphon_proto::rpc::PresenceReport;
use antiphon_types::UserId;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    calls::Calls,
    hub::{Hub, SHARDS},
};

/// Changes that may wait to be reported.
const CHANGES_MAX: usize = 10_000;
/// Reports under way at once.
const REPORTS_AT_ONCE: usize = 32;

/// Where sessions say that they came or went.
pub(crate) struct Presence {
    edge_id: String,
    changes: mpsc::Sender<Change>,
}

type Change = (UserId, PresenceReport);

impl Presence {
    /// Starts the reporting on `tasks`; it ends with `stop`.
    pub(crate) fn start(
        calls: Calls,
        hub: Arc<Hub>,
        edge_id: String,
        interval: Duration,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (changes, received) = mpsc::channel(CHANGES_MAX);
        let reporter = Reporter {
            calls,
            hub,
            edge_id: edge_id.clone(),
            received,
            backlog: VecDeque::new(),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(reporter.run(interval)).await;
        });
        Self { edge_id, changes }
    }

    pub(crate) fn opened(&self, user_id: UserId, session_id: String, device_id: String) {
        self.change(user_id, report(user_id, &self.edge_id, session_id, device_id, true));
    }

    pub(crate) fn closed(&self, user_id: UserId, session_id: String, device_id: String) {
        self.change(user_id, report(user_id, &self.edge_id, session_id, device_id, false));
    }

    /// A change that finds no room is made good by the session's next report, or by the service's own forgetting.
    fn change(&self, user_id: UserId, report: PresenceReport) {
        if self.changes.try_send((user_id, report)).is_err() {
            metrics::counter!("antiphon_presence_reports_dropped_total").increment(1);
        }
    }
}

struct Reporter {
    calls: Calls,
    hub: Arc<Hub>,
    edge_id: String,
    received: mpsc::Receiver<Change>,
    backlog: VecDeque<Change>,
}

impl Reporter {
    async fn run(mut self, each: Duration) {
        let mut turns = interval(each / u32::from(SHARDS));
        let mut shard = 0;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < REPORTS_AT_ONCE
                && let Some((user_id, report)) = self.backlog.pop_front()
            {
                under_way.push(send(self.calls.clone(), user_id, report));
            }
            if self.backlog.is_empty() {
                // After many have come at once.
                self.backlog.shrink_to(REPORTS_AT_ONCE);
            }
            tokio::select! {
                Some(change) = self.received.recv(), if under_way.len() < REPORTS_AT_ONCE => self.backlog.push_back(change),
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                _ = turns.tick(), if self.backlog.is_empty() => {
                    self.again(shard);
                    shard = (shard + 1) % SHARDS;
                }
            }
        }
    }

    /// Reports the sessions of a shard again.
    fn again(&mut self, shard: u8) {
        for handle in self.hub.people().of_shard(shard) {
            let Some(owner) = handle.owner() else { continue };
            let device_id = owner.device_id.to_string();
            let report = report(owner.user_id, &self.edge_id, owner.session_id.clone(), device_id, true);
            self.backlog.push_back((owner.user_id, report));
        }
    }
}

async fn send(calls: Calls, user_id: UserId, report: PresenceReport) {
    if let Err(refusal) = calls.report_presence(user_id, report).await {
        tracing::debug!(%user_id, code = %refusal.code, "presence could not be reported");
        metrics::counter!("antiphon_presence_report_failures_total").increment(1);
    }
}

fn report(user_id: UserId, edge_id: &str, session_id: String, device_id: String, online: bool) -> PresenceReport {
    PresenceReport {
        user_id: user_id.to_bytes(),
        edge: edge_id.to_owned(),
        session_id,
        device_id,
        online,
    }
}
