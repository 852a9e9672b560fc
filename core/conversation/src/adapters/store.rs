//! Conversations, members and lists as the slot stores them.

use antiphon_kv::RangeRead;
use antiphon_proto::log::{Conversation, Kind, Member, MembershipChanged, Role, event};
use antiphon_slot::{SlotError, SlotTxn};
use antiphon_types::{ConversationId, LogIndex, TimestampMs, UserId};
use bytes::Bytes;
use prost::Message;

use crate::{
    adapters::keys,
    domain::{self, Census, Change, Standing},
};

/// Members read at once in the search of an heir.
const HEIR_PAGE_LEN: usize = 500;

/// Reads a conversation.
pub(crate) async fn conversation(txn: &SlotTxn, id: ConversationId) -> Result<Option<Conversation>, SlotError> {
    decoded("a conversation", txn.get(&keys::conversation(id)).await?)
}

/// Reads one member's standing; none for who is not a member.
pub(crate) async fn standing(txn: &SlotTxn, id: ConversationId, user: UserId) -> Result<Option<Standing>, SlotError> {
    let member = decoded::<Member>("a member", txn.get(&keys::member(id, user)).await?)?;
    Ok(member.map(|member| standing_of(user, &member)))
}

/// Searches the members for who inherits the group from `leaving`.
pub(crate) async fn heir(txn: &SlotTxn, id: ConversationId, leaving: UserId) -> Result<Option<Standing>, SlotError> {
    let (mut start, end) = keys::members(id, None);
    let mut found: Option<Standing> = None;
    loop {
        let range = RangeRead {
            start,
            end: end.clone(),
            limit: HEIR_PAGE_LEN,
            reverse: false,
        };
        let page = txn.range(range).await?;
        for pair in &page.pairs {
            let user = keys::member_user(&pair.key)?;
            if user != leaving {
                let candidate = standing_of(user, &decode("a member", pair.value.clone())?);
                found = Some(found.map_or(candidate, |best| domain::heir(best, candidate)));
            }
        }
        let Some(last) = page.pairs.last().filter(|_| page.more) else {
            return Ok(found);
        };
        start = keys::next(&last.key);
    }
}

/// Writes a change of members with the event of each move, and the conversation with its new counts. Returns the log index
/// that made the members what they are, which is an older one when nothing changes.
pub(crate) fn apply(
    txn: &SlotTxn,
    id: ConversationId,
    mut conversation: Conversation,
    change: &Change,
    now_ms: TimestampMs,
) -> LogIndex {
    if change.moves.is_empty() {
        return conversation.changed_index;
    }
    for step in &change.moves {
        let Standing {
            user,
            role,
            joined_at_ms,
        } = step.standing;
        let stays = role != Role::None;
        let key = keys::member(id, user);
        if stays {
            let member = Member {
                role: role.into(),
                joined_at_ms,
                version: step.version,
            };
            txn.set(key, encode(&member));
        } else {
            txn.clear(key);
        }
        txn.emit(event::Body::MembershipChanged(MembershipChanged {
            conversation_id: id.to_bytes(),
            user_id: user.to_bytes(),
            version: step.version,
            role: role.into(),
            kind: conversation.kind,
            title: conversation.title.clone(),
            peer_id: peer_of(user, &conversation, change),
            changed_at_ms: now_ms,
            joined_at_ms: if stays { joined_at_ms } else { 0 },
        }));
    }
    conversation.version = change.census.version;
    conversation.member_count = change.census.member_count;
    conversation.owner_count = change.census.owner_count;
    conversation.changed_index = txn.index();
    txn.set(keys::conversation(id), encode(&conversation));
    conversation.changed_index
}

/// The counts of a stored conversation.
pub(crate) const fn census(conversation: &Conversation) -> Census {
    Census {
        version: conversation.version,
        member_count: conversation.member_count,
        owner_count: conversation.owner_count,
    }
}

/// Reads a stored value that may be absent; `what` names it where it cannot be read.
pub(crate) fn decoded<M: Message + Default>(what: &str, stored: Option<Bytes>) -> Result<Option<M>, SlotError> {
    stored.map(|value| decode(what, value)).transpose()
}

/// Reads a stored value; `what` names it where it cannot be read.
pub(crate) fn decode<M: Message + Default>(what: &str, value: Bytes) -> Result<M, SlotError> {
    M::decode(value).map_err(|error| SlotError::Corrupt {
        what: what.to_owned(),
        reason: error.to_string(),
    })
}

/// The stored form.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn standing_of(user: UserId, member: &Member) -> Standing {
    Standing {
        user,
        role: member.role(),
        joined_at_ms: member.joined_at_ms,
    }
}

/// The other one of a direct conversation, whose two members are made by one change; empty in a group.
fn peer_of(user: UserId, conversation: &Conversation, change: &Change) -> Bytes {
    if conversation.kind() != Kind::Direct {
        return Bytes::new();
    }
    let peer = change
        .moves
        .iter()
        .map(|step| step.standing.user)
        .find(|other| *other != user);
    peer.map_or_else(Bytes::new, |peer| peer.to_bytes())
}
