//! The applied state on disk. Placements are most of it and change a few at a time, so they are kept in chunks and only the chunks
//! that have changed are written.

use std::sync::Arc;

use antiphon_kv::{Kv, KvError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    domain::{Placement, State},
    raft::{
        LogId, StoredMembership,
        codec::{CodecError, decode, encode},
    },
};

const HEAD: &[u8] = b"s";
const CHUNK: u8 = b't';
const CHUNK_SLOTS: usize = 64;

/// The state, and what brought it about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// The last entry that was applied.
    pub(crate) last: Option<LogId>,
    /// The last membership among those that were applied.
    pub(crate) membership: StoredMembership,
    /// The directory.
    pub(crate) state: Arc<State>,
}

/// Reads the state; that of an empty store is the default.
pub(crate) async fn load(kv: &Kv) -> std::io::Result<Image> {
    let Some(head) = super::read(kv, HEAD).await.map_err(super::failed)? else {
        return Ok(Image::default());
    };
    let mut image: Image = decode("the state's head", &head)?;
    let range = antiphon_kv::RangeRead {
        start: vec![CHUNK].into(),
        end: vec![CHUNK + 1].into(),
        limit: 256,
        reverse: false,
    };
    let mut start = range.start.clone();
    loop {
        let page = antiphon_kv::RangeRead { start, ..range.clone() };
        let page = &page;
        let page = kv
            .transact(|txn| async move { txn.snapshot_range(page.clone()).await })
            .await
            .map_err(super::failed)?;
        for pair in &page.pairs {
            let mut placements = decode("placements", &pair.value)?;
            Arc::make_mut(&mut image.state).placements.append(&mut placements);
        }
        match page.next_start() {
            Some(next) => start = next,
            None => return Ok(image),
        }
    }
}

/// Writes `new` over `old` in one transaction.
pub(crate) async fn save(kv: &Kv, old: &Image, new: &Image) -> std::io::Result<()> {
    let changes = Changes::between(old, new)?;
    let changes = &changes;
    kv.transact(|txn| async move {
        txn.set(HEAD, changes.head.clone());
        for (number, chunk) in &changes.chunks {
            txn.set(vec![CHUNK, *number], chunk.clone());
        }
        txn.clear_range(vec![CHUNK, changes.chunk_count], vec![CHUNK + 1]);
        Ok::<_, KvError>(())
    })
    .await
    .map_err(super::failed)
}

/// What leads from one image to another, encoded as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The image without its placements.
    pub(crate) head: Bytes,
    /// The chunks of placements that differ, by number.
    pub(crate) chunks: Vec<(u8, Bytes)>,
    /// From this number on there are no chunks.
    chunk_count: u8,
}

impl Changes {
    /// What makes `new` of `old`.
    pub(crate) fn between(old: &Image, new: &Image) -> Result<Self, CodecError> {
        let head = Image {
            last: new.last,
            membership: new.membership.clone(),
            state: Arc::new(without_placements(&new.state)),
        };
        let mut changes = Self {
            head: encode("the state's head", &head)?,
            chunks: Vec::new(),
            chunk_count: 0,
        };
        let mut old_chunks = old.state.placements.chunks(CHUNK_SLOTS);
        for chunk in new.state.placements.chunks(CHUNK_SLOTS) {
            if old_chunks.next() != Some(chunk) {
                let encoded = encode("placements", &chunk)?;
                changes.chunks.push((changes.chunk_count, encoded));
            }
            changes.chunk_count += 1;
        }
        Ok(changes)
    }
}

/// The image that changes make of `old`: `head`, and chunks by number, those that follow on each other in order.
pub(crate) fn changed<'a>(
    old: &Image,
    head: &[u8],
    chunks: impl Iterator<Item = (usize, &'a Bytes)>,
) -> Result<Image, CodecError> {
    let mut image: Image = decode("the state's head", head)?;
    let mut placements = old.state.placements.clone();
    for (number, chunk) in chunks {
        let chunk: Vec<Placement> = decode("placements", chunk)?;
        let from = number.saturating_mul(CHUNK_SLOTS).min(placements.len());
        let to = from.saturating_add(chunk.len()).min(placements.len());
        placements.splice(from..to, chunk);
    }
    Arc::make_mut(&mut image.state).placements = placements;
    Ok(image)
}

/// A copy that does not copy the placements first.
fn without_placements(state: &State) -> State {
    State {
        version: state.version,
        deployment: state.deployment.clone(),
        regions: state.regions.clone(),
        region_id_max: state.region_id_max,
        placements: Vec::new(),
        policy: state.policy.clone(),
        min_in_sync: state.min_in_sync,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Addresses, Command, Policy, RegionId, RegionStatus},
        raft::store::open,
    };

    fn founding() -> Command {
        let region = |name: &str| (name.to_owned(), Addresses::default());
        Command::Found {
            deployment: "test".to_owned(),
            regions: ["a", "b", "c"].map(region).to_vec(),
            policy: Policy::default(),
        }
    }

    #[tokio::test]
    async fn what_is_saved_bit_by_bit_is_loaded_whole() {
        let folder = tempfile::tempdir().unwrap();
        let kv = open(folder.path()).await.unwrap();
        let mut saved = load(&kv).await.unwrap();
        assert_eq!(saved, Image::default());
        let status = |region, status| Command::SetStatus {
            region: RegionId(region),
            status,
        };
        let slot = antiphon_types::Slot::new(1_000).unwrap();
        let one_slot = Command::Plan {
            moves: vec![(slot, 1, Some(RegionId(2))), (slot, 1, Some(RegionId(3)))],
        };
        for command in [
            founding(),
            one_slot,
            status(2, RegionStatus::Down),
            status(2, RegionStatus::Active),
        ] {
            let mut next = saved.clone();
            Arc::make_mut(&mut next.state).apply(&command).unwrap();
            assert_ne!(next, saved, "{command:?}");
            save(&kv, &saved, &next).await.unwrap();
            assert_eq!(load(&kv).await.unwrap(), next, "{command:?}");
            saved = next;
        }
        // A snapshot of fewer placements.
        let empty = Image::default();
        save(&kv, &saved, &empty).await.unwrap();
        assert_eq!(load(&kv).await.unwrap(), empty);
    }

    /// Far more regions than anybody has: an entry that could not be written would stop every voter for good.
    #[tokio::test]
    async fn a_state_of_many_regions_is_saved_whole() {
        let folder = tempfile::tempdir().unwrap();
        let kv = open(folder.path()).await.unwrap();
        let regions = (0..250).map(|number| (format!("r{number}"), Addresses::default()));
        let mut image = Image::default();
        let found = Command::Found {
            deployment: "test".to_owned(),
            regions: regions.collect(),
            policy: Policy::default(),
        };
        Arc::make_mut(&mut image.state).apply(&found).unwrap();
        save(&kv, &Image::default(), &image).await.unwrap();
        assert_eq!(load(&kv).await.unwrap(), image);
    }

    #[test]
    fn only_chunks_that_have_changed_are_written() {
        let mut image = Image::default();
        Arc::make_mut(&mut image.state).apply(&founding()).unwrap();
        let mut next = image.clone();
        Arc::make_mut(&mut next.state).placements[1_000].epoch += 1;
        let changes = Changes::between(&image, &next).unwrap();
        let numbers: Vec<u8> = changes.chunks.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [15]);
    }

    #[test]
    fn changes_lead_from_one_image_to_another() {
        let mut founded = Image::default();
        Arc::make_mut(&mut founded.state).apply(&founding()).unwrap();
        let mut next = founded.clone();
        let state = Arc::make_mut(&mut next.state);
        state.placements[1_000].epoch += 1;
        state.placements[4_095].epoch += 1;
        let none = Image::default();
        for (old, new) in [(&none, &founded), (&founded, &next), (&none, &none), (&next, &founded)] {
            let changes = Changes::between(old, new).unwrap();
            let chunks = changes
                .chunks
                .iter()
                .map(|(number, chunk)| (usize::from(*number), chunk));
            assert_eq!(&changed(old, &changes.head, chunks).unwrap(), new);
        }
    }
}
