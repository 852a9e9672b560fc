use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::KvError;

/// Who waits for a change of which key.
#[derive(Debug)]
pub(super) struct Watches {
    len_max: usize,
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_key: HashMap<Bytes, Vec<(u64, oneshot::Sender<()>)>>,
    len: usize,
    is_closed: bool,
}

/// One who waits; leaves the list when dropped.
pub(super) struct Waiter {
    watches: Arc<Watches>,
    key: Bytes,
    id: u64,
    fired: oneshot::Receiver<()>,
}

impl Waiter {
    /// Waits for the change; an error when there will be none.
    pub(super) async fn changed(mut self) -> Result<(), oneshot::error::RecvError> {
        (&mut self.fired).await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.watches.leave(&self.key, self.id);
    }
}

impl Watches {
    pub(super) fn new(len_max: usize) -> Arc<Self> {
        Arc::new(Self {
            len_max,
            next_id: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    pub(super) fn wait_for(self: &Arc<Self>, key: Bytes) -> Result<Waiter, KvError> {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return Err(KvError::Closed);
        }
        if waiting.len >= self.len_max {
            return Err(KvError::Unavailable(format!("{} watches wait already", self.len_max)));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (fire, fired) = oneshot::channel();
        waiting.by_key.entry(key.clone()).or_default().push((id, fire));
        waiting.grow(1);
        let watches = self.clone();
        Ok(Waiter {
            watches,
            key,
            id,
            fired,
        })
    }

    /// Wakes whoever waits for one of these keys.
    pub(super) fn fire<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) {
        let mut waiting = self.waiting.lock();
        if waiting.by_key.is_empty() {
            return;
        }
        for key in keys {
            for (_, fire) in waiting.by_key.remove(key).unwrap_or_default() {
                waiting.shrink(1);
                // Whoever watched may have gone.
                let _ = fire.send(());
            }
        }
    }

    /// Ends every wait, those to come included.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_closed = true;
        waiting.by_key.clear();
        let len = waiting.len;
        waiting.shrink(len);
    }

    fn leave(&self, key: &Bytes, id: u64) {
        let mut waiting = self.waiting.lock();
        let Some(same_key) = waiting.by_key.get_mut(key) else {
            return;
        };
        let before = same_key.len();
        same_key.retain(|(other, _)| *other != id);
        let (left, after) = (before - same_key.len(), same_key.len());
        if after == 0 {
            waiting.by_key.remove(key);
        }
        waiting.shrink(left);
    }
}

impl Waiting {
    fn grow(&mut self, by: usize) {
        self.len += by;
        self.show();
    }

    fn shrink(&mut self, by: usize) {
        self.len -= by;
        self.show();
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge of some thousands")]
    fn show(&self) {
        metrics::gauge!("antiphon_kv_watches").set(self.len as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_watch_gives_its_place_free() {
        let watches = Watches::new(2);
        let first = watches.wait_for("key".into()).unwrap();
        let _second = watches.wait_for("key".into()).unwrap();
        assert!(matches!(watches.wait_for("key".into()), Err(KvError::Unavailable(_))));
        drop(first);
        assert!(watches.wait_for("other".into()).is_ok());
    }

    #[test]
    fn fired_watches_give_their_places_free() {
        let watches = Watches::new(1);
        for _ in 0..3 {
            let _waiter = watches.wait_for("key".into()).unwrap();
            watches.fire([Bytes::from("key")].iter());
            assert!(watches.waiting.lock().by_key.is_empty());
            assert_eq!(watches.waiting.lock().len, 0);
        }
    }
}
