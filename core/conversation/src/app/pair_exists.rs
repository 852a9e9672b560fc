use antiphon_types::UserId;

use super::App;
use crate::{ConversationError, adapters::keys};

/// Tells whether two users have a direct conversation.
pub(crate) async fn pair_exists(app: &App, user: UserId, peer: UserId) -> Result<bool, ConversationError> {
    let key = keys::pair(user.min(peer), user.max(peer));
    let key = &key;
    app.slots
        .read(user.min(peer).slot(), |read| async move {
            Ok(read.get(key).await?.is_some())
        })
        .await
}
