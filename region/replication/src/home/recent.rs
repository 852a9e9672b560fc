use std::collections::{HashMap, VecDeque};

use antiphon_types::{Epoch, LogIndex, Slot};
use bytes::Bytes;
use parking_lot::Mutex;

/// Entries that were appended here a moment ago, so that shipping them reads no store. Bounded by bytes; the oldest go first.
///
/// They are known by the epoch that wrote them too: a region that was home, cut its log and is home again has other entries under the
/// same indices.
pub(crate) struct Recent {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<(Slot, Epoch, LogIndex), Bytes>,
    order: VecDeque<(Slot, Epoch, LogIndex)>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
        }
    }

    pub(crate) fn insert(&self, (slot, epoch): (Slot, Epoch), index: LogIndex, entry: Bytes) {
        let mut state = self.state.lock();
        state.bytes += entry.len();
        state.order.push_back((slot, epoch, index));
        if let Some(before) = state.entries.insert((slot, epoch, index), entry) {
            state.bytes -= before.len();
        }
        while state.bytes > self.bytes_max
            && let Some(oldest) = state.order.pop_front()
        {
            if let Some(entry) = state.entries.remove(&oldest) {
                state.bytes -= entry.len();
            }
        }
    }

    /// The entries that `epoch` wrote from `from` to `to` as far as they are here without a gap, up to about `bytes_max`.
    pub(crate) fn entries(
        &self,
        (slot, epoch): (Slot, Epoch),
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Vec<Bytes> {
        let state = self.state.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for index in from..=to {
            let Some(entry) = state.entries.get(&(slot, epoch, index)) else {
                break;
            };
            bytes += entry.len();
            found.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: (Slot, Epoch) = (Slot::DEPLOYMENT, 1);

    #[test]
    fn the_oldest_entries_go_when_there_is_no_room() {
        let recent = Recent::new(30);
        for index in 1..=5 {
            recent.insert(SLOT, index, vec![0; 10].into());
        }
        assert_eq!(recent.entries(SLOT, 1, 5, 100), Vec::<Bytes>::new());
        assert_eq!(recent.entries(SLOT, 3, 9, 100).len(), 3);
        assert_eq!(recent.entries(SLOT, 3, 5, 11).len(), 2);
    }

    #[test]
    fn what_an_earlier_epoch_wrote_here_is_not_shipped_under_a_later_one() {
        let recent = Recent::new(100);
        recent.insert(SLOT, 7, "cut since".into());
        let later = (SLOT.0, 3);
        assert_eq!(recent.entries(later, 7, 7, 100), Vec::<Bytes>::new());
        recent.insert(later, 8, "of now".into());
        assert_eq!(recent.entries(later, 8, 8, 100).len(), 1);
    }
}
