//! The home's end: a stream to each node of a region that follows slots which are homed here.

mod dirty;
mod pages;
mod progress;
mod recent;
mod stream;
mod unsettled;
mod watermarks;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_directory::{PeerRegion, Table, TableWatch, domain::RegionId};
use antiphon_proto::rpc::{
    FollowerFrames, HomeFrames, follower_frame,
    replication_server::{Replication, ReplicationServer},
};
use antiphon_slot::{CommittedEntry, ReplicaLog, Shipping, Slots, protocol::LogState};
use antiphon_types::Slot;
use futures_util::{StreamExt as _, stream::BoxStream};
use http::Extensions;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, async_trait};

pub(crate) use self::progress::Progress;
use self::{dirty::Dirty, progress::StreamId, recent::Recent, stream::Follower, unsettled::Unsettled};
use crate::ReplicationOptions;

/// Messages that may wait to be sent on one stream.
const OUTGOING_MAX: usize = 4;

/// The home's end of replication. Cheap to clone.
#[derive(Clone)]
pub struct ReplicationHome {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    served: OnceLock<(Slots, TableWatch)>,
    log: ReplicaLog,
    recent: Recent,
    streams: RwLock<HashMap<StreamId, Arc<Dirty>>>,
    next_stream: AtomicU64,
    pub(crate) progress: Progress,
    pub(crate) unsettled: Unsettled,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl ReplicationHome {
    /// Reads the logs of `log`; [`ReplicationHome::serve`] tells whose they are.
    #[must_use]
    pub fn new(log: ReplicaLog, options: &ReplicationOptions) -> Self {
        let inner = Inner {
            served: OnceLock::new(),
            log,
            recent: Recent::new(options.recent_bytes_max),
            streams: RwLock::default(),
            next_stream: AtomicU64::new(0),
            progress: Progress::default(),
            unsettled: Unsettled::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the slots tell of their logs.
    #[must_use]
    pub fn shipping(&self) -> Arc<dyn Shipping> {
        self.inner.clone()
    }

    /// Serves the logs of these slots from now on, to the regions of this table. Only the first call counts.
    pub fn serve(&self, slots: Slots, table: TableWatch) {
        let _ = self.inner.served.set((slots, table));
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> ReplicationServer<Self> {
        ReplicationServer::new(self).max_decoding_message_size(crate::MESSAGE_BYTES_MAX)
    }

    /// Ends every stream.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Shipping for Inner {
    fn appended(&self, entry: &CommittedEntry) {
        let streams = self.streams.read();
        if streams.is_empty() {
            return;
        }
        let wrote = (entry.slot, entry.epoch);
        self.recent.insert(wrote, entry.index, entry.encoded.clone());
        streams.values().for_each(|dirty| dirty.mark(entry.slot));
    }

    fn moved(&self, slot: Slot, state: &LogState) {
        self.unsettled.moved(slot, state);
        self.streams.read().values().for_each(|dirty| dirty.mark(slot));
    }
}

#[async_trait]
impl Replication for ReplicationHome {
    type FollowStream = BoxStream<'static, Result<HomeFrames, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowerFrames>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let inner = self.inner.clone();
        let Some((slots, table)) = inner.served.get().cloned() else {
            return Err(Status::unavailable("the slots of this node are not open yet"));
        };
        let (_, extensions, mut incoming) = request.into_parts();
        let first = incoming.message().await?.unwrap_or_default();
        let mut first = first.frames.into_iter();
        let Some(follower_frame::Body::Hello(hello)) = first.next().and_then(|frame| frame.body) else {
            return Err(Status::invalid_argument("the first frame of a stream is hello"));
        };
        check_follower(&table.load(), &extensions, RegionId(hello.region_id))?;
        let (outgoing, received) = mpsc::channel(OUTGOING_MAX);
        let dirty = Arc::new(Dirty::default());
        let id = inner.next_stream.fetch_add(1, Ordering::Relaxed);
        inner.streams.write().insert(id, dirty.clone());
        metrics::gauge!("antiphon_replication_followers").increment(1);
        let follower = Follower::new(inner.clone(), slots, (&hello, id), dirty, outgoing);
        let closing = inner.closing.clone();
        self.inner.tasks.spawn(async move {
            closing
                .run_until_cancelled(follower.run(first.collect(), incoming))
                .await;
            inner.streams.write().remove(&id);
            metrics::gauge!("antiphon_replication_followers").decrement(1);
        });
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }
}

/// What a follower says it holds counts for the high watermark, so nobody says it for another.
fn check_follower(table: &Table, extensions: &Extensions, region: RegionId) -> Result<(), Status> {
    match table.region(region) {
        Some(found) if PeerRegion::may_speak_for(extensions, &found.name) => Ok(()),
        Some(found) => {
            let message = format!("the certificate is not that of region {}", found.name);
            Err(Status::permission_denied(message))
        }
        None => Err(Status::unavailable(format!("region {} is not known here", region.0))),
    }
}
