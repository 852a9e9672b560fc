use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, LogIndex, TimestampMs, UserId};

use super::{App, view};
use crate::{ConversationError, adapters::store, domain};

/// Removes a member from a group; removing oneself is leaving.
pub(crate) async fn remove_member(
    app: &App,
    conversation: ConversationId,
    actor: UserId,
    user: UserId,
) -> Result<(), ConversationError> {
    let now_ms = app.clock.now_ms();
    let slot = conversation.slot();
    let remove = move |txn| remove(txn, conversation, actor, user, now_ms);
    let changed_index = app.slots.write(slot, remove).await?.value;
    app.listed(slot, changed_index).await;
    Ok(())
}

async fn remove(
    txn: SlotTxn,
    id: ConversationId,
    actor: UserId,
    user: UserId,
    now_ms: TimestampMs,
) -> Result<LogIndex, ConversationError> {
    let (conversation, view) = view(&txn, id, actor, user).await?;
    let heir = if view.needs_heir() {
        store::heir(&txn, id, user).await?
    } else {
        None
    };
    let change = domain::remove(&view, heir)?;
    Ok(store::apply(&txn, id, conversation, &change, now_ms))
}
