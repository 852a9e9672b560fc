use antiphon_directory::SlotRoute;
use antiphon_proto::{
    log::{Kind, Role},
    rpc::{
        AddMemberRequest, CheckMembersRequest, CreateGroupRequest, ListConversationsRequest, ListMembersRequest,
        ListMembersResponse, OpenDirectRequest, RemoveMemberRequest, SetRoleRequest,
        conversation_client::ConversationClient,
    },
};
use antiphon_session::Refusal;
use antiphon_types::{ConversationId, Slot, Title, UserId};
use bytes::Bytes;

use super::{ANSWER_BYTES_MAX, Calls, conversation, user, user_bytes};

/// Users that one CheckMembers names.
const CHECKED_MAX: usize = 200;
/// Conversations on one page of a user's list.
const PAGE_LEN: u32 = 500;

/// One entry of a user's own list.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) conversation_id: ConversationId,
    pub(crate) role: Role,
    pub(crate) kind: Kind,
    pub(crate) title: String,
    pub(crate) peer_id: Option<UserId>,
    pub(crate) version: u64,
    pub(crate) joined_at_ms: u64,
}

impl Calls {
    /// Finds or creates the direct conversation of two users; true when it is new.
    pub(crate) async fn open_direct(&self, creator: UserId, peer: UserId) -> Result<(ConversationId, bool), Refusal> {
        let request = OpenDirectRequest {
            creator_id: creator.to_bytes(),
            peer_id: peer.to_bytes(),
        };
        // The pair's index lives with the smaller id, so that both sides meet there (I8).
        let mut client = self.conversation(creator.min(peer).slot());
        let response = self.answer(client.open_direct(request)).await?;
        Ok((conversation(&response.conversation_id)?, response.created))
    }

    pub(crate) async fn create_group(
        &self,
        id: ConversationId,
        creator: UserId,
        members: &[UserId],
        title: &Title,
    ) -> Result<(), Refusal> {
        let request = CreateGroupRequest {
            conversation_id: id.to_bytes(),
            creator_id: creator.to_bytes(),
            member_ids: user_bytes(members),
            title: title.to_string(),
        };
        let mut client = self.conversation(id.slot());
        self.answer(client.create_group(request)).await?;
        Ok(())
    }

    pub(crate) async fn add_member(
        &self,
        id: ConversationId,
        actor: UserId,
        who: UserId,
        role: Role,
    ) -> Result<(), Refusal> {
        let request = AddMemberRequest {
            conversation_id: id.to_bytes(),
            actor_id: actor.to_bytes(),
            user_id: who.to_bytes(),
            role: role.into(),
        };
        let mut client = self.conversation(id.slot());
        self.answer(client.add_member(request)).await?;
        Ok(())
    }

    pub(crate) async fn remove_member(&self, id: ConversationId, actor: UserId, who: UserId) -> Result<(), Refusal> {
        let request = RemoveMemberRequest {
            conversation_id: id.to_bytes(),
            actor_id: actor.to_bytes(),
            user_id: who.to_bytes(),
        };
        let mut client = self.conversation(id.slot());
        self.answer(client.remove_member(request)).await?;
        Ok(())
    }

    pub(crate) async fn set_role(
        &self,
        id: ConversationId,
        actor: UserId,
        who: UserId,
        role: Role,
    ) -> Result<(), Refusal> {
        let request = SetRoleRequest {
            conversation_id: id.to_bytes(),
            actor_id: actor.to_bytes(),
            user_id: who.to_bytes(),
            role: role.into(),
        };
        let mut client = self.conversation(id.slot());
        self.answer(client.set_role(request)).await?;
        Ok(())
    }

    pub(crate) async fn list_members(
        &self,
        id: ConversationId,
        actor: UserId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<ListMembersResponse, Refusal> {
        let request = ListMembersRequest {
            conversation_id: id.to_bytes(),
            actor_id: actor.to_bytes(),
            after_user_id: after.map(|after| after.to_bytes()).unwrap_or_default(),
            limit,
        };
        let mut client = self.conversation(id.slot());
        self.answer(client.list_members(request)).await
    }

    /// Which of the users are members now.
    pub(crate) async fn check_members(&self, id: ConversationId, users: &[UserId]) -> Result<Vec<UserId>, Refusal> {
        let mut members = Vec::with_capacity(users.len());
        for some in users.chunks(CHECKED_MAX) {
            let request = CheckMembersRequest {
                conversation_id: id.to_bytes(),
                user_ids: user_bytes(some),
            };
            let mut client = self.conversation(id.slot());
            let response = self.answer(client.check_members(request)).await?;
            for member in response.member_ids {
                members.push(user(&member)?);
            }
        }
        Ok(members)
    }

    /// A user's own list, up to `conversations_max`.
    pub(crate) async fn memberships(&self, who: UserId, conversations_max: usize) -> Result<Vec<Membership>, Refusal> {
        let mut memberships = Vec::new();
        let mut after = Bytes::new();
        loop {
            let request = ListConversationsRequest {
                user_id: who.to_bytes(),
                after_conversation_id: after,
                limit: PAGE_LEN,
            };
            let mut client = self.conversation(who.slot());
            let page = self.answer(client.list_conversations(request)).await?;
            let Some(last) = page.memberships.last() else {
                return Ok(memberships);
            };
            after = last.conversation_id.clone();
            for entry in page.memberships {
                let Some(membership) = entry.membership else { continue };
                if membership.role() == Role::None {
                    continue;
                }
                memberships.push(Membership {
                    conversation_id: conversation(&entry.conversation_id)?,
                    role: membership.role(),
                    kind: membership.kind(),
                    peer_id: UserId::from_bytes(&membership.peer_id).ok(),
                    version: membership.version,
                    joined_at_ms: membership.joined_at_ms,
                    title: membership.title,
                });
            }
            if !page.more || memberships.len() >= conversations_max {
                memberships.truncate(conversations_max);
                return Ok(memberships);
            }
        }
    }

    fn conversation(&self, slot: Slot) -> ConversationClient<SlotRoute> {
        ConversationClient::new(self.route.to(slot)).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}
