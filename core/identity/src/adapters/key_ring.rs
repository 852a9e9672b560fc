use std::{sync::Arc, time::Duration};

use antiphon_slot::{SlotError, Slots};
use antiphon_types::{Clock, TimestampMs};
use arc_swap::ArcSwapOption;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::{keys, random::random, store};
use crate::{
    IdentityError,
    domain::{KeyPolicy, SigningKeys, TokenBody},
    options::{KEYS_SLOT, millis},
};

/// The deployment's signing keys as this node knows them: read from their slot, remembered for a while, rotated when due.
pub(crate) struct KeyRing {
    slots: Slots,
    clock: Clock,
    policy: KeyPolicy,
    refresh_ms: u64,
    known: ArcSwapOption<Known>,
}

struct Known {
    keys: SigningKeys,
    read_at_ms: TimestampMs,
}

/// What signs tokens now.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
}

impl KeyRing {
    pub(crate) fn new(slots: Slots, clock: Clock, policy: KeyPolicy, refresh: Duration) -> Self {
        Self {
            slots,
            clock,
            policy,
            refresh_ms: millis(refresh),
            known: ArcSwapOption::empty(),
        }
    }

    /// The key to sign with now. What this node knows is good for a while; when its slot cannot be reached then, for longer.
    pub(crate) async fn signer(&self) -> Result<Signer, IdentityError> {
        let now_ms = self.clock.now_ms();
        let known = self.known.load_full();
        if let Some(known) = &known
            && now_ms < known.read_at_ms.saturating_add(self.refresh_ms)
            && let Some(signer) = Signer::of(&known.keys, now_ms)
        {
            return Ok(signer);
        }
        match (self.refreshed(now_ms).await, known) {
            (Ok(keys), _) => Signer::of(&keys, now_ms).ok_or_else(|| IdentityError::Keys("none is active".to_owned())),
            (Err(error), Some(known)) => {
                tracing::warn!(%error, "the signing keys could not be read again; signing with those known");
                Signer::of(&known.keys, now_ms).ok_or(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The keys as they stand, after a rotation if one is due.
    pub(crate) async fn refreshed(&self, now_ms: TimestampMs) -> Result<SigningKeys, IdentityError> {
        let mut keys = self.load().await?;
        if keys.is_rotation_due(now_ms, self.policy) {
            let policy = self.policy;
            keys = self
                .rotate(now_ms, move |keys| keys.is_rotation_due(now_ms, policy))
                .await?;
        }
        self.known.store(Some(Arc::new(Known {
            keys: keys.clone(),
            read_at_ms: now_ms,
        })));
        Ok(keys)
    }

    /// Makes a new key whatever the age of the newest one, unless one is waiting to become active already. Answers its name.
    pub(crate) async fn rotate_now(&self) -> Result<String, IdentityError> {
        let now_ms = self.clock.now_ms();
        let keys = self.rotate(now_ms, move |keys| keys.pending(now_ms).is_none()).await?;
        let newest = keys.iter().last().map(|key| key.kid().to_owned());
        self.known.store(Some(Arc::new(Known {
            keys,
            read_at_ms: now_ms,
        })));
        newest.ok_or_else(|| IdentityError::Keys("none is there after a rotation".to_owned()))
    }

    /// The one way to the stored keys, besides [`KeyRing::rotate`]: from the slot as this node serves it. Where the slot has
    /// another home, this becomes a call to it.
    async fn load(&self) -> Result<SigningKeys, IdentityError> {
        let loaded = self.slots.read(KEYS_SLOT, |read| async move {
            store::read_signing_keys(read.get(&keys::signing_keys()).await?)
        });
        loaded.await.map_err(unreachable)
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
        let (keys, has_rotated) = written.await.map_err(unreachable)?.value;
        if has_rotated {
            metrics::counter!("antiphon_signing_key_rotations_total").increment(1);
            tracing::info!(
                kid = keys.iter().last().map(crate::domain::SigningKey::kid),
                "made a new signing key"
            );
        }
        Ok(keys)
    }
}

impl Signer {
    fn of(keys: &SigningKeys, now_ms: TimestampMs) -> Option<Self> {
        let active = keys.active(now_ms)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(active.kid().to_owned());
        Some(Self {
            header,
            key: EncodingKey::from_ed_der(active.pkcs8()),
        })
    }

    pub(crate) fn sign(&self, body: &TokenBody) -> Result<String, IdentityError> {
        let signed = jsonwebtoken::encode(&self.header, body, &self.key);
        signed.map_err(|error| IdentityError::internal("the signing of an access token", &error))
    }
}

/// The slot of the keys is not the one that the request was routed by: its refusals, `NOT_HOME` above all, are not the caller's.
fn unreachable(error: SlotError) -> IdentityError {
    match error {
        SlotError::Corrupt { .. } => error.into(),
        SlotError::NotHome { .. }
        | SlotError::Overloaded { .. }
        | SlotError::TooLarge { .. }
        | SlotError::Timeout { .. }
        | SlotError::Closed { .. }
        | SlotError::ForeignKey { .. }
        | SlotError::Kv(_) => IdentityError::Keys(error.to_string()),
    }
}
