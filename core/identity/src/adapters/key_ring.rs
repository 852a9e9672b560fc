use std::{sync::Arc, time::Duration};

use antiphon_directory::Route;
use antiphon_proto::{
    log, refusal,
    rpc::{SigningKeysRequest, identity_client::IdentityClient},
};
use antiphon_types::{Clock, TimestampMs};
use arc_swap::ArcSwapOption;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message as _;

use super::store;
use crate::{
    IdentityError,
    domain::{SigningKeys, TokenBody},
    options::{KEYS_SLOT, millis},
};

/// The deployment's signing keys as this node knows them: asked for at the home of their slot, remembered for a while.
pub(crate) struct KeyRing {
    route: Route,
    clock: Clock,
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
    pub(crate) fn new(route: Route, clock: Clock, refresh: Duration) -> Self {
        Self {
            route,
            clock,
            refresh_ms: millis(refresh),
            known: ArcSwapOption::empty(),
        }
    }

    /// The key to sign with now. What this node knows is good for a while; when its home cannot be reached then, for longer.
    pub(crate) async fn signer(&self) -> Result<Signer, IdentityError> {
        let now_ms = self.clock.now_ms();
        let known = self.known.load_full();
        if let Some(known) = &known
            && now_ms < known.read_at_ms.saturating_add(self.refresh_ms)
            && let Some(signer) = Signer::of(&known.keys, now_ms)
        {
            return Ok(signer);
        }
        match (self.refresh().await, known) {
            (Ok(keys), _) => {
                Signer::of(&keys.keys, now_ms).ok_or_else(|| IdentityError::Keys("none is active".to_owned()))
            }
            (Err(error), Some(known)) => {
                tracing::warn!(%error, "the signing keys could not be read again; signing with those known");
                Signer::of(&known.keys, now_ms).ok_or(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Asks for the keys again; their home makes a new one when it is due.
    async fn refresh(&self) -> Result<Arc<Known>, IdentityError> {
        let mut home = IdentityClient::new(self.route.to(KEYS_SLOT));
        let answer = home
            .signing_keys(SigningKeysRequest {})
            .await
            .map_err(|status| IdentityError::Keys(format!("{}: {}", refusal::of(&status).code, status.message())))?;
        let stored = log::SigningKeys::decode(answer.into_inner().keys);
        let stored = stored.map_err(|error| IdentityError::Keys(error.to_string()))?;
        let known = Arc::new(Known {
            keys: store::signing_keys(&stored)?,
            read_at_ms: self.clock.now_ms(),
        });
        self.known.store(Some(known.clone()));
        Ok(known)
    }

    /// As [`KeyRing::signer`] does from time to time: a deployment where nobody logs in rotates its keys too.
    pub(crate) async fn look_after(&self) -> Result<(), IdentityError> {
        self.refresh().await.map(drop)
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
