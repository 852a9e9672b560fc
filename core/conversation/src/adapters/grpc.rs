use std::collections::BTreeSet;

use antiphon_directory::Route;
use antiphon_proto::{
    log::Role,
    rpc::{
        AddMemberRequest, AddMemberResponse, CheckMembersRequest, CheckMembersResponse, CreateDirectRequest,
        CreateDirectResponse, CreateGroupRequest, CreateGroupResponse, ListConversationsRequest,
        ListConversationsResponse, ListMembersRequest, ListMembersResponse, ListMembershipRequest,
        ListMembershipResponse, OpenDirectRequest, OpenDirectResponse, PairExistsRequest, PairExistsResponse,
        RemoveMemberRequest, RemoveMemberResponse, SetRoleRequest, SetRoleResponse,
        conversation_server::{Conversation, ConversationServer},
    },
};
use antiphon_slot::Slots;
use antiphon_types::{Clock, ConversationId, Title, UserId};
use tonic::{Request, Response, Status};

use crate::{
    ConversationError, ConversationOptions, Rejection,
    app::{self, AddMember, App, CreateDirect, CreateGroup, SetRole},
};

/// The service `rpc.v1.Conversation`.
pub struct ConversationService {
    app: App,
}

impl ConversationService {
    /// The service over the slots of this node; other slots and services are reached by `route`.
    #[must_use]
    pub const fn new(slots: Slots, route: Route, clock: Clock, options: ConversationOptions) -> Self {
        Self {
            app: App {
                slots,
                route,
                clock,
                options,
            },
        }
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> ConversationServer<Self> {
        ConversationServer::new(self)
    }
}

#[tonic::async_trait]
impl Conversation for ConversationService {
    async fn open_direct(&self, request: Request<OpenDirectRequest>) -> Result<Response<OpenDirectResponse>, Status> {
        let request = request.into_inner();
        let (creator, peer) = (
            user("creatorId", &request.creator_id)?,
            user("peerId", &request.peer_id)?,
        );
        let opened = app::open_direct(&self.app, creator, peer).await.map_err(refused)?;
        Ok(Response::new(OpenDirectResponse {
            conversation_id: opened.conversation.to_bytes(),
            created: opened.created,
        }))
    }

    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let request = request.into_inner();
        // Before the ids are read: what is refused for its size costs nothing.
        let (count, limit) = (request.member_ids.len(), self.app.options.request_users_max);
        if count > limit {
            return Err(refused(Rejection::TooManyUsers { count, limit }));
        }
        let members: Result<BTreeSet<UserId>, Status> =
            request.member_ids.iter().map(|id| user("memberIds", id)).collect();
        let command = CreateGroup {
            conversation: conversation(&request.conversation_id)?,
            creator: user("creatorId", &request.creator_id)?,
            members: members?,
            title: Title::parse(&request.title).map_err(refused)?,
        };
        app::create_group(&self.app, command).await.map_err(refused)?;
        Ok(Response::new(CreateGroupResponse {}))
    }

    async fn create_direct(
        &self,
        request: Request<CreateDirectRequest>,
    ) -> Result<Response<CreateDirectResponse>, Status> {
        let request = request.into_inner();
        let command = CreateDirect {
            conversation: conversation(&request.conversation_id)?,
            creator: user("creatorId", &request.creator_id)?,
            peer: user("peerId", &request.peer_id)?,
            created_at_ms: request.created_at_ms,
            await_listed: request.await_listed,
        };
        app::create_direct(&self.app, command).await.map_err(refused)?;
        Ok(Response::new(CreateDirectResponse {}))
    }

    async fn add_member(&self, request: Request<AddMemberRequest>) -> Result<Response<AddMemberResponse>, Status> {
        let request = request.into_inner();
        let role = match role(request.role)? {
            Role::None => Role::Member,
            role @ (Role::Member | Role::Admin | Role::Owner) => role,
        };
        let command = AddMember {
            conversation: conversation(&request.conversation_id)?,
            actor: user("actorId", &request.actor_id)?,
            user: user("userId", &request.user_id)?,
            role,
        };
        app::add_member(&self.app, command).await.map_err(refused)?;
        Ok(Response::new(AddMemberResponse {}))
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        let request = request.into_inner();
        let conversation = conversation(&request.conversation_id)?;
        let actor = user("actorId", &request.actor_id)?;
        let user = user("userId", &request.user_id)?;
        app::remove_member(&self.app, conversation, actor, user)
            .await
            .map_err(refused)?;
        Ok(Response::new(RemoveMemberResponse {}))
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Result<Response<SetRoleResponse>, Status> {
        let request = request.into_inner();
        let command = SetRole {
            conversation: conversation(&request.conversation_id)?,
            actor: user("actorId", &request.actor_id)?,
            user: user("userId", &request.user_id)?,
            role: role(request.role)?,
        };
        app::set_role(&self.app, command).await.map_err(refused)?;
        Ok(Response::new(SetRoleResponse {}))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let request = request.into_inner();
        let conversation = conversation(&request.conversation_id)?;
        let actor = user("actorId", &request.actor_id)?;
        let after = match &*request.after_user_id {
            [] => None,
            id => Some(user("afterUserId", id)?),
        };
        let page = app::list_members(&self.app, conversation, actor, after, request.limit).await;
        Ok(Response::new(page.map_err(refused)?))
    }

    async fn check_members(
        &self,
        request: Request<CheckMembersRequest>,
    ) -> Result<Response<CheckMembersResponse>, Status> {
        let request = request.into_inner();
        let conversation = conversation(&request.conversation_id)?;
        let users: Result<Vec<UserId>, Status> = request.user_ids.iter().map(|id| user("userIds", id)).collect();
        let members = app::check_members(&self.app, conversation, users?)
            .await
            .map_err(refused)?;
        Ok(Response::new(CheckMembersResponse {
            member_ids: members.iter().map(UserId::to_bytes).collect(),
        }))
    }

    async fn pair_exists(&self, request: Request<PairExistsRequest>) -> Result<Response<PairExistsResponse>, Status> {
        let request = request.into_inner();
        let (user, peer) = (user("userId", &request.user_id)?, user("peerId", &request.peer_id)?);
        let exists = app::pair_exists(&self.app, user, peer).await.map_err(refused)?;
        Ok(Response::new(PairExistsResponse { exists }))
    }

    async fn list_membership(
        &self,
        request: Request<ListMembershipRequest>,
    ) -> Result<Response<ListMembershipResponse>, Status> {
        let change = request.into_inner().change.unwrap_or_default();
        let (user, conversation) = (user("userId", &change.user_id)?, conversation(&change.conversation_id)?);
        app::list_membership(&self.app, user, conversation, change)
            .await
            .map_err(refused)?;
        Ok(Response::new(ListMembershipResponse {}))
    }

    async fn list_conversations(
        &self,
        request: Request<ListConversationsRequest>,
    ) -> Result<Response<ListConversationsResponse>, Status> {
        let request = request.into_inner();
        let user = user("userId", &request.user_id)?;
        let after = match &*request.after_conversation_id {
            [] => None,
            id => Some(conversation(id)?),
        };
        let page = app::list_conversations(&self.app, user, after, request.limit).await;
        Ok(Response::new(page.map_err(refused)?))
    }
}

fn user(field: &'static str, id: &[u8]) -> Result<UserId, Status> {
    UserId::from_bytes(id).map_err(|reason| refused(ConversationError::Id { field, reason }))
}

fn conversation(id: &[u8]) -> Result<ConversationId, Status> {
    let field = "conversationId";
    ConversationId::from_bytes(id).map_err(|reason| refused(ConversationError::Id { field, reason }))
}

fn role(number: i32) -> Result<Role, Status> {
    Role::try_from(number).map_err(|_| refused(Rejection::NoRole))
}

fn refused(error: impl Into<ConversationError>) -> Status {
    error.into().to_status()
}
