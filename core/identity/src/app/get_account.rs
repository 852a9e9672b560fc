use antiphon_proto::log::Account;
use antiphon_types::UserId;

use crate::{
    IdentityError,
    adapters::{keys, store},
    identity::Inner,
};

/// The account of a user.
pub(crate) async fn get_account(inner: &Inner, user_id: UserId) -> Result<Account, IdentityError> {
    find_account(inner, user_id)
        .await?
        .ok_or(IdentityError::UnknownUser { user_id })
}

pub(crate) async fn find_account(inner: &Inner, user_id: UserId) -> Result<Option<Account>, IdentityError> {
    let read = inner.slots.read(user_id.slot(), |read| async move {
        Ok::<_, IdentityError>(read.get(&keys::account(user_id)).await?)
    });
    Ok(store::read("an account", read.await?)?)
}
