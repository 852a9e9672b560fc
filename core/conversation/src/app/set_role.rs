use antiphon_proto::log::Role;
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, LogIndex, TimestampMs, UserId};

use super::{App, view};
use crate::{ConversationError, adapters::store, domain};

/// A member's role to be changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetRole {
    pub(crate) conversation: ConversationId,
    pub(crate) actor: UserId,
    pub(crate) user: UserId,
    pub(crate) role: Role,
}

/// Gives a member of a group another role.
pub(crate) async fn set_role(app: &App, command: SetRole) -> Result<(), ConversationError> {
    let now_ms = app.clock.now_ms();
    let slot = command.conversation.slot();
    let changed_index = app.slots.write(slot, move |txn| set(txn, command, now_ms)).await?.value;
    app.listed(slot, changed_index).await;
    Ok(())
}

async fn set(txn: SlotTxn, command: SetRole, now_ms: TimestampMs) -> Result<LogIndex, ConversationError> {
    let SetRole {
        conversation: id,
        actor,
        user,
        role,
    } = command;
    let (conversation, view) = view(&txn, id, actor, user).await?;
    let change = domain::set_role(&view, user, role)?;
    Ok(store::apply(&txn, id, conversation, &change, now_ms))
}
