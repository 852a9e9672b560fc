use crate::KvError;

/// What the port accepts, whatever the engine: FoundationDB's limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Bytes of all keys and values written, and of the conflict ranges read.
    pub transaction_bytes_max: usize,
    /// Age of a transaction's snapshot.
    pub transaction_age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 10_000,
            value_bytes_max: 100_000,
            transaction_bytes_max: 1_000_000,
            transaction_age_ms_max: 5_000,
        }
    }
}

impl Limits {
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), KvError> {
        if key.is_empty() {
            return Err(KvError::Io("a key of 0 bytes is refused".to_owned()));
        }
        check("a key", key.len(), self.key_bytes_max)
    }

    /// The end of a range may be the key right after the longest key.
    pub(crate) fn check_bounds(&self, start: &[u8], end: &[u8]) -> Result<(), KvError> {
        check("a range's bound", start.len().max(end.len()), self.key_bytes_max + 1)
    }

    pub(crate) fn check_value(&self, value: &[u8]) -> Result<(), KvError> {
        check("a value", value.len(), self.value_bytes_max)
    }

    pub(crate) fn check_transaction(&self, bytes: usize) -> Result<(), KvError> {
        check("a transaction", bytes, self.transaction_bytes_max)
    }
}

fn check(what: &'static str, size: usize, limit: usize) -> Result<(), KvError> {
    if size > limit {
        return Err(KvError::TooLarge { what, size, limit });
    }
    Ok(())
}
