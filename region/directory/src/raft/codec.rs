//! MessagePack with field names: what is stored and sent of openraft's types and the domain's. Names let a field be added.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tonic::Status;

/// Bytes that are not what they should be, or a value that cannot be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {cause}")]
pub(crate) struct CodecError {
    what: &'static str,
    cause: String,
}

impl CodecError {
    /// The status for who has sent the bytes.
    pub(crate) fn malformed(self) -> Status {
        Status::invalid_argument(self.to_string())
    }

    /// The status for who waits for the value.
    pub(crate) fn internal(self) -> Status {
        Status::internal(self.to_string())
    }
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Writes `value`; `what` names it in an error.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Bytes, CodecError> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| CodecError {
        what,
        cause: error.to_string(),
    })?;
    Ok(bytes.into())
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes).map_err(|error| CodecError {
        what,
        cause: error.to_string(),
    })
}
