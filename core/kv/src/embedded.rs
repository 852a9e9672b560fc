use std::path::PathBuf;

/// How the embedded engine is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The folder of the store; created when it is missing.
    pub path: PathBuf,
    /// Bytes of the block cache.
    pub cache_bytes: u64,
}
