use antiphon_proto::log::{Conversation, Kind};
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, LogIndex, TimestampMs, UserId};

use super::App;
use crate::{ConversationError, adapters::store, domain};

/// A direct conversation to be created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CreateDirect {
    pub(crate) conversation: ConversationId,
    pub(crate) creator: UserId,
    pub(crate) peer: UserId,
    pub(crate) created_at_ms: TimestampMs,
    /// Whether the answer waits for both users' lists.
    pub(crate) await_listed: bool,
}

/// Creates a direct conversation in its own slot; one that exists stays as it is.
pub(crate) async fn create_direct(app: &App, command: CreateDirect) -> Result<(), ConversationError> {
    let slot = command.conversation.slot();
    let changed_index = app.slots.write(slot, move |txn| create(txn, command)).await?.value;
    if command.await_listed {
        app.listed(slot, changed_index).await;
    }
    Ok(())
}

/// Returns the log index that made the members what they are.
async fn create(txn: SlotTxn, command: CreateDirect) -> Result<LogIndex, ConversationError> {
    if let Some(existing) = store::conversation(&txn, command.conversation).await? {
        return Ok(existing.changed_index);
    }
    let conversation = Conversation {
        kind: Kind::Direct.into(),
        created_at_ms: command.created_at_ms,
        creator_id: command.creator.to_bytes(),
        ..Conversation::default()
    };
    let change = domain::open_direct(command.creator, command.peer, command.created_at_ms);
    Ok(store::apply(
        &txn,
        command.conversation,
        conversation,
        &change,
        command.created_at_ms,
    ))
}
