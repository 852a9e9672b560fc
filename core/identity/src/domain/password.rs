use std::fmt;

use zeroize::Zeroizing;

/// Fewest characters of a new password.
const CHARS_MIN: usize = 8;
/// Most characters of a new password.
const CHARS_MAX: usize = 128;
/// Most bytes of any password, so that hashing it has a bound.
const BYTES_MAX: usize = 512;

/// A password in clear. Wiped from memory when dropped; never shown.
#[derive(Clone)]
pub(crate) struct Password(Zeroizing<String>);

/// A new password that breaks a rule. Says nothing of the password itself but its length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too few or too many characters.
    #[error("a password of {chars} characters is not one of {CHARS_MIN} to {CHARS_MAX}")]
    Chars {
        /// How many it has.
        chars: usize,
    },
    /// Too many bytes.
    #[error("a password of {bytes} bytes is over the limit of {BYTES_MAX}")]
    Bytes {
        /// How many it has.
        bytes: usize,
    },
}

impl Password {
    /// Reads a password that is to be set.
    pub(crate) fn new(text: String) -> Result<Self, PasswordError> {
        let password = Self::attempt(text)?;
        let chars = password.0.chars().count();
        if !(CHARS_MIN..=CHARS_MAX).contains(&chars) {
            return Err(PasswordError::Chars { chars });
        }
        Ok(password)
    }

    /// Reads a password that is to be compared. Only the bound on its bytes counts: the rules of today are not those under
    /// which it was set.
    pub(crate) fn attempt(text: String) -> Result<Self, PasswordError> {
        let text = Zeroizing::new(text);
        if text.len() > BYTES_MAX {
            return Err(PasswordError::Bytes { bytes: text.len() });
        }
        Ok(Self(text))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_has_8_to_128_characters_and_at_most_512_bytes() {
        for right in ["x".repeat(8), "x".repeat(128), "ü".repeat(128), "🦀".repeat(128)] {
            assert!(Password::new(right).is_ok());
        }
        assert_eq!(
            Password::new("x".repeat(7)).unwrap_err(),
            PasswordError::Chars { chars: 7 }
        );
        assert_eq!(
            Password::new("ü".repeat(129)).unwrap_err(),
            PasswordError::Chars { chars: 129 }
        );
        assert_eq!(
            Password::new("x".repeat(513)).unwrap_err(),
            PasswordError::Bytes { bytes: 513 }
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password::new("correct horse".to_owned()).unwrap();
        assert!(!format!("{password:?}").contains("horse"));
    }
}
