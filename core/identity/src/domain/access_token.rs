use antiphon_types::{DeviceId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::FamilyId;

/// Whom access tokens are for.
pub(crate) const AUDIENCE: &str = "antiphon";

/// What a valid access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// Who holds it.
    pub user_id: UserId,
    /// The device that logged in.
    pub device_id: DeviceId,
    /// The log-in it comes from; [`antiphon_proto::log::FamilyRevoked`] names it when that ends.
    pub family_id: FamilyId,
    /// From when on it is refused.
    pub expires_at_ms: TimestampMs,
}

/// The claims as they stand in the token (RFC 7519, section 4.1); times in seconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct TokenBody {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) did: String,
    pub(crate) fid: String,
    pub(crate) iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: u64,
    pub(crate) jti: String,
}

impl TokenBody {
    pub(crate) fn new(
        issuer: &str,
        (user_id, device_id, family_id): (UserId, &DeviceId, FamilyId),
        token_id: [u8; 16],
        now_ms: TimestampMs,
        ttl_s: u32,
    ) -> Self {
        let iat = now_ms / 1_000;
        Self {
            iss: issuer.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id.to_string(),
            did: device_id.as_str().to_owned(),
            fid: family_id.to_string(),
            iat,
            nbf: None,
            exp: iat.saturating_add(u64::from(ttl_s)),
            jti: data_encoding::BASE64URL_NOPAD.encode(&token_id),
        }
    }

    /// The claims, unless one of them has not its form.
    pub(crate) fn read(&self) -> Option<AccessClaims> {
        Some(AccessClaims {
            user_id: UserId::parse(&self.sub).ok()?,
            device_id: DeviceId::parse(&self.did).ok()?,
            family_id: FamilyId::parse(&self.fid)?,
            expires_at_ms: self.exp.saturating_mul(1_000),
        })
    }
}
