use std::{path::Path, time::Duration};

use antiphon_kv::Kv;
use antiphon_kv_fdb::{ClientOptions, FdbOptions, TlsFiles};
use anyhow::Result;

pub(crate) use antiphon_kv_fdb::stop;

use crate::config::Config;

/// Between two looks at a cluster that does not answer.
const LOOK: Duration = Duration::from_millis(200);

#[allow(clippy::unnecessary_wraps, reason = "as without FoundationDB")]
pub(super) fn is_built_in() -> Result<()> {
    Ok(())
}

/// Opens the store of the region, and waits until its cluster answers: whoever looks after the process could not do more.
pub(super) async fn open(config: &Config) -> Result<Kv> {
    let store = &config.store;
    let set = |file: &Path| (!file.as_os_str().is_empty()).then(|| file.to_owned());
    let tls = set(&store.fdb_tls_certificate_file).map(|certificate| TlsFiles {
        certificate,
        key: store.fdb_tls_key_file.clone(),
        ca: store.fdb_tls_ca_file.clone(),
    });
    let kv = antiphon_kv_fdb::open(FdbOptions {
        cluster_file: set(&store.fdb_cluster_file),
        prefix: super::prefix(config).to_vec(),
        step_timeout: Duration::from_millis(store.fdb_transaction_timeout_ms),
        watches_max: store.watches_max,
        client: ClientOptions {
            tls,
            trace_folder: set(&store.fdb_trace_folder),
        },
    });
    let kv = kv.await?;
    while kv.health().await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(kv)
}
