use antiphon_proto::log::UsernameClaim;
use antiphon_types::{UserId, Username};

use crate::{
    IdentityError,
    adapters::{keys, store},
    domain::username_slot,
    identity::Inner,
};

/// Who holds a username.
pub(crate) async fn resolve(inner: &Inner, username: Username) -> Result<UserId, IdentityError> {
    holder(inner, &username)
        .await?
        .ok_or(IdentityError::UnknownUsername { username })
}

pub(crate) async fn holder(inner: &Inner, username: &Username) -> Result<Option<UserId>, IdentityError> {
    let key = keys::username(username);
    let read = inner.slots.read(username_slot(username), |read| {
        let key = key.clone();
        async move { Ok::<_, IdentityError>(read.get(&key).await?) }
    });
    let claim: Option<UsernameClaim> = store::read("the claim on a username", read.await?)?;
    let user_id = claim.map(|claim| store::read_user_id("the claim on a username", &claim.user_id));
    Ok(user_id.transpose()?)
}
