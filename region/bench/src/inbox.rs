use std::collections::BTreeSet;

/// Which messages of a conversation a device has: all up to one seq, and some behind a hole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inbox {
    whole: u64,
    ahead: BTreeSet<u64>,
}

impl Inbox {
    /// Of a device that has all messages up to this one.
    pub(crate) const fn whole_to(seq: u64) -> Self {
        Self {
            whole: seq,
            ahead: BTreeSet::new(),
        }
    }

    /// Takes a message; false if it was there.
    pub(crate) fn take(&mut self, seq: u64) -> bool {
        if seq <= self.whole || !self.ahead.insert(seq) {
            return false;
        }
        while self.ahead.remove(&(self.whole + 1)) {
            self.whole += 1;
        }
        true
    }

    /// Up to where nothing is missing.
    pub(crate) const fn whole(&self) -> u64 {
        self.whole
    }

    /// How many of the first `tail` are missing.
    pub(crate) fn missing(&self, tail: u64) -> u64 {
        let ahead = self.ahead.range(..=tail).count();
        tail.saturating_sub(self.whole + u64::try_from(ahead).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_counted_and_filled() {
        let mut inbox = Inbox::default();
        assert!(inbox.take(1) && inbox.take(4) && inbox.take(3));
        assert!(!inbox.take(4) && !inbox.take(1), "they were there");
        assert_eq!((inbox.whole(), inbox.missing(4), inbox.missing(6)), (1, 1, 3));
        assert!(inbox.take(2));
        assert_eq!((inbox.whole(), inbox.missing(4), inbox.missing(6)), (4, 0, 2));
    }
}
