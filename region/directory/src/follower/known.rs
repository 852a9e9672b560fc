//! What a node without a voter knows of the directory. It only ever grows newer.

use std::sync::Arc;

use antiphon_proto::rpc::FollowReply;
use tokio::sync::watch;

use crate::{
    Table, TableWatch,
    domain::RegionId,
    raft::{
        codec::CodecError,
        store::{Image, changed, table_of},
    },
};

/// What a voter has told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) image: Arc<Image>,
    pub(super) leader: Option<RegionId>,
    pub(super) term: u64,
    /// Identity of the store of this region's own voter.
    pub(super) region_store: Option<u64>,
    /// Who has told it; none while nobody does.
    pub(super) follows: Option<RegionId>,
}

impl Known {
    /// Up to where the log is applied.
    pub(super) fn applied(&self) -> Option<u64> {
        self.image.last.map(|last| last.index())
    }

    /// What `reply` of the voter `from` makes of this, which the stream's reply before has told.
    pub(super) fn after(&self, from: RegionId, reply: &FollowReply) -> Result<Self, CodecError> {
        let chunks = reply.chunks.iter();
        let chunks = chunks.map(|chunk| (chunk.number as usize, &chunk.placements));
        Ok(Self {
            image: Arc::new(changed(&self.image, &reply.head, chunks)?),
            leader: reply.leader.map(RegionId),
            term: reply.term,
            region_store: reply.region_store.or(self.region_store),
            follows: Some(from),
        })
    }
}

/// Shows what is known, and the table of it.
pub(super) struct Knowledge {
    known: watch::Sender<Arc<Known>>,
    table: TableWatch,
}

impl Default for Knowledge {
    fn default() -> Self {
        let known = Arc::<Known>::default();
        Self {
            table: TableWatch::new(table_of(&known.image)),
            known: watch::Sender::new(known),
        }
    }
}

impl Knowledge {
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.borrow().clone()
    }

    pub(super) fn table(&self) -> TableWatch {
        self.table.clone()
    }

    /// Waits until what is known is such as `wanted` says.
    pub(super) async fn when(&self, mut wanted: impl FnMut(&Known) -> bool) -> Arc<Known> {
        let mut known = self.known.subscribe();
        // Fails only when the sender is gone, and that is held here.
        let found = known.wait_for(|known| wanted(known)).await.map(|known| known.clone());
        found.unwrap_or_else(|_| self.known())
    }

    /// Takes what a voter has told. Of a voter that lags behind what is known already only who it is is taken.
    pub(super) fn take(&self, told: Known) {
        self.known.send_modify(|known| {
            let newer = told.applied() >= known.applied() && told.image.state.version >= known.image.state.version;
            if !newer {
                Arc::make_mut(known).follows = told.follows;
                return;
            }
            // Before the image: whoever sees that an index is applied sees the table of it too.
            if told.image.state.version > known.image.state.version
                && let Some(table) = Table::from_state(&told.image.state)
            {
                self.table.store(table);
            }
            let region_store = told.region_store.or(known.region_store);
            *known = Arc::new(Known { region_store, ..told });
        });
    }

    /// Nobody tells anything at the moment.
    pub(super) fn lost(&self) {
        self.known.send_modify(|known| Arc::make_mut(known).follows = None);
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId as _;

    use super::*;
    use crate::{
        domain::{Addresses, Command, Policy, State},
        raft::LogId,
    };

    fn told(from: u64, index: u64, version: u64) -> Known {
        let found = Command::Found {
            deployment: "test".to_owned(),
            regions: vec![("a".to_owned(), Addresses::default())],
            policy: Policy::default(),
        };
        let mut state = State::default();
        state.apply(&found).unwrap();
        state.version = version;
        let image = Image {
            last: Some(LogId::new(
                openraft::impls::leader_id_adv::LeaderId::new(1, from),
                index,
            )),
            state: Arc::new(state),
            ..Image::default()
        };
        Known {
            image: Arc::new(image),
            follows: Some(RegionId(from)),
            ..Known::default()
        }
    }

    #[test]
    fn what_is_known_never_goes_back() {
        let knowledge = Knowledge::default();
        knowledge.take(told(1, 7, 5));
        knowledge.take(told(2, 6, 4));
        let known = knowledge.known();
        assert_eq!((known.applied(), known.image.state.version), (Some(7), 5));
        assert_eq!((knowledge.table().version(), known.follows), (5, Some(RegionId(2))));
        knowledge.take(told(2, 8, 5));
        assert_eq!(knowledge.known().applied(), Some(8));
        knowledge.take(told(2, 9, 6));
        assert_eq!(knowledge.table().version(), 6);
    }

    #[test]
    fn the_region_s_store_stays_known_when_another_voter_has_not_heard_of_it() {
        let knowledge = Knowledge::default();
        let region_store = Some(3);
        knowledge.take(Known {
            region_store,
            ..told(1, 7, 5)
        });
        knowledge.take(told(2, 8, 5));
        assert_eq!(knowledge.known().region_store, region_store);
    }
}
