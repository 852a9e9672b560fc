use std::{sync::Arc, time::Duration};

use antiphon_kv::KvError;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;

/// How often the cluster is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Whether the cluster answered when it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Availability {
    fault: RwLock<Option<KvError>>,
}

impl Availability {
    /// Why the cluster takes no transactions; None when it does.
    pub(crate) fn fault(&self) -> Option<KvError> {
        self.fault.read().clone()
    }

    /// Notes how the cluster has answered.
    pub(crate) fn answered(&self, fault: Option<KvError>) {
        metrics::gauge!("antiphon_kv_available").set(if fault.is_none() { 1.0 } else { 0.0 });
        let before = std::mem::replace(&mut *self.fault.write(), fault.clone());
        match (before, fault) {
            (None, Some(error)) => tracing::warn!(%error, "the cluster takes no transactions"),
            (Some(_), None) => tracing::info!("the cluster takes transactions again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// Asks until the store is closed. What the sequencer and the logs have to agree on to give a version is what a commit needs, too.
pub(crate) async fn watch_over(shared: Arc<Shared>, closing: CancellationToken) {
    let look = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            shared.availability.answered(shared.version().await.err());
        }
    };
    // It ends in no other way.
    let _: Option<()> = closing.run_until_cancelled(look).await;
}
