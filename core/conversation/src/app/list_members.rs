use antiphon_kv::RangeRead;
use antiphon_proto::{
    log::{Conversation, Member},
    rpc::{ListMembersResponse, MemberEntry},
};
use antiphon_slot::SlotRead;
use antiphon_types::{ConversationId, UserId};

use super::App;
use crate::{
    ConversationError,
    adapters::{keys, store},
    membership,
};

/// Lists a page of the members, in the order of their ids, to a member.
pub(crate) async fn list_members(
    app: &App,
    conversation: ConversationId,
    actor: UserId,
    after: Option<UserId>,
    limit: u32,
) -> Result<ListMembersResponse, ConversationError> {
    let limit = app.page_len(limit);
    app.slots
        .read(conversation.slot(), |read| {
            page(read, conversation, actor, after, limit)
        })
        .await
}

async fn page(
    read: SlotRead,
    id: ConversationId,
    actor: UserId,
    after: Option<UserId>,
    limit: usize,
) -> Result<ListMembersResponse, ConversationError> {
    membership::member_at(&read, id, actor).await?;
    let stored = read.get(&keys::conversation(id)).await?;
    let conversation = store::decoded::<Conversation>("a conversation", stored)?.unwrap_or_default();

    let (mut start, end) = keys::members(id, after);
    let mut members: Vec<MemberEntry> = Vec::new();
    // A page of the store may be cut by bytes before it holds as many as were asked for.
    let more = loop {
        let range = RangeRead {
            start,
            end: end.clone(),
            limit: limit - members.len(),
            reverse: false,
        };
        let page = read.range(range).await?;
        for pair in &page.pairs {
            let member: Member = store::decode("a member", pair.value.clone())?;
            members.push(MemberEntry {
                user_id: keys::member_user(&pair.key)?.to_bytes(),
                role: member.role,
                joined_at_ms: member.joined_at_ms,
            });
        }
        match page.pairs.last() {
            Some(last) if page.more && members.len() < limit => start = keys::next(&last.key),
            Some(_) | None => break page.more,
        }
    };
    Ok(ListMembersResponse {
        members,
        more,
        kind: conversation.kind,
        title: conversation.title,
    })
}
