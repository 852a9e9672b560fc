use std::sync::Arc;

use antiphon_kv::{KvError, Watch};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The watches that may wait.
#[derive(Debug)]
pub(crate) struct Watches {
    len_max: usize,
    free: Arc<Semaphore>,
}

/// The place of one watch; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Watches {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            len_max,
            free: Arc::new(Semaphore::new(len_max)),
        }
    }

    pub(crate) fn place(&self) -> Result<Place, KvError> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            return Err(KvError::Unavailable(format!("{} watches wait already", self.len_max)));
        };
        metrics::gauge!("antiphon_kv_watches").increment(1.0);
        Ok(Place { _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("antiphon_kv_watches").decrement(1.0);
    }
}

/// A watch that keeps its place until it has fired or was dropped.
pub(crate) fn watch(place: Place, changed: impl Future<Output = Result<(), KvError>> + Send + 'static) -> Watch {
    Watch::new(async move {
        let _place = place;
        changed.await
    })
}
