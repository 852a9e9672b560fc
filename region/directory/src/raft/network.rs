//! Calls to the other voters.

use std::{future::Future, io, sync::Arc, time::Duration};

use antiphon_proto::rpc::{
    RaftEnvelope, RaftReply, RaftRequest, SnapshotHead, SnapshotPart, raft_client::RaftClient, snapshot_part,
};
use bytes::Bytes;
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::watch::WatchReceiver as _,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Code, Response, Status, transport::Channel};

use super::{
    Raft, Types, Vote,
    codec::{CodecError, decode, encode},
    dialer::Peers,
};
use crate::domain::Addresses;

/// Bytes of a message between voters. A batch of entries is ended at a quarter of it, and no command is larger than half of it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a part of a snapshot.
const SNAPSHOT_PART_BYTES: usize = 64 << 10;

/// How long after a member could not be greeted it is tried again.
const GREET_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Makes the clients of openraft's replication.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) append_timeout: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Addresses) -> Peer {
        Peer {
            peers: self.peers.clone(),
            target,
            addresses: node.clone(),
            append_timeout: self.append_timeout,
        }
    }
}

impl Network {
    /// Learns from which store each member speaks, before it matters: two followers may otherwise hear each other for the first time
    /// after one of them has lost its store. Never ends.
    pub(crate) async fn greet(mut self, raft: Raft) {
        let mut metrics = raft.metrics();
        loop {
            let members = metrics.borrow_watched().membership_config.clone();
            let others = members
                .membership()
                .nodes()
                .filter(|(id, _)| **id != self.peers.identity.region.0);
            let unknown: Vec<_> = others.filter(|(id, _)| !self.peers.is_known(**id)).collect();
            for (id, addresses) in &unknown {
                let peer = self.new_client(**id, addresses).await;
                let call = async |mut client: RaftClient<Channel>, request| client.greet(request).await;
                let greeted: Result<(), CallError> = peer.call(&(), self.append_timeout, call).await;
                if let Err(CallError::Unreachable(why) | CallError::Broken(why)) = greeted {
                    tracing::debug!(region = id, %why, "a member is not greeted yet");
                }
            }
            if unknown.is_empty() {
                // Only a change of the members makes another one unknown.
                if metrics.changed().await.is_err() {
                    return;
                }
            } else {
                tokio::time::sleep(GREET_AGAIN_AFTER).await;
            }
        }
    }
}

/// One other voter.
pub(crate) struct Peer {
    peers: Arc<Peers>,
    target: u64,
    addresses: Addresses,
    append_timeout: Duration,
}

/// Why a call brought nothing.
enum CallError {
    Silent(Duration),
    Unreachable(String),
    Broken(String),
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // openraft allows a heartbeat interval for everything; entries are larger, and are written to disk before the answer.
        let deadline = if rpc.entries.is_empty() {
            // Before openraft's own timer: a heartbeat without an answer is to be counted.
            option.hard_ttl() * 19 / 20
        } else {
            self.append_timeout.max(option.hard_ttl())
        };
        let call = async |mut client: RaftClient<Channel>, request| client.append(request).await;
        self.call(&rpc, deadline, call)
            .await
            .map_err(|error| self.rpc_error(RPCTypes::AppendEntries, error))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let call = async |mut client: RaftClient<Channel>, request| client.vote(request).await;
        self.call(&rpc, option.hard_ttl(), call)
            .await
            .map_err(|error| self.rpc_error(RPCTypes::Vote, error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let call = async |mut client: RaftClient<Channel>, request| client.pre_vote(request).await;
        self.call(&rpc, option.hard_ttl(), call)
            .await
            .map_err(|error| self.rpc_error(RPCTypes::Vote, error))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let call = async |mut client: RaftClient<Channel>, request| client.transfer_leader(request).await;
        self.call(&rpc, option.hard_ttl(), call)
            .await
            .map_err(|error| self.rpc_error(RPCTypes::TransferLeader, error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = self.send_snapshot(vote, snapshot, option.hard_ttl());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => sent.map_err(|error| self.rpc_error(RPCTypes::InstallSnapshot, error).into()),
        }
    }
}

impl Peer {
    async fn call<T, R, F>(&self, rpc: &T, deadline: Duration, call: F) -> Result<R, CallError>
    where
        T: Serialize,
        R: DeserializeOwned,
        F: AsyncFnOnce(RaftClient<Channel>, tonic::Request<RaftRequest>) -> Result<Response<RaftReply>, Status>,
    {
        let request = RaftRequest {
            envelope: Some(self.envelope()),
            payload: encode("a request", rpc)?,
        };
        let reply = self
            .answered(deadline, call(self.client(), timed(request, deadline)))
            .await?;
        Ok(decode("a reply", &reply.payload)?)
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Bytes>,
        deadline: Duration,
    ) -> Result<SnapshotResponse<Types>, CallError> {
        let data = snapshot.snapshot;
        let head = SnapshotHead {
            envelope: Some(self.envelope()),
            meta: encode("a snapshot's head", &(vote, snapshot.meta))?,
            size: data.len() as u64,
        };
        let head = SnapshotPart {
            part: Some(snapshot_part::Part::Head(head)),
        };
        let starts = (0..data.len()).step_by(SNAPSHOT_PART_BYTES);
        let parts = starts.map(move |start| SnapshotPart {
            part: Some(snapshot_part::Part::Data(
                data.slice(start..data.len().min(start + SNAPSHOT_PART_BYTES)),
            )),
        });
        let parts = futures_util::stream::iter(std::iter::once(head).chain(parts));
        let mut client = self.client();
        let reply = self.answered(deadline, client.snapshot(timed(parts, deadline))).await?;
        Ok(decode("a reply", &reply.payload)?)
    }

    async fn answered(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<RaftReply>, Status>>,
    ) -> Result<RaftReply, CallError> {
        let answer = tokio::time::timeout(deadline, call).await;
        self.peers.heard(self.target, answer.is_ok());
        let reply = match answer {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                return Err(CallError::Unreachable(status.to_string()));
            }
            Ok(Err(status)) => return Err(CallError::Broken(status.to_string())),
            Err(_) => return Err(CallError::Silent(deadline)),
        };
        match self.peers.check_store(self.target, reply.store, true).await? {
            Ok(()) => Ok(reply),
            Err(other) => Err(CallError::Unreachable(other.to_string())),
        }
    }

    fn client(&self) -> RaftClient<Channel> {
        RaftClient::new(self.peers.channel(self.target, &self.addresses))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn envelope(&self) -> RaftEnvelope {
        let identity = &self.peers.identity;
        RaftEnvelope {
            deployment: identity.deployment.clone(),
            from: identity.region.0,
            from_store: identity.store,
            to: self.target,
        }
    }

    fn rpc_error(&self, action: RPCTypes, error: CallError) -> RPCError<Types> {
        match error {
            CallError::Silent(timeout) => RPCError::Timeout(Timeout {
                action,
                id: self.peers.identity.region.0,
                target: self.target,
                timeout,
            }),
            CallError::Unreachable(why) => RPCError::Unreachable(Unreachable::from_string(why)),
            CallError::Broken(why) => RPCError::Network(NetworkError::from_string(why)),
        }
    }
}

fn timed<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}

impl From<CodecError> for CallError {
    fn from(error: CodecError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}
