use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// Of what is broken, as many are told in words.
const SHOWN_MAX: usize = 20;

/// What the devices of one conversation have under each seq: a digest of the first that somebody had.
#[derive(Debug, Default)]
pub(crate) struct Agreed(Mutex<HashMap<u64, u64>>);

impl Agreed {
    /// Whether this is what everybody else has under that seq.
    pub(crate) fn on(&self, seq: u64, sender_id: &str, client_msg_id: &str, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (sender_id, client_msg_id, text).hash(&mut hasher);
        let digest = hasher.finish();
        *self.0.lock().entry(seq).or_insert(digest) == digest
    }
}

/// What came otherwise than it was sent.
#[derive(Debug, Default)]
pub(crate) struct Broken {
    count: AtomicUsize,
    shown: Mutex<Vec<String>>,
}

impl Broken {
    pub(crate) fn tell(&self, what: &str) {
        if self.count.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX {
            self.shown.lock().push(what.to_owned());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The first of them, in words.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_the_same_under_one_seq_or_do_not_agree() {
        let agreed = Agreed::default();
        assert!(agreed.on(1, "alice", "1", "text") && agreed.on(2, "alice", "1", "text"));
        assert!(agreed.on(1, "alice", "1", "text"));
        assert!(!agreed.on(1, "bob", "1", "text"));
        assert!(!agreed.on(1, "alice", "2", "text"));
        assert!(!agreed.on(2, "alice", "1", "other"));
    }
}
