//! A user's conversations, most recently active first.

use std::collections::BTreeMap;

use antiphon_proto::{
    client::{ConversationSummary, Conversations},
    rpc::Summary,
};
use antiphon_session::Refusal;
use antiphon_types::{ConversationId, ErrorCode, TimestampMs, UserId};

use crate::{
    calls::{Calls, Membership, Summaries},
    hub::{kind_name, role_name},
};

const PAGE_LEN: u32 = 100;
const PAGE_LEN_MAX: u32 = 500;

/// Reads one page. `limit` 0 means the default; `cursor` is `next` of the page before.
pub(crate) async fn page(
    calls: &Calls,
    who: UserId,
    limit: u32,
    cursor: &str,
    conversations_max: usize,
) -> Result<Conversations, Refusal> {
    let after = Place::parse(cursor)?;
    let memberships = calls.memberships(who, conversations_max).await?;
    let summaries = calls
        .summaries(who, memberships.iter().map(|membership| membership.conversation_id))
        .await;
    Ok(cut(sorted(memberships, summaries), limit, after))
}

/// Where a conversation stands in the list: by its last activity, newest first, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    before_ms: std::cmp::Reverse<TimestampMs>,
    id: ConversationId,
}

impl Place {
    fn of(active_at_ms: TimestampMs, id: ConversationId) -> Self {
        Self {
            before_ms: std::cmp::Reverse(active_at_ms),
            id,
        }
    }

    fn parse(cursor: &str) -> Result<Option<Self>, Refusal> {
        if cursor.is_empty() {
            return Ok(None);
        }
        let place = cursor
            .split_once('.')
            .and_then(|(active_at_ms, id)| Some(Self::of(active_at_ms.parse().ok()?, ConversationId::parse(id).ok()?)));
        match place {
            Some(place) => Ok(Some(place)),
            None => Err(Refusal::new(
                ErrorCode::InvalidArgument,
                "the cursor is not the `next` of a page",
            )),
        }
    }

    fn cursor(&self) -> String {
        format!("{}.{}", self.before_ms.0, self.id)
    }
}

fn sorted(memberships: Vec<Membership>, mut summaries: Summaries) -> BTreeMap<Place, ConversationSummary> {
    let listed = memberships.into_iter().filter_map(|membership| {
        let id = membership.conversation_id;
        if summaries.unavailable.contains_key(&id) {
            let place = Place::of(membership.joined_at_ms, id);
            let unknown = ConversationSummary {
                unavailable: true,
                ..listed(membership, Summary::default())
            };
            return Some((place, unknown));
        }
        // No summary, or one that says so: the user was removed a moment ago.
        let summary = summaries.known.remove(&id).filter(|summary| summary.member)?;
        let sent_at_ms = summary.last_message.as_ref().map(|message| message.sent_at_ms);
        let place = Place::of(sent_at_ms.unwrap_or(membership.joined_at_ms), id);
        Some((place, listed(membership, summary)))
    });
    listed.collect()
}

fn listed(membership: Membership, summary: Summary) -> ConversationSummary {
    ConversationSummary {
        conversation_id: membership.conversation_id.to_string(),
        kind: kind_name(membership.kind).to_owned(),
        title: membership.title,
        last_seq: summary.last_seq,
        read_seq: summary.read_seq,
        delivered_seq: summary.delivered_seq,
        unread: summary.last_seq.saturating_sub(summary.read_seq),
        last_message: summary.last_message,
        peer_id: membership.peer_id.map(|peer| peer.to_string()).unwrap_or_default(),
        role: role_name(membership.role).to_owned(),
        unavailable: false,
    }
}

fn cut(all: BTreeMap<Place, ConversationSummary>, limit: u32, after: Option<Place>) -> Conversations {
    let limit = if limit == 0 { PAGE_LEN } else { limit.min(PAGE_LEN_MAX) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rest = all
        .into_iter()
        .filter(|(place, _)| after.is_none_or(|after| *place > after));
    let (mut conversations, mut last) = (Vec::new(), None);
    for (place, summary) in rest.by_ref().take(limit) {
        last = Some(place);
        conversations.push(summary);
    }
    let next = match (rest.next(), last) {
        (Some(_), Some(last)) => last.cursor(),
        _ => String::new(),
    };
    Conversations { conversations, next }
}

#[cfg(test)]
mod tests {
    use antiphon_proto::{
        client::Message,
        log::{Kind, Role},
    };
    use antiphon_types::Slot;

    use super::*;

    fn id(number: u64) -> ConversationId {
        ConversationId::new(Slot::DEPLOYMENT, 1, number)
    }

    fn all(activity: &[(u64, Option<u64>)]) -> BTreeMap<Place, ConversationSummary> {
        all_but(&[], activity)
    }

    fn all_but(unavailable: &[u64], activity: &[(u64, Option<u64>)]) -> BTreeMap<Place, ConversationSummary> {
        let membership = |number| Membership {
            conversation_id: id(number),
            role: Role::Member,
            kind: Kind::Group,
            title: String::new(),
            peer_id: None,
            version: 1,
            joined_at_ms: 50,
        };
        let summary = |sent_at_ms: Option<u64>| Summary {
            member: true,
            last_seq: 9,
            read_seq: 4,
            last_message: sent_at_ms.map(|sent_at_ms| Message {
                sent_at_ms,
                ..Default::default()
            }),
            ..Default::default()
        };
        let memberships = activity.iter().map(|(number, _)| membership(*number)).collect();
        let known = activity
            .iter()
            .map(|(number, sent_at_ms)| (id(*number), summary(*sent_at_ms)))
            .collect();
        let unavailable = unavailable.iter().map(|number| (id(*number), 1_000)).collect();
        sorted(memberships, Summaries { known, unavailable })
    }

    #[test]
    fn pages_run_through_the_list_newest_first_and_miss_nothing() {
        let activity: Vec<_> = (0..25).map(|number| (number, Some(number / 3))).collect();
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = cut(all(&activity), 4, Place::parse(&cursor).unwrap());
            seen.extend(page.conversations.into_iter().map(|summary| summary.conversation_id));
            cursor = page.next;
            if cursor.is_empty() {
                break;
            }
        }
        let mut expected: Vec<_> = activity
            .iter()
            .map(|(number, at)| (std::cmp::Reverse(at.unwrap()), id(*number)))
            .collect();
        expected.sort();
        assert_eq!(seen, expected.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_conversation_without_messages_stands_where_it_was_joined() {
        let page = cut(all(&[(1, Some(40)), (2, None), (3, Some(60))]), 0, None);
        let order: Vec<_> = page
            .conversations
            .iter()
            .map(|summary| summary.conversation_id.clone())
            .collect();
        assert_eq!(order, [id(3), id(2), id(1)].map(|id| id.to_string()));
        assert_eq!(page.conversations[0].unread, 5);
    }

    #[test]
    fn a_conversation_that_cannot_be_read_is_listed_and_says_nothing_else() {
        let page = cut(all_but(&[2], &[(1, Some(40)), (2, Some(90)), (3, Some(60))]), 0, None);
        let order: Vec<_> = page.conversations.iter().map(|it| it.conversation_id.clone()).collect();
        assert_eq!(order, [id(3), id(2), id(1)].map(|id| id.to_string()));
        let unknown = &page.conversations[1];
        assert!(unknown.unavailable && unknown.last_message.is_none() && unknown.kind == "group");
        assert_eq!((unknown.last_seq, unknown.unread), (0, 0));
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        assert!(
            ["x", "1.", "1.c_1", ".c_00000000000000000000000000"]
                .iter()
                .all(|cursor| Place::parse(cursor).is_err())
        );
    }
}
