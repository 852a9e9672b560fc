//! Who is in a world and on which ports; written down at its first start.
//!
//! Region `i` (0 to 8) has the hundred of ports from `base_port + 100·i`, and node `k` of it (0 to 4) ten of those:
//!
//! | offset | |
//! |---|---|
//! | 10·k | HTTP and WebSocket |
//! | 10·k + 1 | admin: metrics, health |
//! | 10·k + 2 | WebTransport (UDP) |
//! | 10·k + 3 | QUIC (UDP) |
//! | 10·k + 4 | between nodes of any region (mTLS) |
//! | 50 + 9·k + j | what region `i` dials to reach node `k` of region `j` |
//! | 99 | of region 0 only: admin of the world |
//!
//! The first node of each region has the region's voter in the directory; the others store nothing of their own, so a world may be
//! started with more or fewer of them than before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    link::{LinkPlan, LinkSettings},
    places,
};
use crate::config::{FIRST_NODE, folder_name};

/// Regions of one world.
pub(crate) const REGIONS_MAX: usize = 9;
/// Nodes of one region of a world.
pub(crate) const NODES_MAX: u16 = 5;
const PORTS_PER_REGION: u16 = 100;
const PORTS_PER_NODE: u16 = 10;
/// What a region dials to reach the first nodes of all regions, before what it dials to reach the second ones.
const LINKS_PER_NODE: u16 = 9;
const ADMIN: u16 = 1;
const RPC: u16 = 4;
const LINKS: u16 = 50;
const WORLD: u16 = 99;

/// The file's name in the data folder.
pub(crate) const WORLD_FILE: &str = "world.toml";
const HEAD: &str = "\
# The regions of the world in this folder, written by its first start. What they hold depends on each other,
# so regions come and go by `antiphon ctl region` alone; to have others, start a new world in another folder.
";

/// A world, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct World {
    pub(crate) base_port: u16,
    /// Admin port of the world itself.
    pub(crate) admin_port: u16,
    /// The lowest index that was never given; 0 in a world to which no region has come and from which none has gone.
    #[serde(default)]
    next_index: u16,
    /// Processes of each region.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) nodes: u16,
    /// In the order of their indexes.
    pub(crate) regions: Vec<RegionPlan>,
}

/// One region of a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionPlan {
    pub(crate) name: String,
    /// 0 for the first; never given to another region of the world.
    pub(crate) index: u16,
    /// What the directory has named it when it came to a world that was there; none for the regions that have founded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) joined_as: Option<u64>,
    /// HTTP and WebSocket.
    pub(crate) http_port: u16,
    pub(crate) admin_port: u16,
    /// Between nodes.
    pub(crate) rpc_port: u16,
    /// By name of another region: the port to dial to reach its first node.
    pub(crate) links: BTreeMap<String, u16>,
}

/// One node of a region: a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePlan {
    pub(crate) region: String,
    /// Index of the region.
    pub(crate) index: u16,
    /// Names it among those of the region: `1` for the first.
    pub(crate) node: String,
    /// How its process and its folder are called.
    pub(crate) name: String,
    /// HTTP and WebSocket.
    pub(crate) http_port: u16,
    pub(crate) admin_port: u16,
    /// Between nodes.
    pub(crate) rpc_port: u16,
}

impl NodePlan {
    /// Its folder in the folder of the world.
    pub(crate) fn folder(&self, data: &Path) -> PathBuf {
        data.join(&self.name)
    }

    /// Whether the region's voter in the directory is here.
    pub(crate) fn is_first(&self) -> bool {
        self.node == FIRST_NODE
    }
}

const fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_one(nodes: &u16) -> bool {
    *nodes == 1
}

/// The first port that a world of so many regions does not use.
pub(crate) fn ports_end(base_port: u16, regions: usize) -> u32 {
    let ports = u32::from(PORTS_PER_REGION) * u32::try_from(regions).unwrap_or(u32::MAX / 200);
    u32::from(base_port) + ports
}

/// Where something of a world listens that no other machine is to reach.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What region `from` of the world at `base_port` dials instead of the port between nodes of another region of that world.
///
/// A rule and not a list: it holds for regions that come later.
pub(crate) fn detour(base_port: u16, from: u16, address: &str) -> Option<SocketAddr> {
    let address: SocketAddr = address.parse().ok()?;
    let offset = address.port().checked_sub(base_port)?.checked_sub(RPC)?;
    let (to, within) = (offset / PORTS_PER_REGION, offset % PORTS_PER_REGION);
    let node = within / PORTS_PER_NODE;
    let is_rpc = within.is_multiple_of(PORTS_PER_NODE) && node < NODES_MAX && usize::from(to) < REGIONS_MAX;
    // Nodes of one region have no link between them.
    (is_rpc && to != from && address.ip().is_loopback()).then(|| loopback(link(base_port, from, (to, node))))
}

/// The port that region `from` dials to reach a node of another region, both by index.
fn link(base_port: u16, from: u16, (to, node): (u16, u16)) -> u16 {
    first_port(base_port, from).saturating_add(LINKS + LINKS_PER_NODE * node + to)
}

fn first_port(base_port: u16, region: u16) -> u16 {
    base_port.saturating_add(PORTS_PER_REGION.saturating_mul(region))
}

/// Where the world's own admin port is.
pub(crate) fn world_admin(base_port: u16) -> SocketAddr {
    loopback(base_port.saturating_add(WORLD))
}

/// The regions of the world in `data`; none when there is no world.
///
/// # Errors
/// When its file cannot be read.
pub(crate) fn names_in(data: &Path) -> Result<Option<Vec<String>>> {
    let path = data.join(WORLD_FILE);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(World::read(&path)?.names()))
}

/// How many nodes each region of the world in `data` has; none when there is no world.
///
/// # Errors
/// When its file cannot be read.
pub(crate) fn nodes_in(data: &Path) -> Result<Option<u16>> {
    let path = data.join(WORLD_FILE);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(World::read(&path)?.nodes))
}

/// Refuses to let a region run alone on what depends on others.
///
/// # Errors
/// When there is a world in `data`.
pub(crate) fn none_in(data: &Path) -> Result<()> {
    if let Some(names) = names_in(data)? {
        bail!(
            "the folder {} holds a world of {names}: start it with --regions {names}, or one region alone with --data \
             ANOTHER_FOLDER",
            data.display(),
            names = names.join(","),
        );
    }
    Ok(())
}

impl World {
    /// The world of `names`, which get their indexes in this order. At most [`REGIONS_MAX`], and ports up to [`ports_end`].
    fn new(names: &[String], base_port: u16) -> Self {
        let mut world = Self {
            base_port,
            admin_port: world_admin(base_port).port(),
            next_index: 0,
            nodes: 1,
            regions: Vec::new(),
        };
        for (index, name) in (0..).zip(names) {
            world.insert(name, index);
        }
        world
    }

    /// This world and one more region, which has been given ports and no id yet.
    ///
    /// # Errors
    /// When the name is taken, or every index was given.
    pub(crate) fn with(&self, name: &str) -> Result<Self> {
        if self.region(name).is_some() {
            bail!("there is a region {name} already");
        }
        let given = self.regions.iter().map(|region| region.index + 1);
        let index = given.fold(self.next_index, u16::max);
        if usize::from(index) >= REGIONS_MAX || ports_end(self.base_port, usize::from(index) + 1) > u32::from(u16::MAX)
        {
            bail!("a world has room for {REGIONS_MAX} regions in its life, those that have left it included");
        }
        let mut world = self.clone();
        world.insert(name, index);
        world.next_index = index + 1;
        Ok(world)
    }

    /// This world with so many nodes in each region.
    pub(crate) fn with_nodes(mut self, nodes: u16) -> Self {
        self.nodes = nodes.clamp(1, NODES_MAX);
        self
    }

    /// The nodes of a region, the first with the voter.
    pub(crate) fn nodes_of(&self, region: &RegionPlan) -> Vec<NodePlan> {
        let node = |at: u16| {
            let node = (at + 1).to_string();
            NodePlan {
                region: region.name.clone(),
                index: region.index,
                name: folder_name(&region.name, &node),
                node,
                http_port: region.http_port.saturating_add(PORTS_PER_NODE * at),
                admin_port: region.admin_port.saturating_add(PORTS_PER_NODE * at),
                rpc_port: region.rpc_port.saturating_add(PORTS_PER_NODE * at),
            }
        };
        (0..self.nodes).map(node).collect()
    }

    /// This world, in which the directory has given a region its id.
    pub(crate) fn joined(mut self, name: &str, id: u64) -> Self {
        for region in self.regions.iter_mut().filter(|region| region.name == name) {
            region.joined_as = Some(id);
        }
        self
    }

    /// This world without a region, whose index is never given again.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut world = self.clone();
        let given = self.regions.iter().map(|region| region.index + 1);
        world.next_index = given.fold(self.next_index, u16::max);
        world.regions.retain(|region| region.name != name);
        for region in &mut world.regions {
            region.links.remove(name);
        }
        world
    }

    /// Adds a region, and what it and the others dial to reach each other.
    fn insert(&mut self, name: &str, index: u16) {
        let first_of = |index: u16| first_port(self.base_port, index);
        let link = |from: u16, to: u16| link(self.base_port, from, (to, 0));
        let others = self.regions.iter();
        let region = RegionPlan {
            name: name.to_owned(),
            index,
            joined_as: None,
            http_port: first_of(index),
            admin_port: first_of(index).saturating_add(ADMIN),
            rpc_port: first_of(index).saturating_add(RPC),
            links: others
                .map(|other| (other.name.clone(), link(index, other.index)))
                .collect(),
        };
        let ways: Vec<u16> = self.regions.iter().map(|other| link(other.index, index)).collect();
        for (other, way) in self.regions.iter_mut().zip(ways) {
            other.links.insert(name.to_owned(), way);
        }
        self.regions.push(region);
    }

    /// The world in `data`, which must be the one asked for; without one there, the one that [`World::keep`] is to write.
    ///
    /// # Errors
    /// When the folder holds another world, or its file cannot be read.
    pub(crate) fn find(data: &Path, names: &[String], base_port: u16) -> Result<Self> {
        let path = data.join(WORLD_FILE);
        if !path.exists() {
            if let Some(alone) = region_alone(data) {
                bail!(
                    "the folder {} holds the region {alone}, which has run alone: start it with --regions {alone}, or a world \
                     with --data ANOTHER_FOLDER",
                    data.display()
                );
            }
            return Ok(Self::new(names, base_port));
        }
        let world = Self::read(&path)?;
        let here: BTreeSet<&str> = world.regions.iter().map(|region| region.name.as_str()).collect();
        let asked: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if here != asked {
            bail!(
                "the world in {} has the regions {here}, not {asked}: start it with --regions {here}, or a new world with \
                 --data ANOTHER_FOLDER",
                data.display(),
                here = world.names().join(","),
                asked = names.join(","),
            );
        }
        if world.base_port != base_port {
            bail!(
                "the world in {} has its ports from {here} on, not from {base_port}: start it with --base-port {here}, or a \
                 new world with --data ANOTHER_FOLDER",
                data.display(),
                here = world.base_port,
            );
        }
        Ok(world)
    }

    /// Writes the world down in `data`, if it is not there yet as it is, and returns the file's path.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn keep(&self, data: &Path) -> Result<PathBuf> {
        let path = data.join(WORLD_FILE);
        if !path.exists() || Self::read(&path)? != *self {
            self.write(&path).with_context(|| {
                format!(
                    "{} cannot be written (setting `node.data`, flag --data)",
                    path.display()
                )
            })?;
        }
        Ok(path)
    }

    /// The world in a file.
    ///
    /// # Errors
    /// When it is not there or not whole.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = fs::read_to_string(path).map_err(anyhow::Error::from);
        read.and_then(|text| Ok(toml::from_str(&text)?))
            .with_context(|| format!("the world file {} cannot be read", path.display()))
    }

    /// Whole or not at all: a start that is killed leaves no half of a file.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{HEAD}\n{}", toml::to_string(self)?);
        let draft = path.with_extension("toml.new");
        let written = || -> io::Result<()> {
            let mut file = fs::File::create(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, path)
        };
        Ok(written()?)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.regions.iter().map(|region| region.name.clone()).collect()
    }

    pub(crate) fn region(&self, name: &str) -> Option<&RegionPlan> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// One link for each ordered pair. With `wan` each is as long as half the round trip between the two places.
    pub(crate) fn links(&self, wan: bool) -> Vec<LinkPlan> {
        let pairs = self.regions.iter().flat_map(|from| {
            let ports = from.links.iter();
            ports.filter_map(move |(to, port)| Some((from, self.region(to)?, *port)))
        });
        let roads = pairs.flat_map(|(from, to, first)| {
            let nodes = (0..).zip(self.nodes_of(to));
            nodes.map(move |(at, node)| {
                let port = match at {
                    0 => first,
                    _ => link(self.base_port, from.index, (to.index, at)),
                };
                (from, node, port)
            })
        });
        roads
            .map(|(from, to, port)| LinkPlan {
                from: from.name.clone(),
                to: to.region.clone(),
                listen: loopback(port),
                target: loopback(to.rpc_port),
                settings: if wan {
                    far(&from.name, &to.region)
                } else {
                    LinkSettings::default()
                },
            })
            .collect()
    }
}

impl RegionPlan {
    /// What the directory knows it by. The regions that found a world are numbered from 1.
    pub(crate) fn id(&self) -> u64 {
        self.joined_as.unwrap_or_else(|| u64::from(self.index) + 1)
    }
}

/// The region in a folder without a world.
fn region_alone(data: &Path) -> Option<String> {
    let folders = fs::read_dir(data).ok()?.filter_map(Result::ok);
    let mut regions = folders.filter(|folder| folder.path().join("lock").is_file());
    Some(regions.next()?.file_name().to_string_lossy().into_owned())
}

/// Jitter is a twentieth of the delay: backbones between data centres are steady.
fn far(from: &str, to: &str) -> LinkSettings {
    let delay_ms = places::rtt_ms(from, to).div_ceil(2);
    LinkSettings {
        delay_ms,
        jitter_ms: delay_ms / 20,
        ..LinkSettings::default()
    }
}

#[cfg(test)]
mod tests;
