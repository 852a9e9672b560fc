//! One node with conversations over the embedded engine; accounts are a double.

use std::{path::Path, time::Duration};

use antiphon_conversation::{ConversationOptions, ConversationService, carrier};
use antiphon_directory::{Route, SlotRoute, Table, TableWatch};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_proto::{
    log::Role,
    refusal,
    rpc::{
        CheckMembersRequest, CreateAccountRequest, CreateAccountResponse, CreateGroupRequest, GetAccountRequest,
        GetAccountResponse, JwksRequest, JwksResponse, ListConversationsRequest, ListMembersRequest, LogInRequest,
        LogOutRequest, LogOutResponse, MemberEntry, MembershipEntry, OpenDirectRequest, OpenDirectResponse,
        RefreshRequest, RegisterRequest, RegisterResponse, RemoveMemberRequest, ResolveRequest, ResolveResponse,
        RotateKeysRequest, RotateKeysResponse, SigningKeysRequest, SigningKeysResponse, Tokens,
        conversation_client::ConversationClient,
        conversation_server::ConversationServer,
        identity_server::{Identity, IdentityServer},
    },
};
use antiphon_slot::{Hooks, SlotOptions, Slots, protocol::InSync};
use antiphon_types::{Clock, ConversationId, Slot, UserId};
use tonic::{Request, Response, Status, service::Routes};

pub struct World {
    pub slots: Slots,
    pub route: Route,
}

/// A user whose account exists.
pub fn user(number: u16) -> UserId {
    UserId::new(Slot::new(number * 37 % 4096).unwrap(), 1_000, u64::from(number))
}

/// A user without an account.
pub fn nobody() -> UserId {
    UserId::new(Slot::new(99).unwrap(), 1_000, u64::MAX)
}

pub fn group(number: u16) -> ConversationId {
    ConversationId::new(Slot::new(number * 53 % 4096).unwrap(), 1_000, u64::from(number))
}

pub fn ids(users: impl IntoIterator<Item = u16>) -> Vec<UserId> {
    users.into_iter().map(user).collect()
}

pub fn code(status: &Status) -> String {
    refusal::of(status).code
}

pub async fn open(path: &Path) -> Kv {
    let options = EmbeddedOptions {
        path: path.to_owned(),
        ..EmbeddedOptions::default()
    };
    Kv::open_embedded(options).await.unwrap()
}

impl World {
    pub async fn start(path: &Path) -> Self {
        Self::over(open(path).await, 1)
    }

    pub fn over(kv: Kv, owner: u8) -> Self {
        let route = Route::new("r0", TableWatch::new(Table::single("r0")));
        let slots = Slots::start(
            kv,
            SlotOptions::default(),
            [owner; 16],
            Hooks {
                carriers: vec![carrier(route.clone())],
                ..Hooks::default()
            },
        );
        grant_all(&slots);
        let identity = IdentityServer::new(Accounts);
        route.serve(Routes::new(identity).add_service(server(&slots, &route)));
        Self { slots, route }
    }

    pub fn at(&self, slot: Slot) -> ConversationClient<SlotRoute> {
        ConversationClient::new(self.route.to(slot))
    }

    pub async fn open_direct(&self, creator: UserId, peer: UserId) -> Result<OpenDirectResponse, Status> {
        let request = OpenDirectRequest {
            creator_id: creator.to_bytes(),
            peer_id: peer.to_bytes(),
        };
        let answer = self.at(creator.min(peer).slot()).open_direct(request).await?;
        Ok(answer.into_inner())
    }

    pub async fn create_group(
        &self,
        id: ConversationId,
        creator: UserId,
        members: &[UserId],
        title: &str,
    ) -> Result<(), Status> {
        let request = CreateGroupRequest {
            conversation_id: id.to_bytes(),
            creator_id: creator.to_bytes(),
            member_ids: members.iter().map(UserId::to_bytes).collect(),
            title: title.to_owned(),
        };
        self.at(id.slot()).create_group(request).await?;
        Ok(())
    }

    pub async fn remove(&self, id: ConversationId, actor: UserId, user: UserId) -> Result<(), Status> {
        let request = RemoveMemberRequest {
            conversation_id: id.to_bytes(),
            actor_id: actor.to_bytes(),
            user_id: user.to_bytes(),
        };
        self.at(id.slot()).remove_member(request).await?;
        Ok(())
    }

    /// All members, read in pages of two.
    pub async fn members(&self, id: ConversationId, actor: UserId) -> Result<Vec<MemberEntry>, Status> {
        let mut members: Vec<MemberEntry> = Vec::new();
        loop {
            let after_user_id = members.last().map(|member| member.user_id.clone()).unwrap_or_default();
            let request = ListMembersRequest {
                conversation_id: id.to_bytes(),
                actor_id: actor.to_bytes(),
                after_user_id,
                limit: 2,
            };
            let page = self.at(id.slot()).list_members(request).await?.into_inner();
            members.extend(page.members);
            if !page.more {
                return Ok(members);
            }
        }
    }

    pub async fn roles(&self, id: ConversationId, actor: UserId) -> Vec<(UserId, Role)> {
        let members = self.members(id, actor).await.unwrap();
        let role = |member: &MemberEntry| (UserId::from_bytes(&member.user_id).unwrap(), member.role());
        members.iter().map(role).collect()
    }

    /// All conversations of a user, read in pages of two.
    pub async fn listed(&self, user: UserId) -> Vec<MembershipEntry> {
        let mut listed: Vec<MembershipEntry> = Vec::new();
        loop {
            let after_conversation_id = listed
                .last()
                .map(|entry| entry.conversation_id.clone())
                .unwrap_or_default();
            let request = ListConversationsRequest {
                user_id: user.to_bytes(),
                after_conversation_id,
                limit: 2,
            };
            let page = self
                .at(user.slot())
                .list_conversations(request)
                .await
                .unwrap()
                .into_inner();
            listed.extend(page.memberships);
            if !page.more {
                return listed;
            }
        }
    }

    pub async fn listed_ids(&self, user: UserId) -> Vec<ConversationId> {
        let listed = self.listed(user).await;
        let id = |entry: &MembershipEntry| ConversationId::from_bytes(&entry.conversation_id).unwrap();
        listed.iter().map(id).collect()
    }

    pub async fn is_member(&self, id: ConversationId, user: UserId) -> bool {
        let request = CheckMembersRequest {
            conversation_id: id.to_bytes(),
            user_ids: vec![user.to_bytes()],
        };
        let answer = self.at(id.slot()).check_members(request).await.unwrap();
        !answer.into_inner().member_ids.is_empty()
    }
}

pub fn grant_all(slots: &Slots) {
    for slot in Slot::all() {
        slots.grant(slot, 1, InSync::alone());
    }
}

pub fn server(slots: &Slots, route: &Route) -> ConversationServer<ConversationService> {
    let options = ConversationOptions {
        carried_timeout: Duration::from_secs(20),
        ..ConversationOptions::default()
    };
    ConversationService::new(slots.clone(), route.clone(), Clock::manual(5_000), options).into_server()
}

/// Everybody has an account but [`nobody`].
pub struct Accounts;

#[tonic::async_trait]
impl Identity for Accounts {
    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<GetAccountResponse>, Status> {
        let user_id = request.into_inner().user_id;
        if user_id == nobody().to_bytes() {
            return Err(refusal::status("NOT_FOUND", "no such account", None));
        }
        Ok(Response::new(GetAccountResponse {
            user_id,
            ..GetAccountResponse::default()
        }))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("register"))
    }
    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        Err(Status::unimplemented("resolve"))
    }
    async fn create_account(
        &self,
        _: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        Err(Status::unimplemented("create_account"))
    }
    async fn log_in(&self, _: Request<LogInRequest>) -> Result<Response<Tokens>, Status> {
        Err(Status::unimplemented("log_in"))
    }
    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<Tokens>, Status> {
        Err(Status::unimplemented("refresh"))
    }
    async fn log_out(&self, _: Request<LogOutRequest>) -> Result<Response<LogOutResponse>, Status> {
        Err(Status::unimplemented("log_out"))
    }
    async fn jwks(&self, _: Request<JwksRequest>) -> Result<Response<JwksResponse>, Status> {
        Err(Status::unimplemented("jwks"))
    }
    async fn signing_keys(&self, _: Request<SigningKeysRequest>) -> Result<Response<SigningKeysResponse>, Status> {
        Err(Status::unimplemented("signing_keys"))
    }
    async fn rotate_keys(&self, _: Request<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        Err(Status::unimplemented("rotate_keys"))
    }
}
