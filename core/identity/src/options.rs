use std::{thread, time::Duration};

use antiphon_types::Slot;

use crate::domain::{FamilyPolicy, KeyPolicy, Throttle};

/// Settings of identity.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `iss` of access tokens.
    pub issuer: String,
    /// Life of an access token; whole seconds.
    pub access_token_ttl: Duration,
    /// How long a refresh token may lie unused.
    pub refresh_token_ttl: Duration,
    /// For how long after a refresh the token it spent is taken once more, as the retry of a device that lost the answer. Zero:
    /// never, so that any reuse ends the family. A thief who is as quick as this goes unnoticed for one refresh.
    pub refresh_reuse_grace: Duration,
    /// Devices a user may be logged in on; over it the one that was idle longest is logged out.
    pub families_per_user_max: usize,
    /// How passwords are hashed.
    pub password_hashing: PasswordHashing,
    /// Log-ins to one account that may fail at once before further ones have to wait.
    pub log_in_burst: u32,
    /// One more log-in may fail in each of these.
    pub log_in_interval: Duration,
    /// Accounts whose failed log-ins are remembered.
    pub log_in_accounts_max: u64,
    /// Age at which a signing key is followed by a new one.
    pub key_rotation: Duration,
    /// How long a new signing key is published before it signs: longer than edges keep the published keys.
    pub key_publish_ahead: Duration,
    /// How long a node signs with the keys it knows before it reads them again.
    pub key_refresh: Duration,
    /// How long a registration waits for its account before it answers anyway.
    pub register_wait: Duration,
}

/// Settings of password hashing; Argon2id with OWASP's parameters by default.
#[derive(Debug, Clone)]
pub struct PasswordHashing {
    /// KiB of memory of one hash.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
    /// Hashes that run at once.
    pub running_max: usize,
    /// Hashes that may wait for their turn; over it a request is refused.
    pub waiting_max: usize,
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Argon2 refuses its parameters.
    #[error(
        "password hashing with {memory_kib} KiB, {iterations} passes and {parallelism} lanes is not possible: {reason}"
    )]
    PasswordHashing {
        /// KiB of memory.
        memory_kib: u32,
        /// Passes.
        iterations: u32,
        /// Lanes.
        parallelism: u32,
        /// What Argon2 says.
        reason: String,
    },
    /// A setting that must not be zero is.
    #[error("{name} is zero")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// The life of an access token is not a number of seconds that fits.
    #[error("access_token_ttl of {ttl_s} s is not 1 to 86400")]
    AccessTokenTtl {
        /// The setting.
        ttl_s: u64,
    },
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            issuer: "antiphon".to_owned(),
            access_token_ttl: Duration::from_mins(15),
            refresh_token_ttl: Duration::from_hours(30 * 24),
            refresh_reuse_grace: Duration::ZERO,
            families_per_user_max: 64,
            password_hashing: PasswordHashing::default(),
            log_in_burst: 10,
            log_in_interval: Duration::from_secs(30),
            log_in_accounts_max: 100_000,
            key_rotation: Duration::from_hours(30 * 24),
            key_publish_ahead: Duration::from_mins(5),
            key_refresh: Duration::from_secs(30),
            register_wait: Duration::from_secs(2),
        }
    }
}

impl Default for PasswordHashing {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1_024,
            iterations: 2,
            parallelism: 1,
            running_max: thread::available_parallelism().map_or(1, usize::from),
            waiting_max: 64,
        }
    }
}

impl IdentityOptions {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let positive = [
            ("families_per_user_max", self.families_per_user_max > 0),
            ("running_max", self.password_hashing.running_max > 0),
            ("log_in_burst", self.log_in_burst > 0),
            ("log_in_interval", self.log_in_interval.as_millis() > 0),
            ("log_in_accounts_max", self.log_in_accounts_max > 0),
            ("refresh_token_ttl", self.refresh_token_ttl.as_millis() > 0),
            ("key_rotation", self.key_rotation.as_millis() > 0),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, is_positive)| !is_positive) {
            return Err(OptionsError::Zero { name });
        }
        let ttl_s = self.access_token_ttl.as_secs();
        if !(1..=86_400).contains(&ttl_s) {
            return Err(OptionsError::AccessTokenTtl { ttl_s });
        }
        Ok(())
    }

    pub(crate) fn access_token_ttl_s(&self) -> u32 {
        u32::try_from(self.access_token_ttl.as_secs()).unwrap_or(u32::MAX)
    }

    pub(crate) fn family_policy(&self) -> FamilyPolicy {
        FamilyPolicy {
            ttl_ms: millis(self.refresh_token_ttl),
            reuse_grace_ms: millis(self.refresh_reuse_grace),
            families_max: self.families_per_user_max,
        }
    }

    pub(crate) fn key_policy(&self) -> KeyPolicy {
        KeyPolicy {
            rotate_every_ms: millis(self.key_rotation),
            publish_ahead_ms: millis(self.key_publish_ahead),
            // The last token of the old key comes from the node that hears last of the new one, whose clock may be behind.
            overlap_ms: millis(self.access_token_ttl + self.key_refresh + CLOCK_SKEW_MAX),
        }
    }

    pub(crate) fn throttle(&self) -> Throttle {
        Throttle {
            burst: self.log_in_burst,
            interval_ms: millis(self.log_in_interval),
        }
    }
}

/// How far the clocks of two nodes may stand apart.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_mins(1);

/// Where the signing keys live.
pub(crate) const KEYS_SLOT: Slot = Slot::DEPLOYMENT;

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
