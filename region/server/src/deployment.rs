//! Which region of which deployment a node is: by its configuration, or by its place in a world on one machine.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use antiphon_directory::{
    Detour, DevelopmentCa, NodeTls,
    domain::{Addresses, Durability, Policy, RegionId},
};
use anyhow::{Context as _, Result};

use crate::{
    config::{Config, DurabilityName, PlacementSection},
    world::{Place, edge_url, loopback},
};

/// A region among others.
pub(crate) struct Membership {
    pub(crate) deployment: String,
    pub(crate) name: String,
    pub(crate) id: RegionId,
    /// Which of the region's nodes.
    pub(crate) node: String,
    /// Where it listens for the nodes of other regions.
    pub(crate) listens: SocketAddr,
    /// Where the others reach it.
    pub(crate) announces: String,
    pub(crate) tls: NodeTls,
    /// How it reaches regions otherwise than at their addresses.
    pub(crate) detour: Option<Detour>,
    /// Of the regions that it knows before the directory has told it.
    pub(crate) names: HashMap<RegionId, String>,
    pub(crate) start: Start,
    pub(crate) policy: Policy,
}

/// How a node comes into the directory's group.
pub(crate) enum Start {
    /// With the first ones: all of them, in the order of their ids.
    Founds(Vec<(String, Addresses)>),
    /// Later, by way of these.
    Joins(Vec<(RegionId, Addresses)>),
    /// Not at all: another node of the region has its voter, and this one follows that or any of these.
    Follows(Vec<(RegionId, Addresses)>),
}

impl Membership {
    /// As the configuration says; `None` for a region that is alone.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub(crate) fn of_config(config: &Config) -> Result<Option<Self>> {
        let section = &config.deployment;
        let founding: Vec<(String, Addresses)> = section.regions.iter().filter_map(|text| region(text)).collect();
        let name = config.node.region.clone();
        let Some(at) = founding.iter().position(|(region, _)| *region == name) else {
            return Ok(None);
        };
        let tls = NodeTls::from_files(&name, &section.ca_file, &section.certificate_file, &section.key_file)
            .context("the certificates of [deployment]")?;
        let regions = || (1..).map(RegionId).zip(&founding);
        let others = || regions().filter(|(_, (region, _))| *region != name);
        let joins = section.region_id > 0;
        let own = if joins { RegionId(section.region_id) } else { id(at) };
        let voters = || {
            let seeds = regions().map(|(id, (region, addresses))| {
                let id = if *region == name { own } else { id };
                (id, addresses.clone())
            });
            seeds.collect()
        };
        Ok(Some(Self {
            deployment: section.name.clone(),
            id: own,
            node: config.node.id.clone(),
            listens: config.node.rpc(),
            announces: config.node.announced_rpc(),
            tls,
            detour: None,
            names: others()
                .map(|(id, (region, _))| (id, region.clone()))
                .chain([(own, name.clone())])
                .collect(),
            policy: policy(&config.placement, founding.len()),
            start: if !config.node.voter {
                Start::Follows(voters())
            } else if joins {
                Start::Joins(others().map(|(id, (_, addresses))| (id, addresses.clone())).collect())
            } else {
                Start::Founds(founding.clone())
            },
            name,
        }))
    }

    /// In a world on one machine.
    ///
    /// # Errors
    /// Certificates that are not there.
    pub(crate) fn in_world(place: &Place, config: &Config) -> Result<Self> {
        let addresses = |rpc: SocketAddr, edge: SocketAddr| Addresses {
            rpc: rpc.to_string(),
            edge: edge_url(config.edge.https, edge),
        };
        let own_edge = loopback(place.http_port);
        let peers = || place.peers.iter();
        let start = if let Some(voter) = place.voter {
            let own = (RegionId(place.id), addresses(voter, own_edge));
            let others = peers().map(|peer| (RegionId(peer.id), addresses(peer.rpc, peer.edge)));
            Start::Follows(others.chain([own]).collect())
        } else if place.joins {
            Start::Joins(
                peers()
                    .map(|peer| (RegionId(peer.id), addresses(peer.rpc, peer.edge)))
                    .collect(),
            )
        } else {
            let others = peers().filter(|peer| !peer.joins);
            let others = others.map(|peer| (peer.id, peer.name.clone(), addresses(peer.rpc, peer.edge)));
            let own = (place.id, place.name.clone(), addresses(place.rpc, own_edge));
            let mut founders: Vec<_> = others.chain([own]).collect();
            founders.sort_by_key(|(id, ..)| *id);
            Start::Founds(
                founders
                    .into_iter()
                    .map(|(_, name, addresses)| (name, addresses))
                    .collect(),
            )
        };
        let founders = match &start {
            Start::Founds(founders) => founders.len(),
            Start::Joins(seeds) | Start::Follows(seeds) => seeds.len(),
        };
        Ok(Self {
            deployment: config.deployment.name.clone(),
            name: place.name.clone(),
            id: RegionId(place.id),
            node: config.node.id.clone(),
            listens: place.rpc,
            announces: place.rpc.to_string(),
            tls: DevelopmentCa::in_folder(&place.data.join("tls")).node(&place.name)?,
            detour: Some(Arc::new(place.detour())),
            names: peers()
                .map(|peer| (RegionId(peer.id), peer.name.clone()))
                .chain([(RegionId(place.id), place.name.clone())])
                .collect(),
            policy: policy(&config.placement, founders),
            start,
        })
    }
}

/// `NAME HOST:PORT URL`.
pub(crate) fn region(text: &str) -> Option<(String, Addresses)> {
    let mut words = text.split_whitespace();
    let (name, rpc, edge) = (words.next()?, words.next()?, words.next()?);
    let addresses = Addresses {
        rpc: rpc.to_owned(),
        edge: edge.to_owned(),
    };
    words.next().is_none().then(|| (name.to_owned(), addresses))
}

/// `HOME: REGION REGION`.
pub(crate) fn allowed(text: &str) -> Option<(String, BTreeSet<String>)> {
    let (home, regions) = text.split_once(':')?;
    let home = home.trim().to_owned();
    let mut regions: BTreeSet<String> = regions.split_whitespace().map(str::to_owned).collect();
    regions.insert(home.clone());
    (!home.is_empty()).then_some((home, regions))
}

fn policy(section: &PlacementSection, regions: usize) -> Policy {
    let regions = u8::try_from(regions).unwrap_or(u8::MAX);
    Policy {
        in_sync_copies: section.in_sync_copies.min(regions),
        min_in_sync: section.min_in_sync.min(regions),
        durability: match section.durability {
            DurabilityName::Global => Durability::Global,
            DurabilityName::Regional => Durability::Regional,
        },
        allowed: section.allowed.iter().filter_map(|text| allowed(text)).collect(),
    }
}

fn id(index: usize) -> RegionId {
    RegionId(index as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_three_words_and_a_rule_a_home_and_regions() {
        let (name, addresses) = region("us-east  10.0.0.1:7404 https://us.example").unwrap();
        assert_eq!((name.as_str(), addresses.rpc.as_str()), ("us-east", "10.0.0.1:7404"));
        assert_eq!(addresses.edge, "https://us.example");
        assert!(region("us-east 10.0.0.1:7404").is_none());
        assert!(region("us-east 10.0.0.1:7404 https://us.example more").is_none());
        let (home, regions) = allowed("eu-central: eu-west").unwrap();
        assert_eq!(home, "eu-central");
        assert_eq!(regions.into_iter().collect::<Vec<_>>(), ["eu-central", "eu-west"]);
        assert!(allowed("eu-central eu-west").is_none());
    }
}
