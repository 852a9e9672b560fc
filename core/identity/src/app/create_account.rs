use antiphon_proto::log::{Account, AccountClaimed};
use antiphon_types::{UserId, Username};

use crate::{
    IdentityError,
    adapters::{keys, store},
    identity::Inner,
};

/// Creates the account of a claim, in the user's slot. Idempotent: a claim comes once, is carried at least once, and what the account has
/// become since then stays.
pub(crate) async fn create_account(inner: &Inner, claim: AccountClaimed) -> Result<(), IdentityError> {
    let user_id = UserId::from_bytes(&claim.user_id)?;
    let username = Username::parse(&claim.username)?;
    if claim.password_hash.is_empty() {
        return Err(IdentityError::Missing {
            field: "claim.password_hash",
        });
    }
    let account = Account {
        username: username.as_str().to_owned(),
        password_hash: claim.password_hash,
        created_at_ms: claim.created_at_ms,
    };
    let written = inner.slots.write(user_id.slot(), move |txn| {
        let account = account.clone();
        async move {
            let key = keys::account(user_id);
            if txn.get(&key).await?.is_none() {
                store::write(&txn, key, &account);
            }
            Ok::<_, IdentityError>(())
        }
    });
    written.await.map(drop)
}
