use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Asker, grants::NoGrant};
use crate::{
    DirectoryError,
    node::{
        Shared,
        ask::{Attempt, Reach},
    },
};

impl Shared {
    /// Has a region's lease renewed. Returns up to where the log has to be applied before the lease counts.
    pub(crate) async fn renew(&self, reach: Reach, timeout: Duration, asker: &Asker) -> Result<u64, DirectoryError> {
        self.at_leader(
            reach,
            timeout,
            || self.renew_here(asker).boxed(),
            |client| self.caller().renew(client, asker).boxed(),
        )
        .await
    }

    async fn renew_here(&self, asker: &Asker) -> Result<u64, Attempt> {
        let term = self.grants.asked(&self.state(), asker, self.now_ms())?;
        let applied_index = self.read_index_here().await?;
        self.applied_at_least(applied_index).await;
        self.grants.grant(&self.state(), term, asker, self.now_ms())?;
        Ok(applied_index)
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
