use crate::{IdentityError, identity::Inner};

/// Publishes a new signing key, which takes over once edges had time to fetch it. While one waits already, it is that one.
pub(crate) async fn rotate_keys(inner: &Inner) -> Result<String, IdentityError> {
    inner.key_store.rotate_now(inner.clock.now_ms()).await
}
