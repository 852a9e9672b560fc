use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use antiphon_kv::EmbeddedOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    deployment::{DeploymentSection, PlacementSection},
    edge::EdgeSection,
    identity::IdentitySection,
    services::{ConversationSection, DeliverySection, MessageSection, PresenceSection, SlotSection},
};

/// What a region's only node is called.
pub(crate) const FIRST_NODE: &str = "1";

/// After `node.base_port`: where a node listens for others.
const RPC_OFFSET: u16 = 4;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) node: NodeSection,
    pub(crate) store: StoreSection,
    pub(crate) slot: SlotSection,
    pub(crate) identity: IdentitySection,
    pub(crate) conversation: ConversationSection,
    pub(crate) message: MessageSection,
    pub(crate) delivery: DeliverySection,
    pub(crate) presence: PresenceSection,
    pub(crate) edge: EdgeSection,
    pub(crate) telemetry: TelemetrySection,
    pub(crate) deployment: DeploymentSection,
    pub(crate) placement: PlacementSection,
    pub(crate) world: WorldSection,
}

/// Which node this is, what it listens on, where it keeps what it stores.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSection {
    /// Name of the region that runs alone, without `world.regions`: 1 to 32 of a-z, 0-9 and dash.
    pub(crate) region: String,
    /// Folder of everything that is stored; created when it is missing. Each region has a folder of its own in it.
    pub(crate) data: PathBuf,
    /// Address to listen on for devices and for the nodes of other regions.
    pub(crate) host: IpAddr,
    /// Address to listen on for operators: metrics and health, but also every command of `antiphon ctl`, which nothing but this
    /// address guards. Another than the loopback one belongs to a network that operators alone reach.
    pub(crate) admin_host: IpAddr,
    /// Port of HTTP and WebSocket; what operators use is on the port after it.
    pub(crate) base_port: u16,
    /// Names this node among those of its region, which share one store: 1 to 32 of a-z, 0-9 and dash.
    pub(crate) id: String,
    /// Whether the region's voter in the directory is here. One node of a region has it, and keeps the directory's store; the others
    /// follow the voters that `deployment.regions` names, and store nothing of the directory.
    pub(crate) voter: bool,
    /// Where other nodes reach this one, `HOST:PORT`. Empty: `node.host` and the fourth port after `node.base_port`.
    pub(crate) rpc_address: String,
}

impl NodeSection {
    /// Where this node listens for others.
    pub(crate) fn rpc(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.base_port.saturating_add(RPC_OFFSET))
    }

    /// Where others are told to reach it.
    pub(crate) fn announced_rpc(&self) -> String {
        if self.rpc_address.is_empty() {
            return self.rpc().to_string();
        }
        self.rpc_address.clone()
    }

    /// Its folder in `data`.
    pub(crate) fn folder_name(&self) -> String {
        folder_name(&self.region, &self.id)
    }
}

/// The folder of a region's node, which is also how its process is called: the first has the region's name.
pub(crate) fn folder_name(region: &str, node: &str) -> String {
    if node == FIRST_NODE {
        return region.to_owned();
    }
    format!("{region}.{node}")
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            region: "local".to_owned(),
            data: PathBuf::from("./data"),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            admin_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            base_port: 7400,
            id: FIRST_NODE.to_owned(),
            voter: true,
            rpc_address: String::new(),
        }
    }
}

/// The key-value store below everything.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreSection {
    /// The engine: `embedded` keeps its files in the data folder; `fdb` keeps the slots in a FoundationDB cluster, and takes a binary that
    /// was built with `--features antiphon/fdb`.
    pub(crate) engine: StoreEngine,
    /// Bytes of memory for blocks that were read; of `embedded` only.
    pub(crate) cache_bytes: u64,
    /// Watches on keys that may wait at once.
    pub(crate) watches_max: usize,
    /// The cluster file of `fdb`; its client rewrites it when the coordinators move. Empty: the client's own default,
    /// `/etc/foundationdb/fdb.cluster`.
    pub(crate) fdb_cluster_file: PathBuf,
    /// What the keys of the deployment begin with in the cluster, followed by the region's name, so that several may share one. Empty:
    /// `deployment.name`.
    pub(crate) fdb_prefix: String,
    /// How long the cluster may take for one step of a transaction (its beginning, a read, its commit) before it counts as unavailable.
    pub(crate) fdb_transaction_timeout_ms: u64,
    /// PEM file of the certificate that is shown to the cluster. Empty: no TLS, and so for the two below.
    pub(crate) fdb_tls_certificate_file: PathBuf,
    /// PEM file of the certificate's key.
    pub(crate) fdb_tls_key_file: PathBuf,
    /// PEM file of the authority that signs the certificates of the cluster.
    pub(crate) fdb_tls_ca_file: PathBuf,
    /// Folder of the trace files of FoundationDB's client. Empty: none.
    pub(crate) fdb_trace_folder: PathBuf,
}

/// What keeps the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreEngine {
    /// A store inside this process.
    Embedded,
    /// A FoundationDB cluster.
    Fdb,
}

impl Default for StoreSection {
    fn default() -> Self {
        let options = EmbeddedOptions::default();
        Self {
            engine: StoreEngine::Embedded,
            cache_bytes: options.cache_bytes,
            watches_max: options.watches_max,
            fdb_cluster_file: PathBuf::new(),
            fdb_prefix: String::new(),
            fdb_transaction_timeout_ms: 2_000,
            fdb_tls_certificate_file: PathBuf::new(),
            fdb_tls_key_file: PathBuf::new(),
            fdb_tls_ca_file: PathBuf::new(),
            fdb_trace_folder: PathBuf::new(),
        }
    }
}

/// What is seen from outside: logs and traces. Metrics are always on, at `/metrics` of the admin port.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TelemetrySection {
    /// What is logged to standard error, in the syntax of `RUST_LOG`.
    pub(crate) log_filter: String,
    /// `pretty` for eyes, `json` for machines: one object a line.
    pub(crate) log_format: LogFormat,
    /// Base URL of an OpenTelemetry collector, such as `http://127.0.0.1:4318`; spans go to its `/v1/traces`. Empty: none.
    pub(crate) otlp_endpoint: String,
    /// `Authorization` header for the collector. Empty: none.
    #[schemars(extend("writeOnly" = true))]
    pub(crate) otlp_authorization: Secret,
    /// Share of new traces that are recorded, 0 to 1. A trace begun by a client keeps the client's decision.
    pub(crate) trace_ratio: f64,
    /// Which spans are recorded, in the syntax of `RUST_LOG`.
    pub(crate) trace_filter: String,
}

/// Several regions on one machine, a process each, with links between them that can be slowed and cut: `antiphon up --regions`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorldSection {
    /// Names of 2 to 9 regions; each has its ports 100 above the one before. Empty: one region, `node.region`, in this very process.
    pub(crate) regions: Vec<String>,
    /// Whether links begin with the delays between the places that the regions' names stand for.
    pub(crate) wan: bool,
    /// Processes of each region, 1 to 5, which share its store: more than one needs an engine that serves several processes. A world
    /// that is started again without it has as many as before.
    pub(crate) nodes: u16,
    /// A region that died is started again after a wait; its limit doubles with each failure in a row, up to this one.
    pub(crate) restart_wait_ms_max: u64,
}

impl Default for WorldSection {
    fn default() -> Self {
        Self {
            regions: ["us-east", "eu-central", "ap-northeast"].map(str::to_owned).to_vec(),
            wan: false,
            nodes: 1,
            restart_wait_ms_max: 10_000,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For eyes.
    Pretty,
    /// For machines.
    Json,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self {
            log_filter: "warn,antiphon=info".to_owned(),
            log_format: LogFormat::Pretty,
            otlp_endpoint: String::new(),
            otlp_authorization: Secret::default(),
            trace_ratio: 1.0,
            trace_filter: "warn,antiphon=debug".to_owned(),
        }
    }
}

/// A value that is never printed.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The value.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(empty)" } else { "(hidden)" })
    }
}

/// Whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
