//! Access tokens are verified here alone, against the deployment's public keys.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_identity::{AccessClaims, TokenError, TokenVerifier};
use antiphon_session::Refusal;
use antiphon_types::{Clock, ErrorCode};
use parking_lot::RwLock;

use crate::calls::Calls;

/// A token of a key that is not known makes the keys be read again at most this often.
const REREAD_INTERVAL_MS: u64 = 2_000;

/// Verifies access tokens; keeps the keys.
pub(crate) struct Auth {
    calls: Calls,
    clock: Clock,
    keys: RwLock<Option<Arc<TokenVerifier>>>,
    read_at_ms: AtomicU64,
}

impl Auth {
    /// `verifier` is what is known at the start; without it the keys are read from the identity service at first use.
    pub(crate) fn new(calls: Calls, clock: Clock, verifier: Option<TokenVerifier>) -> Self {
        Self {
            calls,
            clock,
            keys: RwLock::new(verifier.map(Arc::new)),
            read_at_ms: AtomicU64::new(0),
        }
    }

    /// Verifies an access token.
    pub(crate) async fn verify(&self, token: &str) -> Result<AccessClaims, Refusal> {
        if let Some(verified) = self.verify_with_known_keys(token) {
            return verified;
        }
        self.reread_at_most_every(REREAD_INTERVAL_MS).await?;
        self.verify_with_known_keys(token).unwrap_or_else(|| {
            Err(Refusal::new(
                ErrorCode::Unauthenticated,
                "the access token is signed with a key that is not known",
            ))
        })
    }

    /// Reads the keys.
    pub(crate) async fn reread(&self) -> Result<(), Refusal> {
        let jwks = self.calls.jwks().await?;
        let verifier = TokenVerifier::from_jwks(&jwks).map_err(|error| {
            tracing::error!(%error, "the deployment's keys cannot be read");
            Refusal::new(ErrorCode::Unavailable, "the keys that verify tokens cannot be read").retry_after(1_000)
        })?;
        *self.keys.write() = Some(Arc::new(verifier));
        Ok(())
    }

    /// `None` when the key of the token is not known (yet).
    fn verify_with_known_keys(&self, token: &str) -> Option<Result<AccessClaims, Refusal>> {
        let verifier = self.keys.read().clone()?;
        match verifier.verify(token, self.clock.now_ms()) {
            Ok(claims) => Some(Ok(claims)),
            Err(TokenError::UnknownKey { .. }) => None,
            Err(TokenError::Expired) => Some(Err(Refusal::new(
                ErrorCode::TokenExpired,
                "the access token has expired; refresh it",
            ))),
            Err(error @ TokenError::Malformed) => Some(Err(Refusal::new(
                ErrorCode::Unauthenticated,
                format!("the access token is not valid: {error}"),
            ))),
        }
    }

    /// Reads the keys unless that was done a moment ago: whoever sends forged tokens does not make this edge ask for each.
    async fn reread_at_most_every(&self, interval_ms: u64) -> Result<(), Refusal> {
        let now_ms = self.clock.now_ms();
        let read_at_ms = self.read_at_ms.load(Ordering::Relaxed);
        let known = self.keys.read().is_some();
        if known && now_ms.saturating_sub(read_at_ms) < interval_ms {
            return Ok(());
        }
        self.read_at_ms.store(now_ms, Ordering::Relaxed);
        self.reread().await
    }
}
