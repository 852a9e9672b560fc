use antiphon_kv::Kv;
use serde::{Deserialize, Serialize};

use crate::{
    domain::RegionId,
    error::StartError,
    raft::codec::{decode, encode},
};

const IDENTITY: &[u8] = b"i";
const PEER: u8 = b'k';

/// Who a store belongs to. Written once, when the store is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The deployment.
    pub(crate) deployment: String,
    /// The region.
    pub(crate) region: RegionId,
    /// Drawn at random. A voter that comes back without its store has another one, by which the others know that it has forgotten
    /// its votes and entries: it may not speak under its old id any more.
    pub(crate) store: u64,
}

impl Identity {
    /// The identity in the store; a new store gets one.
    pub(crate) async fn take(kv: &Kv, deployment: &str, region: RegionId) -> Result<Self, StartError> {
        let wanted = Self {
            deployment: deployment.to_owned(),
            region,
            store: rand::random(),
        };
        let Some(bytes) = super::read(kv, IDENTITY).await? else {
            super::write(kv, IDENTITY, encode("the store's identity", &wanted)?).await?;
            return Ok(wanted);
        };
        let found: Self = decode("the store's identity", &bytes)?;
        if (&found.deployment, found.region) != (&wanted.deployment, wanted.region) {
            return Err(StartError::OtherStore {
                deployment: found.deployment,
                region: found.region,
                wanted_deployment: wanted.deployment,
                wanted_region: wanted.region,
            });
        }
        Ok(found)
    }
}

/// The stores that the peers have answered from, by region.
pub(crate) async fn known_peers(kv: &Kv) -> Result<Vec<(u64, u64)>, StartError> {
    let range = antiphon_kv::RangeRead {
        start: vec![PEER].into(),
        end: vec![PEER + 1].into(),
        limit: 10_000,
        reverse: false,
    };
    let range = &range;
    let page = kv
        .transact(|txn| async move { txn.snapshot_range(range.clone()).await })
        .await?;
    page.pairs
        .iter()
        .map(|pair| {
            let region = pair
                .key
                .get(1..)
                .and_then(|id| id.try_into().ok())
                .map(u64::from_be_bytes);
            let region = region.ok_or_else(|| StartError::Store("a peer's key is damaged".to_owned()))?;
            Ok((region, decode("a peer's identity", &pair.value)?))
        })
        .collect()
}

/// Remembers the store that a peer has answered from.
pub(crate) async fn remember_peer(kv: &Kv, region: u64, store: u64) -> std::io::Result<()> {
    let mut key = vec![PEER];
    key.extend(region.to_be_bytes());
    let value = encode("a peer's identity", &store)?;
    let (key, value) = (&key, &value);
    kv.transact(|txn| async move {
        txn.set(key.clone(), value.clone());
        Ok::<_, antiphon_kv::KvError>(())
    })
    .await
    .map_err(super::failed)
}
