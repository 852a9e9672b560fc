//! What other nodes ask of this one.

use std::{fmt, sync::Arc};

use antiphon_proto::rpc::{
    ChangeVotersReply, ChangeVotersRequest, Changed, Done, FollowReply, FollowRequest, NotLeader, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, RenewReply, RenewRequest, Renewed, change_voters_reply,
    directory_server::{Directory, DirectoryServer},
    propose_reply, read_index_reply, renew_reply,
};
use futures_util::stream::BoxStream;
use http::Extensions;
use tonic::{Request, Response, Status};

use super::{
    DirectoryNode, Shared,
    ask::Reach,
    lease::{Asker, FIRST_NODE, NODE_BYTES_MAX},
    voters::VoterChange,
};
use crate::{
    DirectoryError, PeerRegion,
    domain::{Command, RegionId, State},
    raft::{
        codec::{CodecError, decode, encode},
        network::MESSAGE_BYTES_MAX,
    },
};

/// The directory, as other nodes reach it by way of this one.
#[derive(Clone)]
pub struct DirectoryService {
    node: DirectoryNode,
}

impl DirectoryService {
    pub(super) fn new(node: DirectoryNode) -> Self {
        Self { node }
    }

    /// The tonic service.
    #[must_use]
    pub fn into_server(self) -> DirectoryServer<Self> {
        DirectoryServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn admit(&self, deployment: &str) -> Result<&Arc<Shared>, Status> {
        let shared = &self.node.shared;
        if shared.options.deployment != deployment {
            let message = format!(
                "this is {:?} and the asker's deployment is {deployment:?}",
                shared.options.deployment
            );
            return Err(Status::failed_precondition(message));
        }
        Ok(shared)
    }
}

#[tonic::async_trait]
impl Directory for DirectoryService {
    type FollowStream = BoxStream<'static, Result<FollowReply, Status>>;

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let (_, extensions, request) = request.into_parts();
        let shared = self.admit(&request.deployment)?;
        let command: Command = decode("a command", &request.command).map_err(CodecError::malformed)?;
        if let Command::ChangeInSync { home: region, .. }
        | Command::MoveHome { home: region, .. }
        | Command::SetNodes { region, .. } = &command
        {
            check_peer(&shared.state(), &extensions, *region)?;
        }
        let result = match shared.propose(reach(request.passed_on), command).await {
            Ok(Ok((applied, index))) => propose_reply::Result::Done(Done {
                applied: encode("an answer", &applied).map_err(CodecError::internal)?,
                index,
            }),
            Ok(Err(rejection)) => {
                propose_reply::Result::Rejected(encode("a rejection", &rejection).map_err(CodecError::internal)?)
            }
            Err(DirectoryError::NotLeader { leader }) => propose_reply::Result::NotLeader(not_leader(leader)),
            Err(error) => return Err(failed(&error)),
        };
        Ok(Response::new(ProposeReply { result: Some(result) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let (_, extensions, request) = request.into_parts();
        let shared = self.admit(&request.deployment)?;
        let region = RegionId(request.region);
        check_peer(&shared.state(), &extensions, region)?;
        let asker = Asker {
            region,
            node: request.node.unwrap_or_else(|| FIRST_NODE.to_owned()),
            incarnation: request.incarnation,
        };
        if asker.node.len() > NODE_BYTES_MAX {
            let message = format!(
                "a node's name of {} bytes is over the limit of {NODE_BYTES_MAX} bytes",
                asker.node.len()
            );
            return Err(Status::invalid_argument(message));
        }
        let (reach, timeout) = (reach(request.passed_on), shared.options.lease.lease());
        let result = match shared.renew(reach, timeout, &asker).await {
            Ok(applied_index) => renew_reply::Result::Renewed(Renewed { applied_index }),
            Err(DirectoryError::LeaseRefused(why)) => renew_reply::Result::Refused(why),
            Err(DirectoryError::NotLeader { leader }) => renew_reply::Result::NotLeader(not_leader(leader)),
            Err(error) => return Err(failed(&error)),
        };
        Ok(Response::new(RenewReply { result: Some(result) }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let request = request.into_inner();
        let shared = self.admit(&request.deployment)?;
        let result = match shared.read_index(reach(request.passed_on)).await {
            Ok(index) => read_index_reply::Result::Index(index),
            Err(DirectoryError::NotLeader { leader }) => read_index_reply::Result::NotLeader(not_leader(leader)),
            Err(error) => return Err(failed(&error)),
        };
        Ok(Response::new(ReadIndexReply { result: Some(result) }))
    }

    async fn change_voters(
        &self,
        request: Request<ChangeVotersRequest>,
    ) -> Result<Response<ChangeVotersReply>, Status> {
        let request = request.into_inner();
        let shared = self.admit(&request.deployment)?;
        let reach = reach(request.passed_on);
        let result = match shared.change_voters(reach, &VoterChange::of_request(request)).await {
            Ok(voters) => change_voters_reply::Result::Changed(Changed {
                voters: voters.into_iter().map(|region| region.0).collect(),
            }),
            Err(DirectoryError::VotersRefused(why)) => change_voters_reply::Result::Refused(why),
            Err(DirectoryError::NotLeader { leader }) => change_voters_reply::Result::NotLeader(not_leader(leader)),
            Err(error) => return Err(failed(&error)),
        };
        Ok(Response::new(ChangeVotersReply { result: Some(result) }))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let (_, extensions, request) = request.into_parts();
        let shared = self.admit(&request.deployment)?;
        let region = RegionId(request.region);
        check_peer(&shared.state(), &extensions, region)?;
        Ok(Response::new(Box::pin(shared.follow(region))))
    }
}

/// Refuses a node that speaks for a region which its certificate does not name. A region that this node does not know yet has no name
/// to compare.
pub(crate) fn check_peer(state: &State, extensions: &Extensions, region: RegionId) -> Result<(), Status> {
    let named = state.regions.get(&region);
    if named.is_none_or(|named| PeerRegion::may_speak_for(extensions, &named.name)) {
        return Ok(());
    }
    let message = format!("the certificate is not that of region {}", region.0);
    Err(Status::permission_denied(message))
}

impl fmt::Debug for DirectoryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryService({})", self.node.region().0)
    }
}

fn reach(passed_on: bool) -> Reach {
    if passed_on { Reach::Here } else { Reach::Anywhere }
}

fn not_leader(leader: Option<RegionId>) -> NotLeader {
    NotLeader {
        leader: leader.map(|region| region.0),
    }
}

/// A failure as a status: the asker tells by it whether to try again.
fn failed(error: &DirectoryError) -> Status {
    let message = error.to_string();
    match error {
        DirectoryError::Rejected(_) | DirectoryError::VotersRefused(_) | DirectoryError::LeaseRefused(_) => {
            Status::failed_precondition(message)
        }
        DirectoryError::TooLarge { .. } | DirectoryError::NotAccepted(_) => Status::invalid_argument(message),
        DirectoryError::NotLeader { .. } | DirectoryError::NoQuorum { .. } | DirectoryError::Stopped(_) => {
            Status::unavailable(message)
        }
        DirectoryError::Timeout { .. } => Status::deadline_exceeded(message),
    }
}
