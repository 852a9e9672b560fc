use std::collections::{HashMap, VecDeque};

use antiphon_types::{LogIndex, Slot};
use bytes::Bytes;
use parking_lot::Mutex;

/// Entries that were appended a moment ago, so that shipping them reads no store. Bounded by bytes; the oldest go first.
pub(crate) struct Recent {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<(Slot, LogIndex), Bytes>,
    order: VecDeque<(Slot, LogIndex)>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
        }
    }

    pub(crate) fn insert(&self, slot: Slot, index: LogIndex, entry: Bytes) {
        let mut state = self.state.lock();
        state.bytes += entry.len();
        state.order.push_back((slot, index));
        if let Some(before) = state.entries.insert((slot, index), entry) {
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

    /// The entries from `from` to `to` as far as they are here without a gap, up to about `bytes_max`.
    pub(crate) fn entries(&self, slot: Slot, from: LogIndex, to: LogIndex, bytes_max: usize) -> Vec<Bytes> {
        let state = self.state.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for index in from..=to {
            let Some(entry) = state.entries.get(&(slot, index)) else {
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

    #[test]
    fn the_oldest_entries_go_when_there_is_no_room() {
        let recent = Recent::new(30);
        for index in 1..=5 {
            recent.insert(Slot::DEPLOYMENT, index, vec![0; 10].into());
        }
        assert_eq!(recent.entries(Slot::DEPLOYMENT, 1, 5, 100), Vec::<Bytes>::new());
        assert_eq!(recent.entries(Slot::DEPLOYMENT, 3, 9, 100).len(), 3);
        assert_eq!(recent.entries(Slot::DEPLOYMENT, 3, 5, 11).len(), 2);
    }
}
