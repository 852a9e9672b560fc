//! What is asked of another node, as a client asks it.

use std::collections::BTreeSet;

use antiphon_proto::rpc::{
    ChangeVotersRequest, ProposeRequest, ReadIndexRequest, RenewRequest, change_voters_reply,
    directory_client::DirectoryClient, propose_reply, read_index_reply, renew_reply,
};
use bytes::Bytes;
use tonic::transport::Channel;

use super::{ask::Attempt, lease::Asker, propose::Done, voters::VoterChange};
use crate::{DirectoryError, domain::RegionId, raft::codec::decode};

/// Asks one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// The deployment, which the one asked checks.
    pub(crate) deployment: &'a str,
    /// Whether the one asked is to answer itself, and not to pass on to the leader.
    pub(crate) passed_on: bool,
}

type Client = DirectoryClient<Channel>;

impl Caller<'_> {
    /// `command` is encoded already.
    pub(crate) async fn propose(self, mut client: Client, command: Bytes) -> Result<Done, Attempt> {
        let request = ProposeRequest {
            deployment: self.deployment.to_owned(),
            command,
            passed_on: self.passed_on,
        };
        match client.propose(request).await?.into_inner().result {
            Some(propose_reply::Result::Done(done)) => Ok(Ok((decode("an answer", &done.applied)?, done.index))),
            Some(propose_reply::Result::Rejected(rejected)) => Ok(Err(decode("a rejection", &rejected)?)),
            Some(propose_reply::Result::NotLeader(not_leader)) => Err(not_leader.into()),
            None => Err(Attempt::Unknown),
        }
    }

    /// Up to where the log has to be applied before the lease counts.
    pub(crate) async fn renew(self, mut client: Client, asker: &Asker) -> Result<u64, Attempt> {
        let request = RenewRequest {
            deployment: self.deployment.to_owned(),
            region: asker.region.0,
            incarnation: asker.incarnation,
            passed_on: self.passed_on,
            node: Some(asker.node.clone()),
        };
        match client.renew(request).await?.into_inner().result {
            Some(renew_reply::Result::Renewed(renewed)) => Ok(renewed.applied_index),
            Some(renew_reply::Result::Refused(why)) => Err(Attempt::Final(DirectoryError::LeaseRefused(why))),
            Some(renew_reply::Result::NotLeader(not_leader)) => Err(not_leader.into()),
            None => Err(Attempt::Unknown),
        }
    }

    /// Up to where the log has to be applied for a read to be linearizable.
    pub(crate) async fn read_index(self, mut client: Client) -> Result<u64, Attempt> {
        let request = ReadIndexRequest {
            deployment: self.deployment.to_owned(),
            passed_on: self.passed_on,
        };
        match client.read_index(request).await?.into_inner().result {
            Some(read_index_reply::Result::Index(index)) => Ok(index),
            Some(read_index_reply::Result::NotLeader(not_leader)) => Err(not_leader.into()),
            None => Err(Attempt::Unknown),
        }
    }

    /// Who votes then.
    pub(crate) async fn change_voters(
        self,
        mut client: Client,
        change: &VoterChange,
    ) -> Result<BTreeSet<RegionId>, Attempt> {
        let request = ChangeVotersRequest {
            deployment: self.deployment.to_owned(),
            add: change.add.iter().map(|region| region.0).collect(),
            remove: change.remove.iter().map(|region| region.0).collect(),
            passed_on: self.passed_on,
        };
        match client.change_voters(request).await?.into_inner().result {
            Some(change_voters_reply::Result::Changed(changed)) => {
                Ok(changed.voters.into_iter().map(RegionId).collect())
            }
            Some(change_voters_reply::Result::Refused(why)) => Err(Attempt::Final(DirectoryError::VotersRefused(why))),
            Some(change_voters_reply::Result::NotLeader(not_leader)) => Err(not_leader.into()),
            None => Err(Attempt::Unknown),
        }
    }
}
