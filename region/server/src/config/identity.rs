use std::time::Duration;

use antiphon_identity::{IdentityOptions, PasswordHashing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sections::ms;

/// Accounts, tokens and passwords.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentitySection {
    /// `iss` of access tokens.
    pub(crate) issuer: String,
    /// Life of an access token.
    pub(crate) access_token_ttl_s: u64,
    /// How long a refresh token may lie unused.
    pub(crate) refresh_token_ttl_s: u64,
    /// For how long after a refresh the token it spent is taken once more, as the retry of a device that lost the answer. 0: never.
    pub(crate) refresh_reuse_grace_ms: u64,
    /// Devices a user may be logged in on; over it the one that was idle longest is logged out.
    pub(crate) families_per_user_max: usize,
    /// KiB of memory of one password hash (Argon2id).
    pub(crate) password_memory_kib: u32,
    /// Passes of one password hash over its memory.
    pub(crate) password_iterations: u32,
    /// Lanes of one password hash.
    pub(crate) password_parallelism: u32,
    /// Password hashes that run at once; 0: as many as the machine has cores.
    pub(crate) password_running_max: usize,
    /// Password hashes that may wait for their turn; one more is refused with `RESOURCE_EXHAUSTED`.
    pub(crate) password_waiting_max: usize,
    /// Log-ins to one account that may fail at once before further ones have to wait.
    pub(crate) log_in_burst: u32,
    /// One more log-in may fail in each of these.
    pub(crate) log_in_interval_ms: u64,
    /// Accounts whose failed log-ins are remembered.
    pub(crate) log_in_accounts_max: u64,
    /// Age at which a signing key is followed by a new one.
    pub(crate) key_rotation_s: u64,
    /// How long a new signing key is published before it signs: longer than `edge.jwks_interval_ms`.
    pub(crate) key_publish_ahead_s: u64,
    /// How long a node signs with the keys it knows before it reads them again.
    pub(crate) key_refresh_ms: u64,
    /// How long a registration waits for its account before it answers anyway.
    pub(crate) register_wait_ms: u64,
}

impl Default for IdentitySection {
    fn default() -> Self {
        let options = IdentityOptions::default();
        let hashing = options.password_hashing;
        Self {
            issuer: options.issuer,
            access_token_ttl_s: options.access_token_ttl.as_secs(),
            refresh_token_ttl_s: options.refresh_token_ttl.as_secs(),
            refresh_reuse_grace_ms: ms(options.refresh_reuse_grace),
            families_per_user_max: options.families_per_user_max,
            password_memory_kib: hashing.memory_kib,
            password_iterations: hashing.iterations,
            password_parallelism: hashing.parallelism,
            password_running_max: 0,
            password_waiting_max: hashing.waiting_max,
            log_in_burst: options.log_in_burst,
            log_in_interval_ms: ms(options.log_in_interval),
            log_in_accounts_max: options.log_in_accounts_max,
            key_rotation_s: options.key_rotation.as_secs(),
            key_publish_ahead_s: options.key_publish_ahead.as_secs(),
            key_refresh_ms: ms(options.key_refresh),
            register_wait_ms: ms(options.register_wait),
        }
    }
}

impl From<&IdentitySection> for IdentityOptions {
    fn from(section: &IdentitySection) -> Self {
        let of_machine = PasswordHashing::default().running_max;
        Self {
            issuer: section.issuer.clone(),
            access_token_ttl: Duration::from_secs(section.access_token_ttl_s),
            refresh_token_ttl: Duration::from_secs(section.refresh_token_ttl_s),
            refresh_reuse_grace: Duration::from_millis(section.refresh_reuse_grace_ms),
            families_per_user_max: section.families_per_user_max,
            password_hashing: PasswordHashing {
                memory_kib: section.password_memory_kib,
                iterations: section.password_iterations,
                parallelism: section.password_parallelism,
                running_max: if section.password_running_max == 0 {
                    of_machine
                } else {
                    section.password_running_max
                },
                waiting_max: section.password_waiting_max,
            },
            log_in_burst: section.log_in_burst,
            log_in_interval: Duration::from_millis(section.log_in_interval_ms),
            log_in_accounts_max: section.log_in_accounts_max,
            key_rotation: Duration::from_secs(section.key_rotation_s),
            key_publish_ahead: Duration::from_secs(section.key_publish_ahead_s),
            key_refresh: Duration::from_millis(section.key_refresh_ms),
            register_wait: Duration::from_millis(section.register_wait_ms),
        }
    }
}
