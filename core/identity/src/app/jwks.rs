use crate::{IdentityError, identity::Inner, verifier};

/// The public keys that verify access tokens, as they stand: edges ask rarely, and then for what is new.
pub(crate) async fn jwks(inner: &Inner) -> Result<String, IdentityError> {
    let now_ms = inner.clock.now_ms();
    let keys = inner.key_store.current(now_ms).await?;
    verifier::jwks_json(keys.published(now_ms)).map_err(|error| IdentityError::internal("the JWK set", &error))
}
