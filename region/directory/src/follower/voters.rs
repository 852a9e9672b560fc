//! Whom a node without a voter can ask, and asking them one after the other.

use std::{collections::BTreeSet, time::Duration};

use antiphon_proto::rpc::directory_client::DirectoryClient;
use futures_util::future::BoxFuture;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::Shared;
use crate::{
    DirectoryError,
    domain::{Addresses, RegionId, RegionStatus},
    node::{ask::Attempt, calls::Caller},
    raft::network::MESSAGE_BYTES_MAX,
};

/// Bytes of a reply with the whole state.
const STATE_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// The longest wait between two rounds.
const BACKOFF_MS_MAX: u64 = 250;

impl Shared {
    /// Every voter that is known, the region's own first, then in no order, and those last that are down.
    pub(super) fn voters(&self) -> Vec<(RegionId, Addresses)> {
        let known = self.knowledge.known();
        let state = &known.image.state;
        let members = known.image.membership.membership();
        let mut voters: Vec<(RegionId, Addresses)> = members
            .voter_ids()
            .filter_map(|id| {
                let listed = state.regions.get(&RegionId(id)).map(|region| &region.addresses);
                Some((RegionId(id), listed.or_else(|| members.get_node(&id))?.clone()))
            })
            .collect();
        let listed: BTreeSet<RegionId> = voters.iter().map(|(id, _)| *id).collect();
        // All that is known may be old.
        let seeds = self.seeds.iter().filter(|(id, _)| !listed.contains(id));
        voters.extend(seeds.cloned());
        voters.shuffle(&mut rand::rng());
        voters.sort_by_key(|(id, _)| (*id != self.region, state.is(*id, RegionStatus::Down)));
        voters
    }

    /// Runs `call` with one voter after the other, beginning with the one that is followed, until one of them answers, for `timeout`
    /// at most and a third of that with each.
    pub(super) async fn through<'a, T>(
        &'a self,
        timeout: Duration,
        call: impl Fn(DirectoryClient<Channel>) -> BoxFuture<'a, Result<T, Attempt>> + Send,
    ) -> Result<T, DirectoryError> {
        let deadline = Instant::now() + timeout;
        let mut unknown = false;
        let mut backoff_ms = 10;
        while !self.closing.is_cancelled() && Instant::now() < deadline {
            let follows = self.knowledge.known().follows;
            let mut voters = self.voters();
            voters.sort_by_key(|(id, _)| Some(*id) != follows);
            for (voter, addresses) in voters {
                let until = deadline.min(Instant::now() + timeout / 3);
                let attempt = tokio::select! {
                    () = self.closing.cancelled() => break,
                    attempt = tokio::time::timeout_at(until, call(self.client(voter, &addresses))) => attempt,
                };
                self.links.heard(voter.0, attempt.is_ok());
                match attempt {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(Attempt::Final(error))) => return Err(error),
                    Ok(Err(Attempt::NotLed(_))) => {}
                    Ok(Err(Attempt::Unknown)) | Err(_) => unknown = true,
                }
            }
            let wait = Duration::from_millis(backoff_ms / 2 + rand::random_range(0..=backoff_ms / 2));
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + wait)) => {}
            }
        }
        if self.closing.is_cancelled() {
            return Err(DirectoryError::Stopped("it is closed".to_owned()));
        }
        let within_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        if unknown {
            return Err(DirectoryError::Timeout { within_ms });
        }
        Err(DirectoryError::NoQuorum { within_ms })
    }

    pub(super) fn client(&self, voter: RegionId, addresses: &Addresses) -> DirectoryClient<Channel> {
        DirectoryClient::new(self.links.channel(voter.0, addresses))
            .max_decoding_message_size(STATE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What has to be passed on to the leader, whoever is asked.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller {
            deployment: &self.options.deployment,
            passed_on: false,
        }
    }
}
