use std::fmt;

use antiphon_types::UserId;
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::FamilyId;

const PREFIX: &str = "rt_";
/// User id (16), secret of the family (16), secret of this one token (32).
const BYTES_LEN: usize = 64;
/// `PREFIX` and 64 bytes of unpadded base64url.
const TEXT_LEN: usize = 3 + 86;

/// The secret that all tokens of a family share. Its hash is the family's id, so who knows the id (it is a claim of every
/// access token) still cannot make up a token that counts as a spent one and so end the family.
pub(crate) type FamilySecret = [u8; 16];

/// The secret of one token.
pub(crate) type TokenSecret = [u8; 32];

/// A refresh token in clear: opaque to whoever holds it, and carrying the user id by which it is routed.
pub(crate) struct RefreshToken {
    pub(crate) user_id: UserId,
    family_secret: FamilySecret,
    secret: TokenSecret,
}

/// Reads from a refresh token's text whose it is, to route it; none when it has not the form of one. Proves nothing.
#[must_use]
pub fn refresh_token_user(token: &str) -> Option<UserId> {
    RefreshToken::parse(token).map(|token| token.user_id)
}

impl RefreshToken {
    pub(crate) const fn new(user_id: UserId, family_secret: FamilySecret, secret: TokenSecret) -> Self {
        Self {
            user_id,
            family_secret,
            secret,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_LEN {
            return None;
        }
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?);
        let (user_id, rest) = bytes.split_first_chunk::<16>()?;
        let (family_secret, secret) = rest.split_first_chunk::<16>()?;
        Some(Self {
            user_id: UserId::from_bytes(user_id).ok()?,
            family_secret: *family_secret,
            secret: secret.try_into().ok()?,
        })
    }

    /// The text that the device keeps.
    pub(crate) fn to_text(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_LEN));
        bytes.extend_from_slice(self.user_id.as_bytes());
        bytes.extend_from_slice(&self.family_secret);
        bytes.extend_from_slice(&self.secret);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// The next token of the family.
    pub(crate) const fn next(&self, secret: TokenSecret) -> Self {
        Self::new(self.user_id, self.family_secret, secret)
    }

    pub(crate) fn family_id(&self) -> FamilyId {
        FamilyId::of_secret(&self.family_secret)
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.secret).into())
    }
}

impl Drop for RefreshToken {
    fn drop(&mut self) {
        self.family_secret.zeroize();
        self.secret.zeroize();
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({}, {})", self.user_id, self.family_id())
    }
}

/// SHA-256 of a token's secret: 256 random bits need no slow hash. Compared in constant time.
#[derive(Clone, Copy)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use antiphon_types::Slot;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_survives_its_text(number in 0..4096_u16, random: u64, family: FamilySecret, secret: TokenSecret) {
            let user_id = UserId::new(Slot::new(number).unwrap(), 1, random);
            let token = RefreshToken::new(user_id, family, secret);
            let text = token.to_text();
            let read = RefreshToken::parse(&text).unwrap();
            prop_assert_eq!(text.len(), TEXT_LEN);
            prop_assert_eq!(refresh_token_user(&text), Some(user_id));
            prop_assert_eq!(read.family_id(), token.family_id());
            prop_assert_eq!(read.hash(), token.hash());
        }

        #[test]
        fn a_token_has_one_spelling(user in any::<u64>(), at in 0..TEXT_LEN, to in "[ -~]") {
            let text = RefreshToken::new(UserId::new(Slot::DEPLOYMENT, 1, user), [1; 16], [2; 32]).to_text();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            if let Some(read) = RefreshToken::parse(&changed) {
                prop_assert_eq!(read.to_text(), changed);
            }
        }

        #[test]
        fn reading_a_token_never_panics(text in ".{0,120}") {
            let _ = refresh_token_user(&text);
        }
    }

    #[test]
    fn a_token_never_shows_its_secrets() {
        let token = RefreshToken::new(UserId::new(Slot::DEPLOYMENT, 1, 1), [0xAB; 16], [0xCD; 32]);
        let shown = format!("{token:?} {:?}", token.hash());
        assert!(!shown.contains("171") && !shown.contains("205") && !shown.to_lowercase().contains("abab"));
    }
}
