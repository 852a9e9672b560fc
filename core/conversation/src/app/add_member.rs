use antiphon_proto::log::Role;
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, LogIndex, TimestampMs, UserId};

use super::{App, view};
use crate::{
    ConversationError,
    adapters::{peers, store},
    domain, membership,
};

/// A user to be added to a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddMember {
    pub(crate) conversation: ConversationId,
    pub(crate) actor: UserId,
    pub(crate) user: UserId,
    pub(crate) role: Role,
}

/// Adds a user to a group; who is a member already stays as is.
pub(crate) async fn add_member(app: &App, command: AddMember) -> Result<(), ConversationError> {
    let AddMember {
        conversation, actor, ..
    } = command;
    let slot = conversation.slot();
    // Who is not a member learns nothing here, not even which accounts exist.
    app.slots
        .read(slot, |read| async move {
            membership::member_at(&read, conversation, actor).await
        })
        .await?;
    peers::accounts_exist(&app.route, &[command.user]).await?;

    let now_ms = app.clock.now_ms();
    let members_max = app.options.members_max;
    let add = move |txn| add(txn, command, now_ms, members_max);
    let changed_index = app.slots.write(slot, add).await?.value;
    app.listed(slot, changed_index).await;
    Ok(())
}

async fn add(
    txn: SlotTxn,
    command: AddMember,
    now_ms: TimestampMs,
    members_max: u32,
) -> Result<LogIndex, ConversationError> {
    let AddMember {
        conversation: id,
        actor,
        user,
        role,
    } = command;
    let (conversation, view) = view(&txn, id, actor, user).await?;
    let change = domain::add(&view, user, role, now_ms, members_max)?;
    Ok(store::apply(&txn, id, conversation, &change, now_ms))
}
