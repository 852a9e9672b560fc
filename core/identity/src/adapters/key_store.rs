use std::sync::Arc;

use antiphon_slot::{SlotError, Slots};
use antiphon_types::TimestampMs;

use super::{keys, random::random, store};
use crate::{
    IdentityError,
    domain::{KeyPolicy, SigningKey, SigningKeys},
    options::KEYS_SLOT,
};

/// The deployment's signing keys where they are kept: at the home of their slot.
pub(crate) struct KeyStore {
    slots: Slots,
    policy: KeyPolicy,
}

impl KeyStore {
    pub(crate) const fn new(slots: Slots, policy: KeyPolicy) -> Self {
        Self { slots, policy }
    }

    /// The keys as they stand, after a rotation if one is due.
    pub(crate) async fn current(&self, now_ms: TimestampMs) -> Result<SigningKeys, IdentityError> {
        let keys = self.slots.read(KEYS_SLOT, |read| async move {
            store::read_signing_keys(read.get(&keys::signing_keys()).await?)
        });
        let (keys, policy) = (keys.await?, self.policy);
        if !keys.is_rotation_due(now_ms, policy) {
            return Ok(keys);
        }
        self.rotate(now_ms, move |keys| keys.is_rotation_due(now_ms, policy))
            .await
    }

    /// Makes a new key whatever the age of the newest one, unless one is waiting to become active already. Answers its name.
    pub(crate) async fn rotate_now(&self, now_ms: TimestampMs) -> Result<String, IdentityError> {
        let keys = self.rotate(now_ms, move |keys| keys.pending(now_ms).is_none()).await?;
        let newest = keys.iter().last().map(|key| key.kid().to_owned());
        newest.ok_or_else(|| IdentityError::Keys("none is there after a rotation".to_owned()))
    }

    /// Adds a key where `is_due` says so of the stored keys, and returns what is stored then.
    async fn rotate(
        &self,
        now_ms: TimestampMs,
        is_due: impl Fn(&SigningKeys) -> bool + Send + Sync + 'static,
    ) -> Result<SigningKeys, IdentityError> {
        let (seed, policy) = (random::<32>()?, self.policy);
        let is_due = Arc::new(is_due);
        let written = self.slots.write(KEYS_SLOT, move |txn| {
            let (seed, is_due) = (seed.clone(), is_due.clone());
            async move {
                let stored = store::read_signing_keys(txn.get(&keys::signing_keys()).await?)?;
                if !is_due(&stored) {
                    return Ok((stored, false));
                }
                let rotated = stored
                    .rotated(&seed, now_ms, policy)
                    .map_err(|error| SlotError::Corrupt {
                        what: "a new signing key".to_owned(),
                        reason: error.to_string(),
                    })?;
                store::set_signing_keys(&txn, &rotated);
                Ok((rotated, true))
            }
        });
        let (keys, has_rotated) = written
            .await
            .map_err(|error: SlotError| IdentityError::from(error))?
            .value;
        if has_rotated {
            metrics::counter!("antiphon_signing_key_rotations_total").increment(1);
            tracing::info!(kid = keys.iter().last().map(SigningKey::kid), "made a new signing key");
        }
        Ok(keys)
    }
}
