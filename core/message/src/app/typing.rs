use antiphon_conversation::membership;
use antiphon_slot::Slots;
use antiphon_types::{ConversationId, UserId};

use crate::MessageError;

/// Whether the user may say that they are typing.
pub(crate) async fn check_typist(
    slots: &Slots,
    conversation: ConversationId,
    user: UserId,
) -> Result<(), MessageError> {
    let check = |read| async move { membership::member_at(&read, conversation, user).await.map(drop) };
    Ok(slots.read_filtered(conversation.slot(), check).await?)
}
