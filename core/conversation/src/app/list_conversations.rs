use antiphon_kv::RangeRead;
use antiphon_proto::{
    log::{Membership, Role},
    rpc::{ListConversationsResponse, MembershipEntry},
};
use antiphon_slot::SlotRead;
use antiphon_types::{ConversationId, UserId};

use super::App;
use crate::{
    ConversationError,
    adapters::{keys, store},
};

/// Lists a page of the conversations a user is a member of, in the order of their ids.
pub(crate) async fn list_conversations(
    app: &App,
    user: UserId,
    after: Option<ConversationId>,
    limit: u32,
) -> Result<ListConversationsResponse, ConversationError> {
    let limit = app.page_len(limit);
    app.slots.read(user.slot(), |read| page(read, user, after, limit)).await
}

async fn page(
    read: SlotRead,
    user: UserId,
    after: Option<ConversationId>,
    limit: usize,
) -> Result<ListConversationsResponse, ConversationError> {
    let (mut start, end) = keys::memberships(user, after);
    let mut memberships: Vec<MembershipEntry> = Vec::new();
    loop {
        let range = RangeRead {
            start,
            end: end.clone(),
            limit: limit + 1,
            reverse: false,
        };
        let page = read.range(range).await?;
        for pair in &page.pairs {
            let membership: Membership = store::decode("a membership", pair.value.clone())?;
            if membership.role() == Role::None {
                continue;
            }
            if memberships.len() == limit {
                return Ok(ListConversationsResponse {
                    memberships,
                    more: true,
                });
            }
            memberships.push(MembershipEntry {
                conversation_id: keys::membership_conversation(&pair.key)?.to_bytes(),
                membership: Some(membership),
            });
        }
        let Some(last) = page.pairs.last().filter(|_| page.more) else {
            return Ok(ListConversationsResponse {
                memberships,
                more: false,
            });
        };
        start = keys::next(&last.key);
    }
}
