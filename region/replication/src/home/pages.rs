//! Pages of copies: each waits for the high watermark, and nothing else of the stream waits for it.

use std::sync::Arc;

use antiphon_kv::Page;
use antiphon_slot::{SlotError, Slots};
use antiphon_types::{LogIndex, Slot};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pages that are read and not sent yet; each has some 256 kB at the most.
const PAGES_MAX: usize = 16;

/// The next page of a copy.
pub(super) enum NextPage {
    Wanted,
    Asked,
    Here(ReadPage),
}

/// A page, and its room among those that a stream may hold.
pub(super) struct ReadPage {
    pub(super) page: Page,
    _room: OwnedSemaphorePermit,
}

/// What is asked for: of which slot under which epoch, behind which key.
pub(super) type Asked = (Slot, u64, Bytes);

/// What it has come to; none where it cannot be had now.
pub(super) type Answer = (Asked, Result<Option<ReadPage>, SlotError>);

/// Those of one stream that are being read.
pub(super) struct Pages {
    reading: FuturesUnordered<BoxFuture<'static, Answer>>,
    room: Arc<Semaphore>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            reading: FuturesUnordered::new(),
            room: Arc::new(Semaphore::new(PAGES_MAX)),
        }
    }
}

impl Pages {
    /// Reads a page of a copy that ends at `end`.
    pub(super) fn read(&self, slots: &Slots, asked: Asked, end: LogIndex) {
        let (slots, room) = (slots.clone(), self.room.clone());
        let reading = async move {
            // Never closed.
            let Ok(room) = room.acquire_owned().await else {
                return (asked, Ok(None));
            };
            let read = slots.copy_page(asked.0, &asked.2, end).await;
            let read = read.map(|page| page.map(|page| ReadPage { page, _room: room }));
            (asked, read)
        };
        self.reading.push(reading.boxed());
    }

    /// The one that is read first; none where none is being read.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.reading.next().await
    }
}
