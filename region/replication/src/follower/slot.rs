//! What a follower does with one frame of one slot.

use antiphon_proto::{
    log::{Entry, Header},
    rpc::{Append, CopyPage, Cut, Fetch, Held},
};
use antiphon_slot::{Bounds, ReplicaLog, SlotError};
use antiphon_types::{Epoch, Slot};
use prost::Message as _;

/// What the home is to be told of a slot.
pub(crate) enum Says {
    Fetch(Fetch),
    Held(Held),
}

/// One slot as this region follows it, under one leader epoch.
pub(crate) struct FollowedSlot {
    pub(crate) slot: Slot,
    pub(crate) epoch: Epoch,
    log: ReplicaLog,
    /// As it was stored last; none before the epoch is promised.
    header: Option<Header>,
    /// Set from a fetch until the first frame that answers it: what comes before was sent for an earlier one.
    has_asked: bool,
}

impl FollowedSlot {
    pub(crate) const fn new(slot: Slot, epoch: Epoch, log: ReplicaLog) -> Self {
        Self {
            slot,
            epoch,
            log,
            header: None,
            has_asked: false,
        }
    }

    /// Promises the epoch, and asks the home for what comes after the log's end.
    pub(crate) async fn fetch(&mut self) -> Result<Says, SlotError> {
        let header = self.log.promise(self.slot, self.epoch).await?;
        Ok(self.ask(header))
    }

    fn ask(&mut self, header: Header) -> Says {
        // A copy that did not end counts as nothing.
        let (last_index, epochs) = match header.copying {
            true => (0, Vec::new()),
            false => (header.last_index, header.epochs.clone()),
        };
        let fetch = Fetch {
            slot: self.slot.number().into(),
            epoch: self.epoch,
            last_index,
            epochs,
        };
        self.header = Some(header);
        self.has_asked = true;
        Says::Fetch(fetch)
    }

    /// Stores entries. Says what it holds then, or asks again when they do not follow its log.
    pub(crate) async fn append(&mut self, append: Append) -> Result<Option<Says>, SlotError> {
        let Some(header) = &self.header else { return Ok(None) };
        if append.epoch != self.epoch {
            return Ok(None);
        }
        if append.prev_index != header.last_index || header.copying {
            // One is under way already, or entries come twice.
            if self.has_asked || append.prev_index < header.last_index {
                return Ok(None);
            }
            return self.fetch().await.map(Some);
        }
        self.has_asked = false;
        let bounds = Bounds {
            first_index: append.first_index,
            carried_index: append.carried_index,
            high_watermark: append.high_watermark,
        };
        let decode = |entry| {
            Entry::decode(entry).map_err(|error: prost::DecodeError| SlotError::Corrupt {
                what: format!("an entry of {:?} from its home", self.slot),
                reason: error.to_string(),
            })
        };
        let entries: Vec<Entry> = append.entries.into_iter().map(decode).collect::<Result<_, _>>()?;
        let header = if entries.is_empty() {
            self.log.apply_to(self.slot, self.epoch, bounds).await?
        } else {
            self.log
                .append(self.slot, self.epoch, append.prev_index, &entries, bounds)
                .await?
        };
        let held = self.held(header.last_index);
        self.header = Some(header);
        Ok(Some(held))
    }

    /// Cuts the log and asks again.
    pub(crate) async fn cut(&mut self, cut: Cut) -> Result<Option<Says>, SlotError> {
        let Some(known) = self.header.as_ref().filter(|_| cut.epoch == self.epoch) else {
            return Ok(None);
        };
        match self.log.cut(self.slot, self.epoch, known, cut.keep).await {
            Ok(header) => {
                metrics::counter!("antiphon_replication_cuts_total").increment(1);
                Ok(Some(self.ask(header)))
            }
            Err(SlotError::Corrupt { what, reason }) => {
                tracing::warn!(
                    slot = self.slot.number(),
                    what,
                    reason,
                    "the log cannot be cut; taking a copy"
                );
                self.log.begin_copy(self.slot, self.epoch, known).await?;
                self.fetch().await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores one page of a copy. Says what it holds after the last.
    pub(crate) async fn copy(&mut self, page: CopyPage) -> Result<Option<Says>, SlotError> {
        let Some(known) = self.header.as_ref().filter(|_| page.epoch == self.epoch) else {
            return Ok(None);
        };
        if page.begins {
            metrics::counter!("antiphon_replication_copies_total").increment(1);
            self.header = Some(self.log.begin_copy(self.slot, self.epoch, known).await?);
            self.has_asked = false;
        }
        let Some(copy) = self
            .header
            .as_ref()
            .filter(|header| header.copying)
            .map(|header| header.copy)
        else {
            return Ok(None);
        };
        self.log.put(self.slot, self.epoch, copy, &page.pairs).await?;
        let Some(end) = page.end else { return Ok(None) };
        let ends = (end.last_index, end.carried_index);
        let copied = self.log.copied(self.slot, self.epoch, copy, ends, end.epochs);
        let header = copied.await?;
        let held = self.held(header.last_index);
        self.header = Some(header);
        Ok(Some(held))
    }

    fn held(&self, index: u64) -> Says {
        Says::Held(Held {
            slot: self.slot.number().into(),
            epoch: self.epoch,
            index,
        })
    }
}
