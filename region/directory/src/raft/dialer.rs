use std::{collections::HashMap, io, sync::Arc};

use antiphon_kv::Kv;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::store::{self, Identity, Image};
use crate::{
    domain::{Addresses, RegionId, State},
    error::StartError,
};

/// How a region's port between nodes is reached. Called once for a region and its addresses; the channel is kept, and has to connect
/// again by itself.
pub type Dial = Arc<dyn Fn(&RegionId, &Addresses) -> Channel + Send + Sync>;

/// After so many calls in a row that got no answer in time, a connection is given up: it may be one of those that swallow everything.
const SILENT_CALLS_MAX: u32 = 5;

/// The other nodes: one kept connection each, and the store that each has answered from.
pub(crate) struct Peers {
    pub(crate) identity: Identity,
    kv: Kv,
    images: watch::Receiver<Arc<Image>>,
    links: Links,
    stores: Mutex<HashMap<u64, u64>>,
}

/// One kept connection to each region.
pub(crate) struct Links {
    dial: Dial,
    kept: Mutex<HashMap<u64, Link>>,
}

struct Link {
    addresses: Addresses,
    channel: Channel,
    silent_calls: u32,
}

/// A peer speaks from another store than before.
#[derive(Debug, Clone, thiserror::Error)]
#[error("region {region} has lost its store and must not take part any more: it has to come back under a new id")]
pub(crate) struct OtherStore {
    region: u64,
}

impl Peers {
    pub(crate) async fn open(
        identity: Identity,
        dial: Dial,
        kv: Kv,
        images: watch::Receiver<Arc<Image>>,
    ) -> Result<Self, StartError> {
        let stores = store::known_peers(&kv).await?.into_iter().collect();
        Ok(Self {
            identity,
            kv,
            images,
            links: Links::new(dial),
            stores: Mutex::new(stores),
        })
    }

    /// The state, as far as this node has applied the log.
    pub(crate) fn state(&self) -> Arc<State> {
        self.images.borrow().state.clone()
    }

    /// The connection to a region: at the addresses that the directory has for it, else at `otherwise`.
    pub(crate) fn channel(&self, region: u64, otherwise: &Addresses) -> Channel {
        let image = self.images.borrow().clone();
        let listed = image.state.regions.get(&RegionId(region));
        let addresses = listed.map_or(otherwise, |region| &region.addresses);
        self.links.channel(region, addresses)
    }

    /// Notes how a call ended: whether anything came back in time.
    pub(crate) fn heard(&self, region: u64, answered: bool) {
        self.links.heard(region, answered);
    }

    /// From which store a region's voter speaks, if this node knows.
    pub(crate) fn store_of(&self, region: RegionId) -> Option<u64> {
        if region == self.identity.region {
            return Some(self.identity.store);
        }
        self.stores.lock().get(&region.0).copied()
    }

    /// Whether it is known from which store a peer speaks.
    pub(crate) fn is_known(&self, region: u64) -> bool {
        self.stores.lock().contains_key(&region)
    }

    /// Checks that a peer speaks from the store that it has always spoken from; the first is remembered, durably, before anything
    /// that it says is believed. One who is not known to be a member is not remembered.
    ///
    /// A voter that has lost its store has forgotten votes and entries that the others count on. Raft cannot see that, so such a one
    /// is not heard.
    pub(crate) async fn check_store(
        &self,
        region: u64,
        store: u64,
        member: bool,
    ) -> io::Result<Result<(), OtherStore>> {
        let known = self.stores.lock().get(&region).copied();
        match known {
            Some(known) if known == store => Ok(Ok(())),
            Some(_) => Ok(Err(OtherStore { region })),
            None if !member => Ok(Ok(())),
            None => {
                store::remember_peer(&self.kv, region, store).await?;
                self.stores.lock().insert(region, store);
                Ok(Ok(()))
            }
        }
    }
}

impl Links {
    pub(crate) fn new(dial: Dial) -> Self {
        Self {
            dial,
            kept: Mutex::default(),
        }
    }

    /// The connection to a region at these addresses.
    pub(crate) fn channel(&self, region: u64, addresses: &Addresses) -> Channel {
        let mut kept = self.kept.lock();
        if let Some(link) = kept.get(&region)
            && link.addresses == *addresses
        {
            return link.channel.clone();
        }
        let channel = (self.dial)(&RegionId(region), addresses);
        let link = Link {
            addresses: addresses.clone(),
            channel: channel.clone(),
            silent_calls: 0,
        };
        kept.insert(region, link);
        channel
    }

    /// Notes how a call ended: whether anything came back in time.
    pub(crate) fn heard(&self, region: u64, answered: bool) {
        let mut kept = self.kept.lock();
        let Some(link) = kept.get_mut(&region) else {
            return;
        };
        link.silent_calls = if answered { 0 } else { link.silent_calls + 1 };
        if link.silent_calls >= SILENT_CALLS_MAX {
            kept.remove(&region);
        }
    }
}
