use antiphon_proto::log::{Membership, MembershipChanged, MembershipListed, event};
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, UserId};

use super::App;
use crate::{
    ConversationError,
    adapters::{keys, store},
    domain,
};

/// Keeps a user's own list of conversations: takes in a change that is newer than what the list holds, and says so to who
/// follows the user.
pub(crate) async fn list_membership(
    app: &App,
    user: UserId,
    conversation: ConversationId,
    change: MembershipChanged,
) -> Result<(), ConversationError> {
    let list = move |txn| list(txn, user, conversation, change.clone());
    app.slots.write(user.slot(), list).await?;
    Ok(())
}

async fn list(
    txn: SlotTxn,
    user: UserId,
    conversation: ConversationId,
    change: MembershipChanged,
) -> Result<(), ConversationError> {
    let key = keys::membership(user, conversation);
    let listed: Option<Membership> = store::decoded("a membership", txn.get(&key).await?)?;
    let Some(merged) = domain::merge(listed.as_ref(), &change) else {
        return Ok(());
    };
    txn.set(key, store::encode(&merged));
    txn.emit(event::Body::MembershipListed(MembershipListed { change: Some(change) }));
    Ok(())
}
