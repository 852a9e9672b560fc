use std::{fmt, str::FromStr};

use data_encoding::BASE32HEX_NOPAD;
use serde::{Deserialize, Serialize};

use crate::TimestampMs;

/// How many slots a deployment has. Never changes: every id carries its slot.
pub const SLOT_COUNT: u16 = 4096;

/// A conversation's message number: 1, 2, 3 … without gaps; 0 stands before the first.
pub type Seq = u64;

/// A slot's leader epoch: grows by one at each change of home.
pub type Epoch = u64;

/// Position of an entry in a slot's log: 1, 2, 3 … without gaps; 0 stands before the first.
pub type LogIndex = u64;

/// One of the 4096 partitions: the unit of home, order, replication and fail-over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// The slot that holds what belongs to the deployment as a whole (signing keys).
    pub const DEPLOYMENT: Self = Self(0);

    /// The slot of this number, or none from 4096 on.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOT_COUNT { Some(Self(number)) } else { None }
    }

    /// The slot that 8 uniform bytes fall into.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 4096")]
    pub const fn of_hash(hash: u64) -> Self {
        Self((hash % SLOT_COUNT as u64) as u16)
    }

    /// Its number, 0 to 4095.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Every slot, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT).map(Self)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl TryFrom<u16> for Slot {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("slot {number} is not below {SLOT_COUNT}"))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not of the form of this kind of id.
    #[error("{kind} id {text:?} is not of the form {prefix}_ and 26 characters 0-9a-v")]
    Malformed {
        /// What was expected.
        kind: &'static str,
        /// Its prefix.
        prefix: char,
        /// The text, cut to 64 characters.
        text: String,
    },
    /// The bytes are not 16 bytes of this kind of id.
    #[error("{kind} id of {len} bytes is not 16 bytes that begin with a slot and the mark of its kind")]
    Bytes {
        /// What was expected.
        kind: &'static str,
        /// How many bytes were given.
        len: usize,
    },
}

/// Of an id, after its prefix.
const TEXT_BYTES: usize = 26;

/// Lower case of RFC 4648 "Extended Hex", whose text sorts as its bytes do.
fn encode(bytes: [u8; 16]) -> [u8; TEXT_BYTES] {
    let mut text = [0; TEXT_BYTES];
    BASE32HEX_NOPAD.encode_mut(&bytes, &mut text);
    text.make_ascii_lowercase();
    text
}

fn decode(text: &str) -> Option<[u8; 16]> {
    let mut upper: [u8; TEXT_BYTES] = text.as_bytes().try_into().ok()?;
    if upper.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    upper.make_ascii_uppercase();
    let mut bytes = [0; 16];
    BASE32HEX_NOPAD.decode_mut(&upper, &mut bytes).ok()?;
    Some(bytes)
}

/// Builds an id: 12 bits of slot, 4 bits of kind, 48 bits of creation time in ms, 64 random bits.
fn build(slot: Slot, mark: u8, now_ms: TimestampMs, random: u64) -> [u8; 16] {
    let head = (slot.number() << 4) | u16::from(mark);
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&head.to_be_bytes());
    bytes[2..8].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&random.to_be_bytes());
    bytes
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal, $mark:literal) => {
        $(#[$doc])*
        ///
        /// 16 bytes: 12 bits of slot, 4 bits of kind, 48 bits of creation time in ms, 64 random bits. Persisted, so the
        /// form never changes. As text: a prefix and 26 characters of lower-case base32hex.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes a new id in `slot`; `random` comes from a cryptographic generator.
            #[must_use]
            pub fn new(slot: Slot, now_ms: TimestampMs, random: u64) -> Self {
                Self(build(slot, $mark, now_ms, random))
            }

            /// Reads the text form.
            ///
            /// # Errors
            /// [`IdError::Malformed`] when the text is anything else.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .and_then(|bytes| Self::from_bytes(&bytes).ok())
                    .ok_or_else(|| IdError::Malformed {
                        kind: $kind,
                        prefix: $prefix,
                        text: text.chars().take(64).collect(),
                    })
            }

            /// Reads the 16-byte form.
            ///
            /// # Errors
            /// [`IdError::Bytes`] when the bytes are anything else.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
                let wrong = || IdError::Bytes { kind: $kind, len: bytes.len() };
                let id: [u8; 16] = bytes.try_into().map_err(|_| wrong())?;
                if id[1] & 0x0f != $mark {
                    return Err(wrong());
                }
                Ok(Self(id))
            }

            /// The 16-byte form.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The 16-byte form as a buffer of its own.
            #[must_use]
            pub fn to_bytes(&self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }

            /// The slot that homes this id.
            #[must_use]
            pub const fn slot(&self) -> Slot {
                Slot(u16::from_be_bytes([self.0[0], self.0[1]]) >> 4)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

id!(
    /// Names an account.
    UserId,
    "user",
    'u',
    0x1
);
id!(
    /// Names a conversation.
    ConversationId,
    "conversation",
    'c',
    0x2
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn id_survives_text_and_bytes(number in 0..SLOT_COUNT, now_ms in 0_u64..(1 << 48), random: u64) {
            let slot = Slot::new(number).unwrap();
            let id = ConversationId::new(slot, now_ms, random);
            prop_assert_eq!(id.slot(), slot);
            prop_assert_eq!(ConversationId::parse(&id.to_string()), Ok(id));
            prop_assert_eq!(ConversationId::from_bytes(id.as_bytes()), Ok(id));
            prop_assert!(UserId::from_bytes(id.as_bytes()).is_err());
        }

        #[test]
        fn parse_never_panics(text in ".{0,40}") {
            let _ = UserId::parse(&text);
        }
    }

    #[test]
    fn id_text_has_one_spelling() {
        let id = UserId::new(Slot::DEPLOYMENT, 1, 2).to_string();
        assert!(UserId::parse(&id.to_uppercase()).is_err());
        assert!(UserId::parse(id.trim_start_matches("u_")).is_err());
    }
}
