//! Who is in a world and on which ports; written down at its first start.
//!
//! Region `i` (0 to 8) has the hundred of ports from `base_port + 100·i`:
//!
//! | offset | |
//! |---|---|
//! | 0 | HTTP and WebSocket |
//! | 1 | admin: metrics, health |
//! | 2, 3 | kept for further transports of devices |
//! | 4 | between nodes of any region (mTLS) |
//! | 50 + j | what region `i` dials to reach region `j` |
//! | 99 | of region 0 only: admin of the world |

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

/// Regions of one world.
pub(crate) const REGIONS_MAX: usize = 9;
const PORTS_PER_REGION: u16 = 100;
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
    /// By name of another region: the port to dial to reach its nodes.
    pub(crate) links: BTreeMap<String, u16>,
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
    let to = offset / PORTS_PER_REGION;
    let is_rpc = offset.is_multiple_of(PORTS_PER_REGION) && usize::from(to) < REGIONS_MAX && to != from;
    let first = base_port.checked_add(PORTS_PER_REGION.checked_mul(from)?)?;
    (is_rpc && address.ip().is_loopback()).then(|| loopback(first.saturating_add(LINKS + to)))
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
        let first_of = |index: u16| self.base_port.saturating_add(PORTS_PER_REGION.saturating_mul(index));
        let link = |from: u16, to: u16| first_of(from).saturating_add(LINKS + to);
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

    /// Writes the world down in `data`, if it is not there yet, and returns the file's path.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn keep(&self, data: &Path) -> Result<PathBuf> {
        let path = data.join(WORLD_FILE);
        if !path.exists() {
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
        pairs
            .map(|(from, to, port)| LinkPlan {
                from: from.name.clone(),
                to: to.name.clone(),
                listen: loopback(port),
                target: loopback(to.rpc_port),
                settings: if wan {
                    far(&from.name, &to.name)
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

    /// The region's folder in the folder of the world.
    pub(crate) fn folder(&self, data: &Path) -> PathBuf {
        data.join(&self.name)
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
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn no_two_ports_of_the_largest_world_are_the_same() {
        let many: Vec<String> = (0..REGIONS_MAX).map(|at| format!("r{at}")).collect();
        let world = World::new(&many, 7400);
        let mut ports = vec![world.admin_port];
        for region in &world.regions {
            let first = 7400 + 100 * region.index;
            assert_eq!((region.http_port, region.rpc_port), (first, first + 4));
            // Offsets 0 to 4 are the region's own, whether it listens on them today or not.
            ports.extend(first..=first + 4);
            ports.extend(region.links.values());
        }
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), ports.len());
        assert_eq!(ports.len(), 1 + 9 * 5 + 9 * 8);
        let last = ports.iter().copied().max().unwrap();
        assert!(u32::from(last) < ports_end(7400, REGIONS_MAX), "{last}");
    }

    #[test]
    fn each_ordered_pair_has_a_link_to_the_port_between_nodes() {
        let world = World::new(&names(&["us-east", "eu-central", "ap-northeast"]), 9000);
        let near = world.links(false);
        assert_eq!(near.len(), 6);
        assert!(near.iter().all(|link| link.settings == LinkSettings::default()));
        let far = world.links(true);
        let link = far
            .iter()
            .find(|link| (link.from.as_str(), link.to.as_str()) == ("us-east", "ap-northeast"));
        let link = link.unwrap();
        assert_eq!((link.listen.port(), link.target.port()), (9052, 9204));
        assert_eq!((link.settings.delay_ms, link.settings.jitter_ms), (75, 3));
        assert!(
            far.iter()
                .all(|link| link.listen.ip().is_loopback() && link.target.ip().is_loopback())
        );
    }

    #[test]
    fn a_world_is_found_again_whatever_the_order_of_its_regions() {
        let folder = tempfile::tempdir().unwrap();
        let made = World::find(folder.path(), &names(&["a", "b", "c"]), 7400).unwrap();
        made.keep(folder.path()).unwrap();
        let again = World::find(folder.path(), &names(&["c", "a", "b"]), 7400).unwrap();
        assert_eq!(made, again);
        assert_eq!(again.region("c").unwrap().index, 2);
    }

    #[test]
    fn another_world_than_the_one_that_is_there_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        World::new(&names(&["a", "b"]), 7400).keep(folder.path()).unwrap();
        for (asked, port, advice) in [
            (&["a", "b", "c"][..], 7400, "--regions a,b,"),
            (&["a"], 7400, "--regions a,b,"),
            (&["a", "c"], 7400, "--regions a,b,"),
            (&["a", "b"], 9000, "--base-port 7400,"),
        ] {
            let error = World::find(folder.path(), &names(asked), port).unwrap_err().to_string();
            assert!(error.contains(advice) && error.contains("--data"), "{error}");
            assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_folder_holds_a_world_or_a_region_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(none_in(data).is_ok());
        assert_eq!(names_in(data).unwrap(), None);
        fs::create_dir(data.join("local")).unwrap();
        fs::write(data.join("local/lock"), "1").unwrap();
        let error = World::find(data, &names(&["a", "b"]), 7400).unwrap_err().to_string();
        assert!(
            error.contains("--regions local,") && error.contains("--data"),
            "{error}"
        );

        let folder = tempfile::tempdir().unwrap();
        World::new(&names(&["a", "b"]), 7400).keep(folder.path()).unwrap();
        assert_eq!(names_in(folder.path()).unwrap(), Some(names(&["a", "b"])));
        let error = none_in(folder.path()).unwrap_err().to_string();
        assert!(error.contains("--regions a,b,") && error.contains("--data"), "{error}");
    }

    #[test]
    fn what_is_dialled_is_where_the_links_listen() {
        let mut world = World::new(&names(&["a", "b", "c"]), 7400);
        world = world.with("d").unwrap();
        for link in world.links(false) {
            let from = world.region(&link.from).unwrap().index;
            assert_eq!(
                detour(7400, from, &link.target.to_string()),
                Some(link.listen),
                "{link:?}"
            );
        }
        for elsewhere in [
            "127.0.0.1:7404",
            "127.0.0.1:7505",
            "127.0.0.1:80",
            "10.0.0.1:7504",
            "example.org:7504",
        ] {
            assert_eq!(detour(7400, 0, elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn regions_come_and_go_and_no_index_is_given_twice() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(&names(&["a", "b", "c"]), 7400);
        let grown = world.with("d").unwrap().joined("d", 4);
        assert!(grown.with("d").is_err());
        assert_eq!(grown.links(false).len(), 12);
        let shrunk = grown.without("d");
        assert_eq!(
            (shrunk.links(false).len(), shrunk.names()),
            (6, names(&["a", "b", "c"]))
        );
        let path = folder.path().join(WORLD_FILE);
        shrunk.write(&path).unwrap();
        let again = World::read(&path)
            .unwrap()
            .without("a")
            .with("a")
            .unwrap()
            .joined("a", 5);
        let a = again.region("a").unwrap();
        assert_eq!((a.index, a.id(), again.region("b").unwrap().id()), (4, 5, 2));
        let full = (0..4).fold(again, |world, at| world.with(&format!("r{at}")).unwrap());
        assert!(full.with("one-more").unwrap_err().to_string().contains("room for 9"));
    }

    #[test]
    fn a_world_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(WORLD_FILE), "base_port = 1\nbase").unwrap();
        let error = format!(
            "{:#}",
            World::find(folder.path(), &names(&["a", "b"]), 7400).unwrap_err()
        );
        assert!(error.contains(WORLD_FILE), "{error}");
    }
}
