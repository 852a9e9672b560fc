//! How a node comes into a group: with the first ones, or later.

use std::{collections::BTreeMap, time::Duration};

use openraft::errors::RaftError;

use super::{DirectoryNode, ask::Attempt, calls::Caller, voters::VoterChange};
use crate::{
    DirectoryError,
    domain::{Addresses, Command, Policy, RegionId},
};

/// How long a node that cannot get in waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl DirectoryNode {
    /// Founds the deployment with its first regions (name and addresses, by id from 1), or finds it founded; returns once this node
    /// has it, which takes a majority. Every first node calls it at each start with the same arguments. The node of region 1, and no
    /// other, makes the group, and only while its store is empty. May be dropped and called again.
    ///
    /// # Errors
    /// [`DirectoryError::Rejected`] when the deployment was founded otherwise; [`DirectoryError::Stopped`].
    pub async fn found(&self, regions: &[(String, Addresses)], policy: &Policy) -> Result<(), DirectoryError> {
        let shared = &self.shared;
        let stopped = |error: String| DirectoryError::Stopped(error);
        if shared.region == RegionId(1)
            && !shared
                .raft
                .is_initialized()
                .await
                .map_err(|error| stopped(error.to_string()))?
        {
            let members: BTreeMap<u64, Addresses> = (1..)
                .zip(regions.iter().map(|(_, addresses)| addresses.clone()))
                .collect();
            match shared.raft.initialize(members).await {
                // A call before this one has done it.
                Ok(()) | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(stopped(error.to_string())),
            }
        }
        let command = Command::Found {
            deployment: shared.options.deployment.clone(),
            regions: regions.to_vec(),
            policy: policy.clone(),
        };
        loop {
            if !self.state().deployment.is_empty() {
                return Ok(());
            }
            match self.propose(command.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    tracing::info!(region = shared.region.0, %error, "the directory is not founded yet");
                }
                Err(error) => return Err(error),
            }
            self.retry_later().await?;
        }
    }

    /// Makes this node a voter of a group that it was added to with [`Directory::add_region`](crate::Directory::add_region), by way of nodes that are in it;
    /// returns once it votes. May be dropped and called again, and changes nothing at a node that votes.
    ///
    /// # Errors
    /// [`DirectoryError::VotersRefused`] when the region is not in the directory; [`DirectoryError::Stopped`].
    pub async fn join(&self, seeds: &[(RegionId, Addresses)]) -> Result<(), DirectoryError> {
        let shared = &self.shared;
        let me = shared.region;
        let change = VoterChange {
            add: [me].into(),
            remove: [].into(),
        };
        while !shared.membership().voter_ids().any(|voter| voter == me.0) {
            for (seed, addresses) in seeds.iter().filter(|(seed, _)| *seed != me) {
                let caller = Caller {
                    deployment: &shared.options.deployment,
                    passed_on: false,
                };
                let asked = caller.change_voters(shared.client_at(seed.0, addresses), &change);
                let timeout = Duration::from_millis(shared.options.voters_timeout_ms);
                let answer = tokio::select! {
                    () = shared.closing.cancelled() => break,
                    answer = tokio::time::timeout(timeout, asked) => answer,
                };
                match answer {
                    Ok(Ok(_)) => break,
                    Ok(Err(Attempt::Final(error @ DirectoryError::VotersRefused(_)))) => return Err(error),
                    Ok(Err(why)) => {
                        tracing::info!(region = me.0, seed = seed.0, ?why, "the directory cannot be joined yet");
                    }
                    Err(_) => tracing::info!(region = me.0, seed = seed.0, "joining the directory takes long"),
                }
            }
            self.retry_later().await?;
        }
        Ok(())
    }

    async fn retry_later(&self) -> Result<(), DirectoryError> {
        tokio::select! {
            () = self.shared.closing.cancelled() => Err(DirectoryError::Stopped("it is closed".to_owned())),
            () = tokio::time::sleep(RETRY_AFTER) => Ok(()),
        }
    }
}
