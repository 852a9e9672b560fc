use std::path::PathBuf;

use antiphon_directory::domain::Policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The regions that this one belongs with, each on machines of its own. The same in every region, but for the files.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeploymentSection {
    /// Names the deployment: nodes of two deployments refuse each other.
    pub(crate) name: String,
    /// The regions that found the deployment, `node.region` among them, in the same order everywhere; each is a string of three words,
    /// `NAME HOST:PORT URL`: its name, where the nodes of other regions reach it, and the base URL of its edges. Such a node listens for
    /// the others on the fourth port after `node.base_port`. Empty: `node.region` is alone.
    pub(crate) regions: Vec<String>,
    /// The id that `antiphon ctl region add` gave to this region, for one that has come after the founding; `regions` then names the
    /// first ones and, at the end, this one. 0: it is one of the first.
    pub(crate) region_id: u64,
    /// PEM file of the certificate authority of the deployment: peers are believed by it alone.
    pub(crate) ca_file: PathBuf,
    /// PEM file of this region's certificate, for client and server, with the DNS name `<region>.region.antiphon`.
    pub(crate) certificate_file: PathBuf,
    /// PEM file of the certificate's key.
    pub(crate) key_file: PathBuf,
}

impl Default for DeploymentSection {
    fn default() -> Self {
        Self {
            name: "antiphon".to_owned(),
            regions: Vec::new(),
            region_id: 0,
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}

/// Where copies of slots are, as the deployment is founded.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlacementSection {
    /// Regions that hold a message before it is acknowledged, the home among them; with fewer regions than that, all of them.
    pub(crate) in_sync_copies: u8,
    /// Below this many a slot refuses writes rather than promise what it cannot keep.
    pub(crate) min_in_sync: u8,
    /// `global`: acknowledged when every in-sync region holds it, so that losing a region loses nothing. `regional`: acknowledged when
    /// the home holds it; losing the home may lose the last moments.
    pub(crate) durability: DurabilityName,
    /// Which regions may hold copies of whose slots, so that data stays in a jurisdiction: strings `HOME: REGION REGION`. A home that
    /// is not named allows all; whoever is allowed must itself allow no more.
    pub(crate) allowed: Vec<String>,
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DurabilityName {
    /// When every in-sync region holds it.
    Global,
    /// When the home holds it.
    Regional,
}

impl Default for PlacementSection {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            in_sync_copies: policy.in_sync_copies,
            min_in_sync: policy.min_in_sync,
            durability: DurabilityName::Global,
            allowed: Vec::new(),
        }
    }
}
