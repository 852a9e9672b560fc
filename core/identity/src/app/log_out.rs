use antiphon_slot::SlotError;

use crate::{
    IdentityError,
    adapters::store,
    domain::{EndReason, Ended, RefreshToken},
    identity::Inner,
};

/// Ends the family of a refresh token, be it spent or not. Idempotent: a family that is gone is logged out.
pub(crate) async fn log_out(inner: &Inner, token: &str) -> Result<(), IdentityError> {
    let token = RefreshToken::parse(token).ok_or(IdentityError::RefreshToken)?;
    let (user_id, family_id) = (token.user_id, token.family_id());
    let written = inner.slots.write(user_id.slot(), move |txn| async move {
        if let Some(family) = store::family(&txn, user_id, family_id).await? {
            let ended = Ended {
                family_id,
                device_id: family.device_id,
                reason: Some(EndReason::LoggedOut),
            };
            store::end_family(&txn, user_id, &ended);
        }
        Ok::<_, SlotError>(())
    });
    written.await?;
    Ok(())
}
