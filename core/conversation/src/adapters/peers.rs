//! What conversations ask of other services and of other slots.

use antiphon_directory::Route;
use antiphon_proto::{
    log::MembershipChanged,
    refusal,
    rpc::{
        CreateDirectRequest, GetAccountRequest, ListMembershipRequest, conversation_client::ConversationClient,
        identity_client::IdentityClient,
    },
};
use antiphon_types::{ErrorCode, Slot, UserId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;

use crate::{ConversationError, Rejection};

/// Accounts asked for at once.
const CONCURRENT_MAX: usize = 16;

/// Checks that each of `users` has an account; the first that has none, in the order given, is named.
pub(crate) async fn accounts_exist(route: &Route, users: &[UserId]) -> Result<(), ConversationError> {
    stream::iter(users.iter().copied())
        .map(|user| account_exists(route.clone(), user))
        .buffered(CONCURRENT_MAX)
        .try_collect()
        .await
}

async fn account_exists(route: Route, user: UserId) -> Result<(), ConversationError> {
    let request = GetAccountRequest {
        user_id: user.to_bytes(),
    };
    let answer = IdentityClient::new(route.to(user.slot())).get_account(request).await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) if refusal::of(&status).code == ErrorCode::NotFound.as_str() => {
            Err(Rejection::UnknownUser { user }.into())
        }
        Err(status) => Err(status.into()),
    }
}

/// Creates a direct conversation in its own slot; idempotent.
pub(crate) async fn create_direct(route: &Route, slot: Slot, request: CreateDirectRequest) -> Result<(), Status> {
    ConversationClient::new(route.to(slot)).create_direct(request).await?;
    Ok(())
}

/// Brings a change to the member's own list; idempotent.
pub(crate) async fn list_membership(route: &Route, user: UserId, change: MembershipChanged) -> Result<(), Status> {
    let request = ListMembershipRequest { change: Some(change) };
    ConversationClient::new(route.to(user.slot()))
        .list_membership(request)
        .await?;
    Ok(())
}
