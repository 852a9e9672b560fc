use antiphon_conversation::membership;
use antiphon_proto::{
    log::{Inbox, StoredMessage},
    rpc::Summary,
};
use antiphon_slot::{SlotRead, Slots};
use antiphon_types::{ConversationId, Slot, UserId};

use crate::{
    MessageError,
    adapters::{keys, store},
    app,
};

/// What a member sees of conversations of one slot without opening them.
pub(crate) async fn summaries(
    slots: &Slots,
    slot: Slot,
    user: UserId,
    conversations: &[ConversationId],
) -> Result<Vec<Summary>, MessageError> {
    slots
        .read_filtered(slot, |read| async move {
            let mut summaries = Vec::with_capacity(conversations.len());
            for conversation in conversations {
                summaries.push(summary(&read, *conversation, user).await?);
            }
            Ok(summaries)
        })
        .await
}

async fn summary(read: &SlotRead, conversation: ConversationId, user: UserId) -> Result<Summary, MessageError> {
    let unknown = Summary {
        conversation_id: conversation.to_bytes(),
        ..Summary::default()
    };
    if membership::role_at(read, conversation, user).await?.is_none() {
        return Ok(unknown);
    }
    let tail = app::tail(read, conversation).await?;
    let inbox: Inbox =
        store::decoded("an inbox", read.get(&keys::inbox(conversation, user)).await?)?.unwrap_or_default();
    let last_message = match read.get(&keys::message(conversation, tail.last_seq)).await? {
        Some(value) => {
            let stored: StoredMessage = store::decode("a message", value)?;
            Some(store::shown(conversation, tail.last_seq, stored)?)
        }
        None => None,
    };
    Ok(Summary {
        last_seq: tail.last_seq,
        first_seq: tail.first_seq,
        // A receipt of a message that is not visible yet is not either (I3).
        delivered_seq: inbox.delivered_seq.min(tail.last_seq),
        read_seq: inbox.read_seq.min(tail.last_seq),
        last_message,
        member: true,
        ..unknown
    })
}
