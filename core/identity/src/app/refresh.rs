use antiphon_slot::{SlotError, SlotTxn};
use antiphon_types::{DeviceId, TimestampMs};

use super::tokens::{Issued, issue};
use crate::{
    IdentityError,
    adapters::{random::random, store},
    domain::{EndReason, Ended, FamilyId, FamilyPolicy, RefreshToken, Refreshed, TokenHash, refresh as decide},
    identity::Inner,
};

/// Spends a refresh token for the next one. A token that was spent before ends its family.
pub(crate) async fn refresh(inner: &Inner, token: &str) -> Result<Issued, IdentityError> {
    let token = RefreshToken::parse(token).ok_or(IdentityError::RefreshToken)?;
    // Before the write: without a key no token is spent.
    let signer = inner.key_ring.signer().await?;
    let next = token.next(*random()?);
    let now_ms = inner.clock.now_ms();

    let spend = Spend {
        token: token.hash(),
        next: next.hash(),
        now_ms,
        policy: inner.options.family_policy(),
    };
    let (user_id, family_id) = (token.user_id, token.family_id());
    let written = inner.slots.write(user_id.slot(), move |txn| async move {
        spend.run(&txn, user_id, family_id).await
    });
    match written
        .await
        .map_err(|error: SlotError| IdentityError::from(error))?
        .value
    {
        Outcome::Rotated(device_id) => issue(inner, &signer, &next, &device_id, now_ms),
        Outcome::Reused => {
            metrics::counter!("antiphon_refresh_token_reused_total").increment(1);
            tracing::warn!(%user_id, %family_id, "a spent refresh token was used; its family is revoked");
            Err(IdentityError::RefreshToken)
        }
        Outcome::Gone => Err(IdentityError::RefreshToken),
    }
}

/// A refusal is an outcome and not an error: an error would undo the end of the family.
enum Outcome {
    Rotated(DeviceId),
    Reused,
    Gone,
}

#[derive(Clone, Copy)]
struct Spend {
    token: TokenHash,
    next: TokenHash,
    now_ms: TimestampMs,
    policy: FamilyPolicy,
}

impl Spend {
    async fn run(
        self,
        txn: &SlotTxn,
        user_id: antiphon_types::UserId,
        family_id: FamilyId,
    ) -> Result<Outcome, SlotError> {
        let Some(family) = store::family(txn, user_id, family_id).await? else {
            return Ok(Outcome::Gone);
        };
        let end = |reason| Ended {
            family_id,
            device_id: family.device_id.clone(),
            reason,
        };
        match decide(&family, self.token, self.next, self.now_ms, self.policy) {
            Refreshed::Rotated(rotated) => {
                store::set_family(txn, user_id, family_id, &rotated);
                Ok(Outcome::Rotated(rotated.device_id))
            }
            Refreshed::Reused => {
                store::end_family(txn, user_id, &end(Some(EndReason::Reused)));
                Ok(Outcome::Reused)
            }
            Refreshed::Expired => {
                store::end_family(txn, user_id, &end(None));
                Ok(Outcome::Gone)
            }
        }
    }
}
