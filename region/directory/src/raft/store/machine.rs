use std::{io, sync::Arc};

use antiphon_kv::Kv;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
    type_config::alias::SnapshotOf,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::state::{self, Image};
use crate::{
    Table, TableWatch,
    domain::{Applied, Rejection},
    raft::{
        LogId, SnapshotMeta, StoredMembership, Types,
        codec::{decode, encode},
    },
};

/// What an entry has brought about; nothing for an entry that is Raft's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Result<Applied, Rejection>>);

/// Entries whose effects are written together.
const BATCH_ENTRIES_MAX: usize = 64;

/// The state machine: what is applied is on disk before anybody hears of it, so that a restart goes on from there.
pub(crate) struct Machine {
    kv: Kv,
    images: watch::Sender<Arc<Image>>,
    table: TableWatch,
    snapshot: Arc<Mutex<Option<(SnapshotMeta, Bytes)>>>,
}

impl Machine {
    /// Takes up the state in the store. The receiver and the table follow what is applied.
    pub(crate) async fn open(kv: Kv) -> io::Result<(Self, watch::Receiver<Arc<Image>>, TableWatch)> {
        let image = state::load(&kv).await?;
        let table = TableWatch::new(table_of(&image));
        let (images, receiver) = watch::channel(Arc::new(image));
        let machine = Self {
            kv,
            images,
            table: table.clone(),
            snapshot: Arc::default(),
        };
        Ok((machine, receiver, table))
    }

    fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    /// Writes the image, shows it, and only then answers.
    async fn commit(&self, image: Image, answers: &mut Vec<(Option<ApplyResponder<Types>>, Answer)>) -> io::Result<()> {
        let before = self.image();
        state::save(&self.kv, &before, &image).await?;
        if before.state.version != image.state.version {
            self.table.store(table_of(&image));
        }
        self.images.send_replace(Arc::new(image));
        for (responder, answer) in answers.drain(..) {
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }
}

/// Before the deployment is founded nobody is home: no region has an empty name.
pub(crate) fn table_of(image: &Image) -> Table {
    Table::from_state(&image.state).unwrap_or_else(|| Table::single(""))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let image = self.image();
        Ok((image.last, image.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut image = Image::clone(&self.image());
        let mut answers = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            image.last = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(proposal) => Some(Arc::make_mut(&mut image.state).apply(&proposal.0)),
                EntryPayload::Membership(membership) => {
                    image.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
            };
            answers.push((responder, Answer(answer)));
            if answers.len() >= BATCH_ENTRIES_MAX {
                self.commit(image.clone(), &mut answers).await?;
            }
        }
        if !answers.is_empty() {
            self.commit(image, &mut answers).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            image: self.image(),
            snapshot: self.snapshot.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let image = Image {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            state: Arc::new(decode("a snapshot", &snapshot)?),
        };
        self.commit(image, &mut Vec::new()).await?;
        *self.snapshot.lock() = Some((meta.clone(), snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, Bytes>>, io::Error> {
        let current = self.snapshot.lock().clone();
        Ok(current.map(|(meta, snapshot)| SnapshotOf::<Types, Bytes> { meta, snapshot }))
    }
}

/// Makes a snapshot of one image while later entries are applied. Snapshots live in memory: the image is on disk, and openraft has
/// a snapshot built anew from it when it finds none after a restart.
pub(crate) struct Builder {
    image: Arc<Image>,
    snapshot: Arc<Mutex<Option<(SnapshotMeta, Bytes)>>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Bytes>, io::Error> {
        let meta = SnapshotMeta {
            last_log_id: self.image.last,
            last_membership: self.image.membership.clone(),
        };
        let snapshot = encode("a snapshot", &*self.image.state)?;
        let mut current = self.snapshot.lock();
        // One that was installed meanwhile may be newer.
        if current
            .as_ref()
            .is_none_or(|(held, _)| held.last_log_id <= meta.last_log_id)
        {
            *current = Some((meta.clone(), snapshot.clone()));
        }
        Ok(SnapshotOf::<Types, Bytes> { meta, snapshot })
    }
}
