use std::{path::PathBuf, time::Duration};

/// How a store on a cluster is opened.
#[derive(Debug, Clone)]
pub struct FdbOptions {
    /// The cluster file, which says where the coordinators are; the client rewrites it when they move. None: the client's own default,
    /// `FDB_CLUSTER_FILE` of the environment or `/etc/foundationdb/fdb.cluster`.
    pub cluster_file: Option<PathBuf>,
    /// The names that make the prefix of all keys. Stores under other names share nothing, even where one name begins with the other.
    pub prefix: Vec<String>,
    /// How long the cluster may take for one step of a transaction: its beginning, a read, its commit.
    pub step_timeout: Duration,
    /// Watches that may wait at once.
    pub watches_max: usize,
    /// What all stores of the process share.
    pub client: ClientOptions,
}

/// How the client runs: the same for all stores of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// What the client shows to the cluster and believes it by; None for a cluster without TLS.
    pub tls: Option<TlsFiles>,
    /// The folder of the client's own trace files; None: it writes none.
    pub trace_folder: Option<PathBuf>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The client's certificate and those between it and the authority.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// The authority that signs the certificates of the cluster.
    pub ca: PathBuf,
}

impl Default for FdbOptions {
    fn default() -> Self {
        Self {
            cluster_file: None,
            prefix: vec!["antiphon".to_owned()],
            step_timeout: Duration::from_secs(2),
            watches_max: 10_000,
            client: ClientOptions::default(),
        }
    }
}
