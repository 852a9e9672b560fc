//! The store of the slots, by the engine that the configuration names.

#[cfg(feature = "fdb")]
mod fdb;
#[cfg(not(feature = "fdb"))]
#[path = "store/without_fdb.rs"]
mod fdb;

use std::path::Path;

use antiphon_kv::{EmbeddedOptions, Kv};
use anyhow::{Context as _, Result};

use crate::config::{Config, StoreEngine};

pub(crate) use fdb::stop;

/// Refuses an engine that this binary was built without.
///
/// # Errors
/// What to build.
pub(crate) fn is_built_in(engine: StoreEngine) -> Result<()> {
    match engine {
        StoreEngine::Embedded => Ok(()),
        StoreEngine::Fdb => fdb::is_built_in(),
    }
}

/// Opens the store; what is in the node's folder is in `folder`.
///
/// # Errors
/// What cannot be opened.
pub(crate) async fn open(config: &Config, folder: &Path) -> Result<Kv> {
    is_built_in(config.store.engine)?;
    let opened = match config.store.engine {
        StoreEngine::Embedded => embedded(config, folder).await,
        StoreEngine::Fdb => fdb::open(config).await,
    };
    opened.with_context(|| format!("{} cannot be opened", place(config, folder)))
}

/// Which store it is, in words.
pub(crate) fn place(config: &Config, folder: &Path) -> String {
    match config.store.engine {
        StoreEngine::Embedded => format!("the store in {}", folder.join("store").display()),
        StoreEngine::Fdb => format!("the store {} on FoundationDB", prefix(config).join("/")),
    }
}

/// Whether other deployments may keep theirs in the same place.
pub(crate) fn is_shared(config: &Config) -> bool {
    config.store.engine == StoreEngine::Fdb
}

async fn embedded(config: &Config, folder: &Path) -> Result<Kv> {
    let options = EmbeddedOptions {
        path: folder.join("store"),
        cache_bytes: config.store.cache_bytes,
        watches_max: config.store.watches_max,
    };
    Ok(Kv::open_embedded(options).await?)
}

/// The names before every key in a cluster: the deployment's and the region's.
fn prefix(config: &Config) -> [String; 2] {
    let deployment = if config.store.fdb_prefix.is_empty() {
        &config.deployment.name
    } else {
        &config.store.fdb_prefix
    };
    [deployment.clone(), config.node.region.clone()]
}
