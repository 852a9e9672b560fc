//! Answers to the other voters.

use std::{fmt, sync::Arc, time::Duration};

use antiphon_proto::rpc::{
    RaftEnvelope, RaftReply, RaftRequest, SnapshotPart,
    raft_server::{Raft as RaftRpc, RaftServer},
    snapshot_part,
};
use bytes::BytesMut;
use http::Extensions;
use openraft::{async_runtime::watch::WatchReceiver as _, type_config::alias::SnapshotOf};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Raft, SnapshotMeta, Types, Vote,
    codec::{CodecError, decode, encode},
    dialer::Peers,
    network::MESSAGE_BYTES_MAX,
};
use crate::{domain::RegionId, node::check_peer};

/// Bytes of a snapshot: the state stays under a megabyte.
const SNAPSHOT_BYTES_MAX: u64 = 16 << 20;

/// How long the next part of a snapshot is waited for.
const PART_WAIT_MAX: Duration = Duration::from_secs(10);

/// This voter, as the others reach it.
#[derive(Clone)]
pub struct RaftService {
    raft: Raft,
    peers: Arc<Peers>,
}

impl RaftService {
    pub(crate) fn new(raft: Raft, peers: Arc<Peers>) -> Self {
        Self { raft, peers }
    }

    /// The tonic service.
    #[must_use]
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Refuses what was meant for somebody else, and whom this node must not hear.
    async fn admit(&self, extensions: &Extensions, envelope: Option<&RaftEnvelope>) -> Result<(), Status> {
        let envelope = envelope.ok_or_else(|| Status::invalid_argument("the envelope is missing"))?;
        check_peer(&self.peers.state(), extensions, RegionId(envelope.from))?;
        let identity = &self.peers.identity;
        if envelope.deployment != identity.deployment {
            let message = format!(
                "this is {:?} and the sender's deployment is {:?}",
                identity.deployment, envelope.deployment
            );
            return Err(Status::failed_precondition(message));
        }
        if envelope.to != identity.region.0 {
            let message = format!(
                "this is region {} and the message is for region {}",
                identity.region.0, envelope.to
            );
            return Err(Status::failed_precondition(message));
        }
        let members = self.raft.metrics().borrow_watched().membership_config.clone();
        let member = members.membership().get_node(&envelope.from).is_some();
        let checked = self.peers.check_store(envelope.from, envelope.from_store, member).await;
        checked
            .map_err(|error| Status::unavailable(error.to_string()))?
            .map_err(|other| Status::permission_denied(other.to_string()))
    }

    async fn answer<T, R, E, F>(&self, request: Request<RaftRequest>, act: F) -> Result<Response<RaftReply>, Status>
    where
        T: DeserializeOwned,
        R: Serialize,
        E: fmt::Display,
        F: AsyncFnOnce(&Raft, T) -> Result<R, E>,
    {
        let (_, extensions, request) = request.into_parts();
        self.admit(&extensions, request.envelope.as_ref()).await?;
        let rpc = decode("a request", &request.payload).map_err(CodecError::malformed)?;
        let answer = act(&self.raft, rpc).await.map_err(stopped)?;
        self.reply(&answer)
    }

    fn reply<R: Serialize>(&self, answer: &R) -> Result<Response<RaftReply>, Status> {
        Ok(Response::new(RaftReply {
            store: self.peers.identity.store,
            payload: encode("a reply", answer).map_err(CodecError::internal)?,
        }))
    }
}

#[tonic::async_trait]
impl RaftRpc for RaftService {
    async fn greet(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let (_, extensions, request) = request.into_parts();
        self.admit(&extensions, request.envelope.as_ref()).await?;
        self.reply(&())
    }

    async fn append(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.answer(request, async |raft, rpc| raft.append_entries(rpc).await)
            .await
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.answer(request, async |raft, rpc| raft.vote(rpc).await).await
    }

    async fn pre_vote(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.answer(request, async |raft, rpc| raft.pre_vote(rpc).await).await
    }

    async fn transfer_leader(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.answer(request, async |raft, rpc| raft.handle_transfer_leader(rpc).await)
            .await
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Result<Response<RaftReply>, Status> {
        let (_, extensions, mut parts) = request.into_parts();
        let Some(snapshot_part::Part::Head(head)) = next_part(&mut parts).await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.admit(&extensions, head.envelope.as_ref()).await?;
        let (vote, meta): (Vote, SnapshotMeta) =
            decode("a snapshot's head", &head.meta).map_err(CodecError::malformed)?;
        if head.size > SNAPSHOT_BYTES_MAX {
            let message = format!(
                "a snapshot of {} bytes is over the limit of {SNAPSHOT_BYTES_MAX} bytes",
                head.size
            );
            return Err(Status::resource_exhausted(message));
        }
        let mut snapshot = BytesMut::new();
        while let Some(part) = next_part(&mut parts).await? {
            let snapshot_part::Part::Data(data) = part else {
                return Err(Status::invalid_argument("a snapshot has one head"));
            };
            snapshot.extend_from_slice(&data);
            if snapshot.len() as u64 > head.size {
                break;
            }
        }
        if snapshot.len() as u64 != head.size {
            let message = format!(
                "a snapshot of {} bytes was announced and {} came",
                head.size,
                snapshot.len()
            );
            return Err(Status::invalid_argument(message));
        }
        let snapshot = SnapshotOf::<Types, _> {
            meta,
            snapshot: snapshot.freeze(),
        };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        self.reply(&answer)
    }
}

impl fmt::Debug for RaftService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RaftService({})", self.peers.identity.region.0)
    }
}

async fn next_part(parts: &mut Streaming<SnapshotPart>) -> Result<Option<snapshot_part::Part>, Status> {
    let part = tokio::time::timeout(PART_WAIT_MAX, parts.message()).await;
    let part = part.map_err(|_| Status::deadline_exceeded("the next part of the snapshot did not come"))??;
    part.map(|part| {
        part.part
            .ok_or_else(|| Status::invalid_argument("a part of the snapshot is empty"))
    })
    .transpose()
}

/// The node's Raft has ended: the caller takes it for unreachable.
fn stopped(error: impl fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}
