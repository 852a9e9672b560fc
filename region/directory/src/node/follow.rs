//! The state as a stream, for nodes that have no voter of their own.

use std::{sync::Arc, time::Duration};

use antiphon_proto::rpc::{FollowReply, PlacementChunk};
use futures_util::{Stream, stream};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::Shared;
use crate::{
    domain::RegionId,
    raft::{
        codec::CodecError,
        store::{Changes, Image},
    },
};

/// Between two replies at least: what changes meanwhile is seen as one change.
const PACE: Duration = Duration::from_millis(50);

/// Between two replies at most.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);

/// What one follower has been told.
struct Told {
    shared: Arc<Shared>,
    asker: RegionId,
    images: watch::Receiver<Arc<Image>>,
    last: Arc<Image>,
    not_before: Instant,
    not_after: Instant,
}

impl Shared {
    /// The state now and at each change, until this node ends. Nothing is made before there is room for it: a slow reader misses what
    /// was between two of its replies, and nobody waits for it.
    pub(super) fn follow(self: &Arc<Self>, asker: RegionId) -> impl Stream<Item = Result<FollowReply, Status>> + use<> {
        let told = Told {
            shared: self.clone(),
            asker,
            images: self.images.clone(),
            last: Arc::default(),
            not_before: Instant::now(),
            not_after: Instant::now(),
        };
        stream::unfold(Some(told), async |told| {
            let mut told = told?;
            let closing = told.shared.closing.clone();
            match closing.run_until_cancelled(told.next()).await? {
                Ok(reply) => Some((Ok(reply), Some(told))),
                // A voter whose store has failed sees no changes any more.
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

impl Told {
    async fn next(&mut self) -> Result<FollowReply, Status> {
        sleep_until(self.not_before).await;
        tokio::select! {
            changed = self.images.changed() => if changed.is_err() {
                return Err(Status::unavailable("the directory's node has stopped"));
            },
            () = sleep_until(self.not_after) => {}
        }
        let image = self.images.borrow_and_update().clone();
        let (leader, term) = {
            let metrics = self.shared.raft.metrics();
            let metrics = metrics.borrow_watched();
            if let Err(stopped) = &metrics.running_state {
                return Err(Status::unavailable(stopped.to_string()));
            }
            (metrics.current_leader, metrics.current_term)
        };
        let changes = Changes::between(&self.last, &image).map_err(CodecError::internal)?;
        self.last = image;
        (self.not_before, self.not_after) = (Instant::now() + PACE, Instant::now() + HEARTBEAT);
        let chunk = |(number, placements)| PlacementChunk {
            number: u32::from(number),
            placements,
        };
        Ok(FollowReply {
            head: changes.head,
            chunks: changes.chunks.into_iter().map(chunk).collect(),
            leader,
            term,
            region_store: self.shared.peers.store_of(self.asker),
        })
    }
}
