use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_types::{ErrorCode, TimestampMs};
use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{AUDIENCE, AccessClaims, SigningKey, TokenBody},
    options::{CLOCK_SKEW_MAX, millis},
};

/// Bytes of an access token; ours have about 500.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Keys of a set; an issuer publishes a handful.
const KEYS_MAX: usize = 256;
/// Pause between two looks at the published keys for the sake of an unknown one.
const REFETCH_PAUSE_MS: u64 = 5_000;

/// Verifies access tokens by the issuer's published keys alone. Cheap to clone; clones share the keys.
///
/// Nothing but EdDSA is accepted, whatever the token's header says, and a key is taken from the published set alone, never
/// from the token (RFC 8725, sections 3.1 and 3.10).
#[derive(Clone)]
pub struct TokenVerifier {
    shared: Arc<Shared>,
}

struct Shared {
    keys: ArcSwap<HashMap<String, DecodingKey>>,
    validation: Validation,
    refetched_at_ms: AtomicU64,
}

/// Why an access token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url with the claims of an access token.
    #[error("the access token is malformed")]
    Malformed,
    /// Signed with something else than EdDSA, or with nothing.
    #[error("the access token is signed with {alg:?}, and only EdDSA is accepted")]
    Algorithm {
        /// What its header says, cut to 32 characters.
        alg: String,
    },
    /// Signed with a key that is not among the published ones; it may be newer than what is known here.
    #[error("the access token is signed with the unknown key {kid:?}")]
    UnknownKey {
        /// What its header says, cut to 64 characters.
        kid: String,
    },
    /// The signature is not that of the key.
    #[error("the signature of the access token is wrong")]
    Signature,
    /// From another issuer.
    #[error("the access token is from another issuer")]
    Issuer,
    /// For another audience.
    #[error("the access token is for another audience")]
    Audience,
    /// Expired: refresh it.
    #[error("the access token has expired at {expired_at_ms} ms")]
    Expired {
        /// When.
        expired_at_ms: TimestampMs,
    },
    /// From the future.
    #[error("the access token is valid from {valid_from_ms} ms only")]
    NotYetValid {
        /// From when on.
        valid_from_ms: TimestampMs,
    },
}

/// Text that is not a set of keys (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the JWK set is not one: {0}")]
pub struct JwksError(String);

impl TokenVerifier {
    /// Verifies tokens of `issuer` with the keys of `jwks_json`.
    ///
    /// # Errors
    /// [`JwksError`] when that is not a JWK set.
    pub fn new(issuer: &str, jwks_json: &str) -> Result<Self, JwksError> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // The library would ask the machine's clock, with a leeway.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let shared = Shared {
            keys: ArcSwap::from_pointee(read_keys(jwks_json)?),
            validation,
            refetched_at_ms: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes the keys of `jwks_json` from now on, and those alone.
    ///
    /// # Errors
    /// [`JwksError`] when that is not a JWK set; the old keys stay.
    pub fn replace(&self, jwks_json: &str) -> Result<(), JwksError> {
        self.shared.keys.store(Arc::new(read_keys(jwks_json)?));
        Ok(())
    }

    /// Whether the published keys shall be fetched again because of [`TokenError::UnknownKey`]: yes once in 5 seconds, however many
    /// tokens with invented keys come in.
    #[must_use]
    pub fn claim_refetch(&self, now_ms: TimestampMs) -> bool {
        let claim = |last_ms: u64| (now_ms >= last_ms.saturating_add(REFETCH_PAUSE_MS)).then_some(now_ms);
        let refetched = &self.shared.refetched_at_ms;
        refetched
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim)
            .is_ok()
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// [`TokenError`]; none of them says more than the token itself does.
    pub fn verify(&self, token: &str, now_ms: TimestampMs) -> Result<AccessClaims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let head = Head::read(token).ok_or(TokenError::Malformed)?;
        if head.alg != "EdDSA" {
            return Err(TokenError::Algorithm {
                alg: cut(&head.alg, 32),
            });
        }
        let keys = self.shared.keys.load();
        let Some(key) = keys.get(&head.kid) else {
            return Err(TokenError::UnknownKey {
                kid: cut(&head.kid, 64),
            });
        };
        let token = jsonwebtoken::decode::<TokenBody>(token, key, &self.shared.validation);
        let body = token.map_err(|error| refused(error.kind()))?.claims;
        let claims = body.read().ok_or(TokenError::Malformed)?;
        if now_ms >= claims.expires_at_ms {
            return Err(TokenError::Expired {
                expired_at_ms: claims.expires_at_ms,
            });
        }
        let valid_from_ms = body.iat.max(body.nbf.unwrap_or(0)).saturating_mul(1_000);
        if valid_from_ms > now_ms.saturating_add(millis(CLOCK_SKEW_MAX)) {
            return Err(TokenError::NotYetValid { valid_from_ms });
        }
        Ok(claims)
    }
}

impl TokenError {
    /// The code a client sees: `TOKEN_EXPIRED` asks for a refresh, `UNAUTHENTICATED` for a log-in.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Expired { .. } => ErrorCode::TokenExpired,
            Self::Malformed
            | Self::Algorithm { .. }
            | Self::UnknownKey { .. }
            | Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::NotYetValid { .. } => ErrorCode::Unauthenticated,
        }
    }
}

/// The JWK set of `keys` (RFC 7517, section 5; RFC 8037, section 2).
pub(crate) fn jwks_json<'a>(keys: impl Iterator<Item = &'a SigningKey>) -> Result<String, serde_json::Error> {
    let keys = keys.map(|key| Jwk {
        kty: "OKP".to_owned(),
        crv: Some("Ed25519".to_owned()),
        kid: Some(key.kid().to_owned()),
        x: Some(BASE64URL_NOPAD.encode(key.public())),
        alg: Some("EdDSA".to_owned()),
        key_use: Some("sig".to_owned()),
    });
    serde_json::to_string(&JwkSet { keys: keys.collect() })
}

#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    key_use: Option<String>,
}

impl Jwk {
    /// The key's name and the key; none when it is not one that verifies EdDSA signatures.
    fn ed25519(&self) -> Option<(String, DecodingKey)> {
        let is_for = |value: &Option<String>, wanted: &str| value.as_ref().is_none_or(|value| value == wanted);
        let is_ed25519 = self.kty == "OKP" && self.crv.as_deref() == Some("Ed25519");
        if !is_ed25519 || !is_for(&self.alg, "EdDSA") || !is_for(&self.key_use, "sig") {
            return None;
        }
        let public = BASE64URL_NOPAD.decode(self.x.as_ref()?.as_bytes()).ok()?;
        // jsonwebtoken takes the first 32 bytes of whatever it is given, and panics where there are fewer.
        let public: [u8; 32] = public.try_into().ok()?;
        ed25519_dalek::VerifyingKey::from_bytes(&public)
            .ok()
            .filter(|key| !key.is_weak())?;
        Some((self.kid.clone()?, DecodingKey::from_ed_der(&public)))
    }
}

fn read_keys(jwks_json: &str) -> Result<HashMap<String, DecodingKey>, JwksError> {
    let set: JwkSet = serde_json::from_str(jwks_json).map_err(|error| JwksError(error.to_string()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(JwksError(format!(
            "{} keys are over the limit of {KEYS_MAX}",
            set.keys.len()
        )));
    }
    // Keys of other kinds are for others (RFC 7517, section 5).
    Ok(set.keys.iter().filter_map(Jwk::ed25519).collect())
}

/// What a token's header must say for us to go on. The library's own header type cannot hold `none`, so that it could not be
/// told from a malformed token.
#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood; we understand none (RFC 7515, section 4.1.11).
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

impl Head {
    fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (head, _, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let head: Self = serde_json::from_slice(&BASE64URL_NOPAD.decode(head.as_bytes()).ok()?).ok()?;
        head.crit.is_none().then_some(head)
    }
}

fn refused(kind: &ErrorKind) -> TokenError {
    if matches!(kind, ErrorKind::InvalidSignature | ErrorKind::Signing(_)) {
        TokenError::Signature
    } else if matches!(kind, ErrorKind::InvalidIssuer) {
        TokenError::Issuer
    } else if matches!(kind, ErrorKind::InvalidAudience) {
        TokenError::Audience
    } else {
        TokenError::Malformed
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
