use antiphon_types::{DeviceId, TimestampMs, UserId};

use crate::{
    IdentityError,
    adapters::{key_ring::Signer, random::random},
    domain::{FamilyId, RefreshToken, TokenBody},
    identity::Inner,
};

/// What a device is given at a log-in and at each refresh. Not shown: it is all secret.
pub(crate) struct Issued {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    pub(crate) expires_in_s: u32,
    pub(crate) user_id: UserId,
}

pub(crate) fn issue(
    inner: &Inner,
    signer: &Signer,
    refresh_token: &RefreshToken,
    device_id: &DeviceId,
    now_ms: TimestampMs,
) -> Result<Issued, IdentityError> {
    let user_id = refresh_token.user_id;
    let family_id: FamilyId = refresh_token.family_id();
    let ttl_s = inner.options.access_token_ttl_s();
    let holder = (user_id, device_id, family_id);
    let body = TokenBody::new(&inner.options.issuer, holder, *random::<16>()?, now_ms, ttl_s);
    Ok(Issued {
        access_token: signer.sign(&body)?,
        refresh_token: refresh_token.to_text(),
        expires_in_s: ttl_s,
        user_id,
    })
}
