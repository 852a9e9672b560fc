use antiphon_types::{ConversationId, UserId};

use super::App;
use crate::{ConversationError, Rejection, membership};

/// Tells which of `users` are members of a conversation now.
pub(crate) async fn check_members(
    app: &App,
    conversation: ConversationId,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, ConversationError> {
    let limit = app.options.request_users_max;
    if users.len() > limit {
        let count = users.len();
        return Err(Rejection::TooManyUsers { count, limit }.into());
    }
    let users = &users;
    app.slots
        .read(conversation.slot(), |read| async move {
            let mut members = Vec::with_capacity(users.len());
            for user in users {
                if membership::role_at(&read, conversation, *user).await?.is_some() {
                    members.push(*user);
                }
            }
            Ok(members)
        })
        .await
}
