use antiphon_kv::Kv;
use anyhow::{Result, bail};

use crate::config::Config;

const MISSING: &str = "this antiphon was built without FoundationDB (setting `store.engine`, flag --store): build it by `cargo build --release \
                       --features antiphon/fdb`, where libfdb_c 7.3 and libclang are installed";

pub(super) fn is_built_in() -> Result<()> {
    bail!(MISSING)
}

#[allow(clippy::unused_async, reason = "as with FoundationDB")]
pub(super) async fn open(_config: &Config) -> Result<Kv> {
    bail!(MISSING)
}

/// Nothing runs that would have to be stopped.
pub(crate) fn stop() {}

#[cfg(test)]
mod tests {
    use crate::{config::StoreEngine, store};

    #[test]
    fn an_engine_that_is_not_built_in_is_refused_with_what_to_build() {
        store::is_built_in(StoreEngine::Embedded).unwrap();
        let refused = store::is_built_in(StoreEngine::Fdb).unwrap_err().to_string();
        for word in ["--store", "--features antiphon/fdb", "libfdb_c"] {
            assert!(refused.contains(word), "{refused}");
        }
    }
}
