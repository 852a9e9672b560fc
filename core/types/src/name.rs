use std::fmt;

/// Text that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {rule}")]
pub struct NameError {
    /// What was parsed.
    pub what: &'static str,
    /// The value, cut to 64 characters.
    pub value: String,
    /// The rule it breaks, with its limit.
    pub rule: &'static str,
}

fn reject<T>(what: &'static str, value: &str, rule: &'static str) -> Result<T, NameError> {
    Err(NameError {
        what,
        value: value.chars().take(64).collect(),
        rule,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name!(
    /// An account's name: 3 to 32 characters a-z, 0-9, dot, dash and underscore, beginning with a letter. Upper case is
    /// folded, so names that differ by case alone are the same name.
    Username
);

impl Username {
    /// Reads and folds a username.
    ///
    /// # Errors
    /// [`NameError`] when it breaks the rule of its form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let folded = text.to_ascii_lowercase();
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
        if !(3..=32).contains(&folded.len())
            || !folded.bytes().all(allowed)
            || !folded.starts_with(|first: char| first.is_ascii_lowercase())
        {
            return reject(
                "username",
                text,
                "must be 3 to 32 of a-z, 0-9, '.', '-', '_' and begin with a letter",
            );
        }
        Ok(Self(folded))
    }
}

name!(
    /// A device's idempotency key for one message: 1 to 64 visible ASCII characters.
    ClientMsgId
);

impl ClientMsgId {
    /// Reads a client message id.
    ///
    /// # Errors
    /// [`NameError`] when it breaks the rule of its form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !(1..=64).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return reject("clientMsgId", text, "must be 1 to 64 visible ASCII characters");
        }
        Ok(Self(text.to_owned()))
    }
}

name!(
    /// An installed app: 1 to 64 visible ASCII characters, chosen by the device.
    DeviceId
);

impl DeviceId {
    /// Reads a device id.
    ///
    /// # Errors
    /// [`NameError`] when it breaks the rule of its form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !(1..=64).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return reject("deviceId", text, "must be 1 to 64 visible ASCII characters");
        }
        Ok(Self(text.to_owned()))
    }
}

name!(
    /// A group's title: at most 128 characters, none of them a control character. May be empty.
    Title
);

impl Title {
    /// Reads a title; white space at both ends is cut.
    ///
    /// # Errors
    /// [`NameError`] when it breaks the rule of its form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let trimmed = text.trim();
        if trimmed.chars().count() > 128 || trimmed.chars().any(char::is_control) {
            return reject(
                "title",
                text,
                "must be at most 128 characters without control characters",
            );
        }
        Ok(Self(trimmed.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_fold_case_and_refuse_the_rest() {
        assert_eq!(Username::parse("Alice").unwrap().as_str(), "alice");
        for wrong in ["", "ab", "1abc", "has space", "ümlaut", &"a".repeat(33)] {
            assert!(Username::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_error_names_the_thing_and_its_limit() {
        let error = ClientMsgId::parse("").unwrap_err();
        assert_eq!(
            error.to_string(),
            "clientMsgId \"\" must be 1 to 64 visible ASCII characters"
        );
    }
}
