use std::{collections::BTreeSet, sync::Arc};

use antiphon_proto::log::{Conversation, Kind};
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, LogIndex, TimestampMs, Title, UserId};

use super::App;
use crate::{
    ConversationError, ConversationOptions, Rejection,
    adapters::{peers, store},
    domain::{self, Change},
};

/// Bytes of a log entry that a founding member takes without the title: key and value, event, trace context.
const FOUNDING_MEMBER_BYTES: usize = 230;

/// A group to be created.
#[derive(Debug, Clone)]
pub(crate) struct CreateGroup {
    pub(crate) conversation: ConversationId,
    pub(crate) creator: UserId,
    pub(crate) members: BTreeSet<UserId>,
    pub(crate) title: Title,
}

/// Creates a group with its creator as owner. The same request again changes nothing.
pub(crate) async fn create_group(app: &App, command: CreateGroup) -> Result<(), ConversationError> {
    let CreateGroup {
        conversation,
        creator,
        mut members,
        title,
    } = command;
    members.insert(creator);
    let members: Vec<UserId> = members.into_iter().collect();
    within_limits(&app.options, members.len(), &title)?;
    peers::accounts_exist(&app.route, &members).await?;

    let now_ms = app.clock.now_ms();
    let change = Arc::new(domain::found_group(creator, &members, now_ms));
    let slot = conversation.slot();
    let found = move |txn| found(txn, conversation, creator, title.clone(), change.clone(), now_ms);
    let changed_index = app.slots.write(slot, found).await?.value;
    app.listed(slot, changed_index).await;
    Ok(())
}

fn within_limits(options: &ConversationOptions, members: usize, title: &Title) -> Result<(), Rejection> {
    if members > options.request_users_max {
        return Err(Rejection::TooManyUsers {
            count: members,
            limit: options.request_users_max,
        });
    }
    let title_bytes = title.as_str().len();
    if members * (FOUNDING_MEMBER_BYTES + title_bytes) > options.founding_bytes_max {
        return Err(Rejection::FoundingTooLarge { members, title_bytes });
    }
    Ok(())
}

/// Returns the log index that made the members what they are.
async fn found(
    txn: SlotTxn,
    id: ConversationId,
    creator: UserId,
    title: Title,
    change: Arc<Change>,
    now_ms: TimestampMs,
) -> Result<LogIndex, ConversationError> {
    if let Some(existing) = store::conversation(&txn, id).await? {
        let same = existing.kind() == Kind::Group && existing.creator_id == creator.as_bytes().as_slice();
        return if same {
            Ok(existing.changed_index)
        } else {
            Err(Rejection::Exists { conversation: id }.into())
        };
    }
    let conversation = Conversation {
        kind: Kind::Group.into(),
        title: title.as_str().to_owned(),
        created_at_ms: now_ms,
        creator_id: creator.to_bytes(),
        ..Conversation::default()
    };
    Ok(store::apply(&txn, id, conversation, &change, now_ms))
}
