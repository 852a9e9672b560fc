use std::time::Duration;

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

impl Shared {
    /// Has a region's lease renewed. Returns up to where the log has to be applied before the lease counts.
    pub(crate) async fn renew(
        &self,
        reach: Reach,
        timeout: Duration,
        region: RegionId,
        incarnation: u64,
    ) -> Result<u64, DirectoryError> {
        self.at_leader(
            reach,
            timeout,
            || self.renew_here(region, incarnation).boxed(),
            |client| self.renew_there(client, region, incarnation).boxed(),
        )
        .await
    }

    async fn renew_here(&self, region: RegionId, incarnation: u64) -> Result<u64, Attempt> {
        let term = self.grants.asked(&self.state(), region, incarnation, self.now_ms())?;
        let applied_index = self.read_index_here().await?;
        self.applied_at_least(applied_index).await;
        self.grants
            .grant(&self.state(), term, region, incarnation, self.now_ms())?;
        Ok(applied_index)
    }

    async fn renew_there(
        &self,
        mut client: DirectoryClient<Channel>,
        region: RegionId,
        incarnation: u64,
    ) -> Result<u64, Attempt> {
        let request = RenewRequest {
            deployment: self.options.deployment.clone(),
            region: region.0,
            incarnation,
            passed_on: true,
        };
        match client.renew(request).await?.into_inner().result {
            Some(renew_reply::Result::Renewed(renewed)) => Ok(renewed.applied_index),
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
