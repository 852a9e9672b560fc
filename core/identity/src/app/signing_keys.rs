use antiphon_proto::rpc::SigningKeysResponse;
use prost::Message as _;

use crate::{IdentityError, adapters::store, identity::Inner};

/// The keys that sign, private halves included, for the identity services of the other regions.
pub(crate) async fn signing_keys(inner: &Inner) -> Result<SigningKeysResponse, IdentityError> {
    let keys = inner.key_store.current(inner.clock.now_ms()).await?;
    Ok(SigningKeysResponse {
        keys: store::stored_signing_keys(&keys).encode_to_vec().into(),
    })
}
