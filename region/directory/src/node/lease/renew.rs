use std::time::{Duration, Instant};

use antiphon_proto::rpc::{RenewRequest, directory_client::DirectoryClient, renew_reply};
use futures_util::FutureExt as _;
use tonic::transport::Channel;

use super::grants::NoGrant;
use crate::{
    DirectoryError,
    domain::RegionId,
    node::{
        Shared,
        ask::{Attempt, Reach},
    },
};

/// A renewal that was granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renewed {
    /// Taken before the leader was asked.
    pub(super) asked: Instant,
    /// Up to where the log has to be applied before the lease counts.
    pub(crate) applied_index: u64,
}

impl Shared {
    pub(crate) async fn renew(
        &self,
        reach: Reach,
        timeout: Duration,
        region: RegionId,
        incarnation: u64,
    ) -> Result<Renewed, DirectoryError> {
        self.at_leader(
            reach,
            timeout,
            || self.renew_here(region, incarnation).boxed(),
            |client| self.renew_there(client, region, incarnation).boxed(),
        )
        .await
    }

    async fn renew_here(&self, region: RegionId, incarnation: u64) -> Result<Renewed, Attempt> {
        let received = Instant::now();
        let term = self.grants.admit(region, incarnation)?;
        let applied_index = self.read_index_here().await?;
        self.applied_at_least(applied_index).await;
        if !self.state().regions.contains_key(&region) {
            let message = format!("region {} is not in the directory", region.0);
            return Err(Attempt::Final(DirectoryError::LeaseRefused(message)));
        }
        self.grants.renew(term, region, incarnation, received)?;
        Ok(Renewed {
            asked: received,
            applied_index,
        })
    }

    async fn renew_there(
        &self,
        mut client: DirectoryClient<Channel>,
        region: RegionId,
        incarnation: u64,
    ) -> Result<Renewed, Attempt> {
        let request = RenewRequest {
            deployment: self.options.deployment.clone(),
            region: region.0,
            incarnation,
            passed_on: true,
        };
        let asked = Instant::now();
        match client.renew(request).await?.into_inner().result {
            Some(renew_reply::Result::Renewed(renewed)) => Ok(Renewed {
                asked,
                applied_index: renewed.applied_index,
            }),
            Some(renew_reply::Result::Refused(why)) => Err(Attempt::Final(DirectoryError::LeaseRefused(why))),
            Some(renew_reply::Result::NotLeader(not_leader)) => Err(not_leader.into()),
            None => Err(Attempt::Unknown),
        }
    }
}

impl From<NoGrant> for Attempt {
    fn from(no: NoGrant) -> Self {
        match no {
            NoGrant::NotLeading => Self::NotLed(None),
            NoGrant::Refused(why) => Self::Final(DirectoryError::LeaseRefused(why)),
        }
    }
}
