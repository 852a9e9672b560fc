//! The store that servers under test are started with: what the environment names in `ANTIPHON_TEST_STORE`, `embedded` or `fdb`.

use std::{env, path::Path, sync::OnceLock};

use super::fdb::{Cluster, Programs};

/// The cluster of all servers of this process; None where they are to keep their stores themselves.
pub(crate) fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let start = || {
        let store = env::var("ANTIPHON_TEST_STORE").unwrap_or_else(|_| "embedded".to_owned());
        match store.as_str() {
            "embedded" => None,
            "fdb" => Some(Cluster::start(programs(), 1, "single ssd")),
            other => panic!("ANTIPHON_TEST_STORE={other}: it is embedded or fdb"),
        }
    };
    CLUSTER.get_or_init(start).as_ref()
}

/// FoundationDB's programs, for tests that make no sense without them.
pub(crate) fn programs() -> Programs {
    Programs::find().expect("fdbserver is not there: ANTIPHON_FDB_BIN names the folder that has it")
}

/// What a program in `folder` is started with so that it keeps its slots in `cluster`, under a prefix of its own.
pub(crate) fn flags(cluster: Option<&Cluster>, folder: &Path) -> Vec<String> {
    let Some(cluster) = cluster else { return Vec::new() };
    let file = cluster.cluster_file().display().to_string();
    let prefix = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let flags = ["--store", "fdb", "--fdb-cluster-file", &file, "--set"];
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    flags.chain([format!("store.fdb_prefix={prefix}")]).collect()
}
