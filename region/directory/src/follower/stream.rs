//! The stream by which a node without a voter hears of the state.

use std::{future, pin::pin, sync::Arc, time::Duration};

use antiphon_proto::rpc::{FollowReply, FollowRequest};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use super::{Shared, known::Known};
use crate::{
    Table,
    domain::{Addresses, RegionId},
    node::follow::HEARTBEAT,
};

/// How long the first reply may take, the connection included.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(3);
/// A voter from which nothing comes for so long is dead, or cannot be reached.
const SILENCE_MAX: Duration = HEARTBEAT.saturating_mul(3);
/// How often it is looked whether the region's own voter is there again.
const LOOK_FOR_OWN: Duration = Duration::from_secs(10);
/// The first wait after no voter has answered is drawn from half of this to all of it; the longest likewise.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Broken(#[from] Status),
    #[error("it has ended the stream")]
    Ended,
    #[error("nothing came from it in time")]
    Silent,
    #[error("it does not come to know what others know")]
    Lags,
    #[error("{0}")]
    Malformed(String),
}

/// One stream, of which something has come.
struct Following {
    voter: RegionId,
    stream: Streaming<FollowReply>,
    /// What it has told last.
    told: Known,
}

/// Follows one voter after the other. Never ends.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut backoff = BACKOFF.0;
    let mut given_up = None;
    loop {
        let mut voters = shared.voters();
        voters.sort_by_key(|(id, _)| Some(*id) == given_up);
        let mut following = None;
        for (voter, addresses) in &voters {
            match Following::open(&shared, *voter, addresses).await {
                Ok(opened) => {
                    following = Some(opened);
                    break;
                }
                Err(why) => tracing::debug!(voter = voter.0, %why, "a voter cannot be followed"),
            }
        }
        let Some(mut following) = following else {
            sleep(backoff.mul_f64(rand::random_range(0.5..=1.0))).await;
            backoff = BACKOFF.1.min(backoff * 2);
            continue;
        };
        backoff = BACKOFF.0;
        loop {
            match following.keep(&shared).await {
                Ok(own) => following = own,
                Err(why) => {
                    tracing::info!(voter = following.voter.0, %why, "another voter is followed");
                    given_up = Some(following.voter);
                    shared.knowledge.lost();
                    break;
                }
            }
        }
    }
}

impl Following {
    async fn open(shared: &Shared, voter: RegionId, addresses: &Addresses) -> Result<Self, Lost> {
        let mut client = shared.client(voter, addresses);
        let request = FollowRequest {
            deployment: shared.options.deployment.clone(),
            region: shared.region.0,
        };
        let opening = async {
            let mut stream = client.follow(request).await?.into_inner();
            let first = stream.message().await?.ok_or(Lost::Ended)?;
            let told = read(shared, voter, &Known::default(), &first)?;
            Ok(Self { voter, stream, told })
        };
        let opened = timeout(FIRST_WAIT_MAX, opening).await;
        shared.links.heard(voter.0, opened.is_ok());
        opened.unwrap_or(Err(Lost::Silent))
    }

    /// Takes what comes, until nothing does any more, or the region's own voter can be followed in the place of another.
    async fn keep(&mut self, shared: &Shared) -> Result<Self, Lost> {
        shared.knowledge.take(self.told.clone());
        let mut lags = pin!(shared.lags());
        let mut own = pin!(own_again(shared, self.voter));
        loop {
            let reply = tokio::select! {
                reply = timeout(SILENCE_MAX, self.stream.message()) => reply.map_err(|_| Lost::Silent),
                () = &mut lags => return Err(Lost::Lags),
                own = &mut own => return Ok(own),
            };
            let reply = reply??.ok_or(Lost::Ended)?;
            self.told = read(shared, self.voter, &self.told, &reply)?;
            shared.knowledge.take(self.told.clone());
        }
    }
}

/// What a reply tells, if it can be.
fn read(shared: &Shared, voter: RegionId, before: &Known, reply: &FollowReply) -> Result<Known, Lost> {
    let told = before.after(voter, reply);
    let told = told.map_err(|error| Lost::Malformed(error.to_string()))?;
    let state = &told.image.state;
    let deployment = &shared.options.deployment;
    if state.deployment.is_empty() || (state.deployment == *deployment && Table::from_state(state).is_some()) {
        return Ok(told);
    }
    let message = format!(
        "what it tells of {:?} is no whole state of {deployment:?}",
        state.deployment
    );
    Err(Lost::Malformed(message))
}

/// The stream of the region's own voter, once it can be followed while another is, and knows as much.
async fn own_again(shared: &Shared, followed: RegionId) -> Following {
    if followed == shared.region {
        return future::pending().await;
    }
    loop {
        sleep(LOOK_FOR_OWN).await;
        let voters = shared.voters();
        let Some((own, addresses)) = voters.iter().find(|(id, _)| *id == shared.region) else {
            continue;
        };
        if let Ok(opened) = Following::open(shared, *own, addresses).await
            && opened.told.applied() >= shared.knowledge.known().applied()
        {
            return opened;
        }
    }
}

impl Shared {
    /// Ends when something that a leader has committed does not come to be known for a good part of a lease: a voter that is cut off
    /// from the others still tells what it knows.
    async fn lags(&self) {
        let mut committed = self.committed.subscribe();
        loop {
            let index = *committed.borrow_and_update();
            let reached = self
                .knowledge
                .when(|known| index == 0 || known.applied() >= Some(index));
            if timeout(self.options.lease.lease() / 4, reached).await.is_err() {
                return;
            }
            if committed.changed().await.is_err() {
                return future::pending().await;
            }
        }
    }
}
