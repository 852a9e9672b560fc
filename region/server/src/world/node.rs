//! One node of a world, as the process that the supervisor starts: `antiphon node --world FILE --region NAME --index I`, and for those
//! after the first of their region `--node NUMBER`.
//!
//! Its standard input is its lifeline: when it ends, the supervisor is gone, and the region drains.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::plan::{self, World, loopback};
use crate::{
    config::{Config, FIRST_NODE},
    deployment::Membership,
    shutdown::Shutdown,
    up,
};

/// Which node of which world.
#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    /// File of the world, in its data folder
    #[arg(long, value_name = "FILE")]
    pub(crate) world: PathBuf,
    /// Name of the region
    #[arg(long, value_name = "NAME")]
    pub(crate) region: String,
    /// Its index in the world
    #[arg(long, value_name = "NUMBER")]
    pub(crate) index: u16,
    /// Its number in the region
    #[arg(long, value_name = "NUMBER", default_value = FIRST_NODE)]
    pub(crate) node: String,
}

/// A node's place in its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name of its region.
    pub(crate) name: String,
    /// Names it among the nodes of its region.
    pub(crate) node: String,
    /// Where the region's voter listens, for a node that has none.
    pub(crate) voter: Option<SocketAddr>,
    /// First port of the world.
    base_port: u16,
    /// 0 to 8, never given to another region of the world.
    pub(crate) index: u16,
    /// What the directory knows it by.
    pub(crate) id: u64,
    /// Whether it has come to a world that was there.
    pub(crate) joins: bool,
    /// Folder of the world; the region's own is the one of its name in it.
    pub(crate) data: PathBuf,
    /// HTTP and WebSocket; admin is on the port after it.
    pub(crate) http_port: u16,
    /// Where it listens for the nodes of other regions.
    pub(crate) rpc: SocketAddr,
    /// The other regions.
    pub(crate) peers: Vec<Peer>,
}

/// Another region, as this one reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// What the directory knows it by.
    pub(crate) id: u64,
    /// Whether it has come to a world that was there.
    pub(crate) joins: bool,
    /// Where its nodes listen; what is dialled is [`Place::detour`].
    pub(crate) rpc: SocketAddr,
    /// Where devices reach its edge.
    pub(crate) edge: SocketAddr,
}

impl Place {
    /// Looks the region up in the world file.
    ///
    /// # Errors
    /// When the file is not there, or knows no such region under that index.
    pub(crate) fn find(args: &ChildArgs) -> Result<Self> {
        let world = World::read(&args.world)?;
        let Some(own) = world.region(&args.region).filter(|own| own.index == args.index) else {
            bail!(
                "the world file {} knows no region {} with index {}; its regions are {}",
                args.world.display(),
                args.region,
                args.index,
                world.names().join(",")
            );
        };
        let nodes = world.nodes_of(own);
        let Some(node) = nodes.iter().find(|node| node.node == args.node) else {
            bail!(
                "the world file {} knows no node {} of region {}; it has {}",
                args.world.display(),
                args.node,
                args.region,
                world.nodes
            );
        };
        let peers = world.regions.iter().filter(|peer| peer.index != own.index);
        let peers = peers.map(|peer| Peer {
            name: peer.name.clone(),
            id: peer.id(),
            joins: peer.joined_as.is_some(),
            rpc: loopback(peer.rpc_port),
            edge: loopback(peer.http_port),
        });
        Ok(Self {
            name: own.name.clone(),
            index: own.index,
            id: own.id(),
            joins: own.joined_as.is_some(),
            data: args.world.parent().map(PathBuf::from).unwrap_or_default(),
            http_port: node.http_port,
            rpc: loopback(node.rpc_port),
            voter: (!node.is_first()).then(|| loopback(own.rpc_port)),
            node: node.node.clone(),
            base_port: world.base_port,
            peers: peers.collect(),
        })
    }

    /// What this region dials instead of an address between nodes: the link to that region.
    pub(crate) fn detour(&self) -> impl Fn(&str) -> Option<String> + Send + Sync + use<> {
        let (index, base_port) = (self.index, self.base_port);
        move |address| plan::detour(base_port, index, address).map(|link| link.to_string())
    }

    /// The settings that the place decides: key, value and what decided it, as the command line has them.
    ///
    /// # Errors
    /// When the folder's name is no text.
    pub(crate) fn settings(&self) -> Result<Vec<(String, String, String)>> {
        let data = self.data.to_str().context("the world's folder is not UTF-8")?;
        let port = self.http_port.to_string();
        let settings = [
            ("node.region", self.name.as_str()),
            ("node.id", self.node.as_str()),
            ("node.data", data),
            ("node.base_port", &port),
            ("world.regions", ""),
            ("deployment.regions", ""),
            ("world.wan", "false"),
            ("world.nodes", "1"),
        ];
        let flag = |(key, text): (&str, &str)| (key.to_owned(), text.to_owned(), "of the world".to_owned());
        Ok(settings.map(flag).to_vec())
    }
}

/// Runs the node until it is asked to end or its supervisor is gone.
///
/// # Errors
/// What kept it from starting.
pub(crate) async fn run(config: Config, place: Place) -> Result<()> {
    let shutdown = Shutdown::of_child()?;
    let pid_file = place.data.join(config.node.folder_name()).join("pid");
    let membership = Membership::in_world(&place, &config)?;
    let ended = Box::pin(up::run(config, shutdown, Some(membership))).await;
    // Without a supervisor nobody else would, and the number may be given to another process.
    let own = std::process::id().to_string();
    if std::fs::read_to_string(&pid_file).is_ok_and(|pid| pid.trim() == own) {
        let _ = std::fs::remove_file(&pid_file);
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let names = ["us-east", "eu-central", "ap-northeast"].map(str::to_owned);
        let world = World::find(folder.path(), &names, 7400).unwrap();
        let file = world.keep(folder.path()).unwrap();
        (folder, file)
    }

    fn find(world: &std::path::Path, region: &str, index: u16) -> Result<Place> {
        Place::find(&ChildArgs {
            world: world.to_owned(),
            region: region.to_owned(),
            index,
            node: FIRST_NODE.to_owned(),
        })
    }

    #[test]
    fn a_region_reaches_the_others_through_links_of_its_own() {
        let (folder, file) = world();
        let place = find(&file, "eu-central", 1).unwrap();
        assert_eq!((place.http_port, place.rpc.port()), (7500, 7504));
        assert_eq!(place.data, folder.path());
        let peers = place.peers.iter();
        let peers: Vec<(&str, u64, u16)> = peers
            .map(|peer| (peer.name.as_str(), peer.id, peer.edge.port()))
            .collect();
        assert_eq!(peers, [("us-east", 1, 7400), ("ap-northeast", 3, 7600)]);
        let detour = place.detour();
        let dialled: Vec<_> = place.peers.iter().map(|peer| detour(&peer.rpc.to_string())).collect();
        assert_eq!(
            dialled,
            [Some("127.0.0.1:7550".to_owned()), Some("127.0.0.1:7552".to_owned())]
        );
    }

    #[test]
    fn a_further_node_has_ports_of_its_own_and_knows_where_the_voter_is() {
        let (_folder, file) = world();
        World::read(&file).unwrap().with_nodes(3).write(&file).unwrap();
        let find = |node: &str| {
            Place::find(&ChildArgs {
                world: file.clone(),
                region: "eu-central".to_owned(),
                index: 1,
                node: node.to_owned(),
            })
        };
        let third = find("3").unwrap();
        assert_eq!((third.http_port, third.rpc.port()), (7520, 7524));
        assert_eq!(third.voter, Some(loopback(7504)));
        assert_eq!(find("1").unwrap().voter, None);
        let detour = third.detour();
        assert_eq!(detour("127.0.0.1:7424"), Some("127.0.0.1:7568".to_owned()));
        assert_eq!(detour("127.0.0.1:7504"), None);
        assert!(find("4").unwrap_err().to_string().contains("it has 3"));
    }

    #[test]
    fn a_region_that_the_world_does_not_know_is_refused() {
        let (_folder, file) = world();
        for (region, index) in [("eu-central", 2), ("mars", 0)] {
            let error = find(&file, region, index).unwrap_err().to_string();
            assert!(
                error.contains(region) && error.contains("us-east,eu-central"),
                "{error}"
            );
        }
        assert!(find(&file.with_extension("gone"), "us-east", 0).is_err());
    }
}
