//! Access tokens are verified here alone, against the deployment's public keys.

use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_identity::{AccessClaims, TokenError, TokenVerifier};
use antiphon_session::Refusal;
use antiphon_types::{Clock, ErrorCode};

use crate::calls::Calls;

/// Verifies access tokens; keeps the keys fresh.
pub(crate) struct Auth {
    calls: Calls,
    clock: Clock,
    verifier: TokenVerifier,
    /// The keys have been read from the identity service at least once.
    has_read: AtomicBool,
}

impl Auth {
    pub(crate) const fn new(calls: Calls, clock: Clock, verifier: TokenVerifier) -> Self {
        Self {
            calls,
            clock,
            verifier,
            has_read: AtomicBool::new(false),
        }
    }

    /// Verifies an access token. One of a key that is not known makes the keys be read again, at most every few seconds.
    pub(crate) async fn verify(&self, token: &str) -> Result<AccessClaims, Refusal> {
        let now_ms = self.clock.now_ms();
        match self.verifier.verify(token, now_ms) {
            Err(TokenError::UnknownKey { .. }) => {}
            verified => return verified.map_err(|error| refusal_of(&error)),
        }
        if self.verifier.claim_refetch(now_ms) {
            self.reread().await?;
        } else if !self.has_read.load(Ordering::Acquire) {
            let message = "the keys that verify tokens have not been read yet";
            return Err(Refusal::new(ErrorCode::Unavailable, message).retry_after(500));
        }
        self.verifier.verify(token, now_ms).map_err(|error| refusal_of(&error))
    }

    /// Reads the keys.
    pub(crate) async fn reread(&self) -> Result<(), Refusal> {
        let jwks = self.calls.jwks().await?;
        self.verifier.replace(&jwks).map_err(|error| {
            tracing::error!(%error, "the deployment's keys cannot be read");
            Refusal::new(ErrorCode::Unavailable, "the keys that verify tokens cannot be read").retry_after(1_000)
        })?;
        self.has_read.store(true, Ordering::Release);
        Ok(())
    }
}

fn refusal_of(error: &TokenError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}
