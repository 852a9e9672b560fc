use antiphon_types::{DeviceId, TimestampMs, UserId};

use super::{
    get_account::find_account,
    tokens::{Issued, issue},
};
use crate::{
    IdentityError,
    adapters::{random::random, store},
    domain::{Family, Password, RefreshToken, ends_at_log_in},
    identity::Inner,
};

/// Checks a password and opens a refresh-token family for the device, in place of any that it had. The account of a user who is known
/// to hold a username may still be on its way from there.
pub(crate) async fn log_in(
    inner: &Inner,
    (user_id, is_claimed): (UserId, bool),
    password: String,
    device_id: DeviceId,
) -> Result<Issued, IdentityError> {
    // No account has a password this long, so refusing it early gives no account away.
    let password = Password::attempt(password).map_err(|_| IdentityError::WrongPassword)?;
    check_password(inner, (user_id, is_claimed), password).await?;

    // Before the write: without a key no family is opened that nobody hears of.
    let signer = inner.key_ring.signer().await?;
    let token = RefreshToken::new(user_id, *random()?, *random()?);
    let now_ms = inner.clock.now_ms();
    open_family(inner, &token, device_id.clone(), now_ms).await?;
    issue(inner, &signer, &token, &device_id, now_ms)
}

/// The same work and the same answer whether the account does not exist or has another password.
async fn check_password(
    inner: &Inner,
    (user_id, is_claimed): (UserId, bool),
    password: Password,
) -> Result<(), IdentityError> {
    inner.log_in_attempts.begin(user_id, inner.clock.now_ms())?;
    let verified = async {
        let account = find_account(inner, user_id).await?;
        if account.is_none() && is_claimed {
            return Err(IdentityError::AccountPending { user_id });
        }
        inner
            .hashing
            .verify(password, account.map(|account| account.password_hash))
            .await
    };
    match verified.await {
        Ok(true) => {
            inner.log_in_attempts.forget(user_id);
            Ok(())
        }
        Ok(false) => {
            metrics::counter!("antiphon_log_in_failed_total").increment(1);
            Err(IdentityError::WrongPassword)
        }
        Err(error) => {
            inner.log_in_attempts.undo(user_id);
            Err(error)
        }
    }
}

async fn open_family(
    inner: &Inner,
    token: &RefreshToken,
    device_id: DeviceId,
    now_ms: TimestampMs,
) -> Result<(), IdentityError> {
    let (user_id, family_id, hash) = (token.user_id, token.family_id(), token.hash());
    let policy = inner.options.family_policy();
    let written = inner.slots.write(user_id.slot(), move |txn| {
        let device_id = device_id.clone();
        async move {
            let families = store::families(&txn, user_id).await?;
            for ended in ends_at_log_in(&families, &device_id, now_ms, policy) {
                store::end_family(&txn, user_id, &ended);
            }
            store::set_family(&txn, user_id, family_id, &Family::open(device_id, hash, now_ms, policy));
            Ok::<_, IdentityError>(())
        }
    });
    written.await.map(drop)
}
