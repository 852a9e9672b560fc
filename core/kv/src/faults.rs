use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::KvError;

/// A failure that tests put into a commit; see [`Kv::with_faults`](crate::Kv::with_faults).
#[derive(Debug, Clone)]
pub enum CommitFault {
    /// The commit fails so and nothing of it happens.
    Before(KvError),
    /// The commit happens and is answered so.
    After(KvError),
}

/// The failures of the next commits, in order. Cheap to clone: clones are the same queue. For tests.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    next: Arc<Mutex<VecDeque<CommitFault>>>,
}

impl Faults {
    /// Takes back those that no commit has met yet.
    pub fn clear(&self) {
        self.next.lock().clear();
    }

    /// Lets one commit more fail. Commits that write nothing do not count.
    pub fn add(&self, fault: CommitFault) {
        self.next.lock().push_back(fault);
    }

    pub(crate) fn take(&self) -> Option<CommitFault> {
        self.next.lock().pop_front()
    }
}
