use std::sync::Arc;

use futures_util::FutureExt as _;
use openraft::ReadPolicy;

use super::{
    DirectoryNode, Shared,
    ask::{Attempt, Reach},
};
use crate::{DirectoryError, domain::State};

impl DirectoryNode {
    /// The state, not older than anything that was acknowledged before this call: the leader confirms that it leads, and this node
    /// catches up with it (Raft's ReadIndex).
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn state_linearizable(&self) -> Result<Arc<State>, DirectoryError> {
        let timeout = self.shared.request_timeout();
        let read = async {
            let index = self.shared.read_index(Reach::Anywhere).await?;
            self.shared.applied_at_least(index).await;
            Ok(self.state())
        };
        let within_ms = self.shared.options.request_timeout_ms;
        match tokio::time::timeout(timeout, read).await {
            // Nothing that could be done or not.
            Err(_) | Ok(Err(DirectoryError::Timeout { .. })) => Err(DirectoryError::NoQuorum { within_ms }),
            Ok(read) => read,
        }
    }
}

impl Shared {
    /// Up to where the log has to be applied.
    pub(super) async fn read_index(&self, reach: Reach) -> Result<u64, DirectoryError> {
        self.at_leader(
            reach,
            self.request_timeout(),
            || self.read_index_here().boxed(),
            |client| self.caller().read_index(client).boxed(),
        )
        .await
    }

    /// Confirms, after it is called, that this node leads.
    pub(super) async fn read_index_here(&self) -> Result<u64, Attempt> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await?;
        Ok(linearizer.read_log_id().index())
    }

    /// The state as far as this node has applied the log.
    pub(super) fn state(&self) -> Arc<State> {
        self.images.borrow().state.clone()
    }

    /// Waits until this node has applied the entry at `index`; false when it is closed before.
    pub(super) async fn applied_at_least(&self, index: u64) -> bool {
        let mut images = self.images.clone();
        let reached = images.wait_for(|image| image.last.is_some_and(|last| last.index() >= index));
        tokio::select! {
            () = self.closing.cancelled() => false,
            reached = reached => reached.is_ok(),
        }
    }
}
