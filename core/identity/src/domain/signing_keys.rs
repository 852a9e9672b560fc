use std::fmt;

use antiphon_types::TimestampMs;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The randomness that a signing key is made of.
pub(crate) type KeySeed = Zeroizing<[u8; 32]>;

/// How signing keys come and go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPolicy {
    /// Age of the newest key at which the next one is made.
    pub(crate) rotate_every_ms: u64,
    /// How long a new key is published before anything is signed with it.
    pub(crate) publish_ahead_ms: u64,
    /// For how long after the next key's start the old one is still published: what the longest-lived token signed with it
    /// needs, by a node that still had to hear of the change.
    pub(crate) overlap_ms: u64,
}

/// The deployment's signing keys, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct SigningKeys(Vec<SigningKey>);

/// An Ed25519 key pair. The private half is wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub(crate) struct SigningKey {
    /// RFC 7638 thumbprint of the public key.
    kid: String,
    pkcs8: Zeroizing<Vec<u8>>,
    public: [u8; 32],
    created_at_ms: TimestampMs,
    active_from_ms: TimestampMs,
    /// 0 while no other key has been made to follow it.
    expires_at_ms: TimestampMs,
}

/// Stored key material that is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an Ed25519 key in PKCS#8")]
pub(crate) struct NotAKey;

impl SigningKeys {
    pub(crate) fn new(mut keys: Vec<SigningKey>) -> Self {
        keys.sort_by_key(|key| key.active_from_ms);
        Self(keys)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        self.0.iter()
    }

    /// The key to sign with now.
    pub(crate) fn active(&self, now_ms: TimestampMs) -> Option<&SigningKey> {
        self.0.iter().rev().find(|key| key.active_from_ms <= now_ms)
    }

    /// The keys whose public halves verify tokens now.
    pub(crate) fn published(&self, now_ms: TimestampMs) -> impl Iterator<Item = &SigningKey> {
        self.0.iter().filter(move |key| !key.is_expired(now_ms))
    }

    /// Whether a key is missing, or the newest one is old enough.
    pub(crate) fn is_rotation_due(&self, now_ms: TimestampMs, policy: KeyPolicy) -> bool {
        self.0
            .last()
            .is_none_or(|newest| now_ms >= newest.created_at_ms.saturating_add(policy.rotate_every_ms))
    }

    /// A key that is published and not active yet.
    pub(crate) fn pending(&self, now_ms: TimestampMs) -> Option<&SigningKey> {
        self.0.last().filter(|newest| newest.active_from_ms > now_ms)
    }

    /// The keys after a rotation to a key made from `seed`. The first key of all is active at once.
    pub(crate) fn rotated(&self, seed: &KeySeed, now_ms: TimestampMs, policy: KeyPolicy) -> Result<Self, NotAKey> {
        let active_from_ms = if self.active(now_ms).is_none() {
            now_ms
        } else {
            now_ms.saturating_add(policy.publish_ahead_ms)
        };
        let mut keys: Vec<SigningKey> = self.published(now_ms).cloned().collect();
        for key in &mut keys {
            if key.expires_at_ms == 0 {
                key.expires_at_ms = active_from_ms.saturating_add(policy.overlap_ms);
            }
        }
        keys.push(SigningKey::generate(seed, now_ms, active_from_ms)?);
        Ok(Self::new(keys))
    }
}

impl SigningKey {
    fn generate(seed: &KeySeed, now_ms: TimestampMs, active_from_ms: TimestampMs) -> Result<Self, NotAKey> {
        let pkcs8 = ed25519_dalek::SigningKey::from_bytes(seed)
            .to_pkcs8_der()
            .map_err(|_| NotAKey)?;
        Self::read(pkcs8.as_bytes(), now_ms, active_from_ms, 0)
    }

    /// Reads a stored key.
    pub(crate) fn read(
        pkcs8: &[u8],
        created_at_ms: TimestampMs,
        active_from_ms: TimestampMs,
        expires_at_ms: TimestampMs,
    ) -> Result<Self, NotAKey> {
        let pair = ed25519_dalek::SigningKey::from_pkcs8_der(pkcs8).map_err(|_| NotAKey)?;
        let public = pair.verifying_key().to_bytes();
        Ok(Self {
            kid: thumbprint(&public),
            pkcs8: Zeroizing::new(pkcs8.to_vec()),
            public,
            created_at_ms,
            active_from_ms,
            expires_at_ms,
        })
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key, PKCS#8 DER.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) const fn times_ms(&self) -> (TimestampMs, TimestampMs, TimestampMs) {
        (self.created_at_ms, self.active_from_ms, self.expires_at_ms)
    }

    const fn is_expired(&self, now_ms: TimestampMs) -> bool {
        self.expires_at_ms != 0 && now_ms >= self.expires_at_ms
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("created_at_ms", &self.created_at_ms)
            .field("active_from_ms", &self.active_from_ms)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// RFC 7638, section 3, with the members of RFC 8037, section 2.
fn thumbprint(public: &[u8; 32]) -> String {
    let x = BASE64URL_NOPAD.encode(public);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64URL_NOPAD.encode(&Sha256::digest(members))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: KeyPolicy = KeyPolicy {
        rotate_every_ms: 1_000,
        publish_ahead_ms: 50,
        overlap_ms: 200,
    };

    fn seed(number: usize) -> KeySeed {
        Zeroizing::new(Sha256::digest(number.to_be_bytes()).into())
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_8037_appendix_a_3() {
        let public = BASE64URL_NOPAD
            .decode(b"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
            .unwrap();
        assert_eq!(
            thumbprint(&public.try_into().unwrap()),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_key_never_shows_its_private_half() {
        let keys = SigningKeys::default().rotated(&seed(1), 0, POLICY).unwrap();
        let shown = format!("{keys:?}");
        let private = format!("{:?}", keys.active(0).unwrap().pkcs8());
        assert!(!shown.contains(private.trim_matches(['[', ']'])) && !shown.contains("pkcs8"));
    }

    proptest! {
        #[test]
        fn a_key_is_published_from_before_its_first_token_until_after_its_last(
            rotations in prop::collection::vec(1..400_u64, 1..12),
        ) {
            let mut keys = SigningKeys::default();
            let mut now_ms = 1_000;
            let mut published_from = std::collections::HashMap::new();
            let mut first = None;
            // When each key last signed.
            let mut signed = std::collections::HashMap::new();
            for (number, pause_ms) in rotations.into_iter().enumerate() {
                keys = keys.rotated(&seed(number), now_ms, POLICY).unwrap();
                let end_ms = now_ms + pause_ms;
                while now_ms < end_ms {
                    for key in keys.published(now_ms) {
                        published_from.entry(key.kid().to_owned()).or_insert(now_ms);
                    }
                    let active = keys.active(now_ms).expect("there is always a key to sign with");
                    let first = first.get_or_insert_with(|| active.kid().to_owned());
                    let ahead_ms = now_ms - published_from[active.kid()];
                    prop_assert!(active.kid() == first || ahead_ms + 7 >= POLICY.publish_ahead_ms, "{ahead_ms}");
                    signed.insert(active.kid().to_owned(), now_ms);
                    for (kid, at_ms) in &signed {
                        let is_published = keys.published(now_ms).any(|key| key.kid() == kid);
                        prop_assert!(is_published || now_ms >= at_ms + POLICY.overlap_ms, "{kid} signed at {at_ms}");
                    }
                    now_ms += 7;
                }
            }
        }
    }

    #[test]
    fn a_rotation_is_due_without_a_key_and_when_the_newest_is_old() {
        let none = SigningKeys::default();
        assert!(none.is_rotation_due(0, POLICY));
        let keys = none.rotated(&seed(1), 10, POLICY).unwrap();
        assert!(!keys.is_rotation_due(1_009, POLICY));
        assert!(keys.is_rotation_due(1_010, POLICY));
    }
}
