//! What a node without a voter asks of the directory. Whichever voter takes the request passes it on to the leader.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::{DirectoryFollower, Shared};
use crate::{
    DirectoryError, LeaseKeeper,
    domain::{Applied, Command, RegionId, State},
    node::{
        lease::{Asker, Tenure},
        propose::encode_command,
        voters::VoterChange,
    },
};

impl DirectoryFollower {
    /// As [`DirectoryNode::propose`](crate::DirectoryNode::propose).
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn propose(&self, command: Command) -> Result<Applied, DirectoryError> {
        let shared = &self.shared;
        let encoded = encode_command(&command)?;
        let proposed = shared.through(shared.request_timeout(), |client| {
            shared.caller().propose(client, encoded.clone()).boxed()
        });
        let (applied, index) = proposed.await??;
        // What was decided is known; a stream that is slow holds nobody up.
        let applying = shared.applied_at_least(index);
        let _ = tokio::time::timeout(shared.request_timeout(), applying).await;
        Ok(applied)
    }

    /// The state, not older than anything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn state_linearizable(&self) -> Result<Arc<State>, DirectoryError> {
        let shared = &self.shared;
        let timeout = shared.request_timeout();
        let read = async {
            let index = shared.through(timeout, |client| shared.caller().read_index(client).boxed());
            shared.applied_at_least(index.await?).await;
            Ok(self.state())
        };
        let within_ms = shared.options.request_timeout_ms;
        match tokio::time::timeout(timeout, read).await {
            // Nothing that could be done or not.
            Err(_) | Ok(Err(DirectoryError::Timeout { .. })) => Err(DirectoryError::NoQuorum { within_ms }),
            Ok(read) => read,
        }
    }

    /// As [`DirectoryNode::change_voters`](crate::DirectoryNode::change_voters).
    ///
    /// # Errors
    /// [`DirectoryError`], within `voters_timeout_ms`.
    pub async fn change_voters(
        &self,
        add: &[RegionId],
        remove: &[RegionId],
    ) -> Result<BTreeSet<RegionId>, DirectoryError> {
        let shared = &self.shared;
        let change = &VoterChange {
            add: add.iter().copied().collect(),
            remove: remove.iter().copied().collect(),
        };
        let timeout = Duration::from_millis(shared.options.voters_timeout_ms);
        let changed = shared.through(timeout, |client| {
            let change = change.clone();
            async move { shared.caller().change_voters(client, &change).await }.boxed()
        });
        changed.await
    }

    /// As [`DirectoryNode::keep_lease`](crate::DirectoryNode::keep_lease), by way of any voter that answers.
    #[must_use]
    pub fn keep_lease(&self, node: &str, incarnation: u64) -> LeaseKeeper {
        let shared = &self.shared;
        let asker = Asker {
            region: shared.region,
            node: node.to_owned(),
            incarnation,
        };
        let (founding, renewing) = (shared.clone(), shared.clone());
        let tenure = Tenure {
            region: shared.region,
            terms: shared.terms,
            options: shared.options.lease,
            started: shared.started,
            founded: Box::pin(async move {
                let founded = founding
                    .knowledge
                    .when(|known| !known.image.state.deployment.is_empty());
                founded.await;
            }),
            renew: Box::new(move |timeout| {
                let (shared, asker) = (renewing.clone(), asker.clone());
                Box::pin(async move { shared.renew(timeout, &asker).await })
            }),
        };
        LeaseKeeper::keep(tenure, &shared.tasks, &shared.closing)
    }
}

impl Shared {
    async fn renew(&self, timeout: Duration, asker: &Asker) -> Result<(), DirectoryError> {
        let renewed = self.through(timeout, |client| {
            let asker = asker.clone();
            async move { self.caller().renew(client, &asker).await }.boxed()
        });
        if self.applied_at_least(renewed.await?).await {
            return Ok(());
        }
        Err(DirectoryError::Stopped("it is closed".to_owned()))
    }

    /// Waits until this node has heard of all up to `index`, which a leader has committed; false when it is closed before.
    async fn applied_at_least(&self, index: u64) -> bool {
        // The stream goes elsewhere when it does not come to that.
        self.committed.send_if_modified(|committed| {
            let newer = index > *committed;
            *committed = index.max(*committed);
            newer
        });
        let reached = self.knowledge.when(|known| known.applied() >= Some(index));
        self.closing.run_until_cancelled(reached).await.is_some()
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.options.request_timeout_ms)
    }
}
