//! What a transaction has written and not committed yet.

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
};

use bytes::Bytes;

/// One atomic operation on a little-endian u64; an absent or shorter value counts as padded with zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    /// Adds, wrapping.
    Add(u64),
    /// Raises to at least this.
    Max(u64),
}

/// Bytes that an atomic operation writes.
const ATOMIC_BYTES: usize = 8;

impl Atomic {
    /// What the operation makes of a value.
    #[must_use]
    pub fn apply(self, value: Option<&[u8]>) -> Bytes {
        let mut bytes = [0; ATOMIC_BYTES];
        for (to, from) in bytes.iter_mut().zip(value.unwrap_or_default()) {
            *to = *from;
        }
        let before = u64::from_le_bytes(bytes);
        let after = match self {
            Self::Add(delta) => before.wrapping_add(delta),
            Self::Max(floor) => before.max(floor),
        };
        Bytes::copy_from_slice(&after.to_le_bytes())
    }
}

/// Applies `atomics` in order to what a key holds.
#[must_use]
pub fn fold(atomics: &[Atomic], value: Option<Bytes>) -> Option<Bytes> {
    atomics
        .iter()
        .fold(value, |value, atomic| Some(atomic.apply(value.as_deref())))
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// It gets this value.
    Set(Bytes),
    /// It goes.
    Clear,
    /// Applied in order to what the key holds at the commit.
    Atomics(Vec<Atomic>),
}

impl Mutation {
    fn bytes(&self) -> usize {
        match self {
            Self::Set(value) => value.len(),
            Self::Clear => 0,
            Self::Atomics(atomics) => atomics.len() * ATOMIC_BYTES,
        }
    }
}

/// What the buffer says of a key.
#[derive(Debug)]
pub(crate) enum Buffered<'a> {
    /// Nothing: ask the store.
    Unknown,
    Value(Option<&'a Bytes>),
    Atomics(&'a [Atomic]),
}

/// The buffered writes of one transaction: ranges cleared first, then one mutation a key.
#[derive(Debug, Default)]
pub struct WriteSet {
    pub(crate) mutations: BTreeMap<Bytes, Mutation>,
    /// Start to end, without overlaps.
    pub(crate) cleared: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

impl WriteSet {
    /// The ranges to clear before the mutations apply: first key, inclusive; last key, exclusive. They do not overlap.
    pub fn cleared(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.cleared.iter()
    }

    /// What becomes of single keys, by ascending key.
    pub fn mutations(&self) -> impl Iterator<Item = (&Bytes, &Mutation)> {
        self.mutations.iter()
    }

    /// How many keys and ranges are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mutations.len() + self.cleared.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty() && self.cleared.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set(&mut self, key: Bytes, value: Bytes) {
        self.put(key, Mutation::Set(value));
    }

    pub(crate) fn clear(&mut self, key: Bytes) {
        self.put(key, Mutation::Clear);
    }

    pub(crate) fn clear_range(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        let inside = self.mutations.range(start.clone()..end.clone());
        for key in inside.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.drop_mutation(&key);
        }
        // Overlapping and adjoining ranges become one.
        while let Some((from, to)) = self.cleared.range(..=end.clone()).next_back() {
            if *to < start {
                break;
            }
            let (from, to) = (from.clone(), to.clone());
            self.cleared.remove(&from);
            self.bytes -= from.len() + to.len();
            start = start.min(from);
            end = end.max(to);
        }
        self.bytes += start.len() + end.len();
        self.cleared.insert(start, end);
    }

    pub(crate) fn atomic(&mut self, key: Bytes, atomic: Atomic) {
        let mutation = match self.buffered(&key) {
            Buffered::Value(value) => Mutation::Set(atomic.apply(value.map(AsRef::as_ref))),
            Buffered::Atomics(before) => Mutation::Atomics(appended(before, atomic)),
            Buffered::Unknown => Mutation::Atomics(vec![atomic]),
        };
        self.put(key, mutation);
    }

    pub(crate) fn buffered(&self, key: &[u8]) -> Buffered<'_> {
        match self.mutations.get(key) {
            Some(Mutation::Set(value)) => Buffered::Value(Some(value)),
            Some(Mutation::Clear) => Buffered::Value(None),
            Some(Mutation::Atomics(atomics)) => Buffered::Atomics(atomics),
            None if self.is_cleared(key) => Buffered::Value(None),
            None => Buffered::Unknown,
        }
    }

    pub(crate) fn is_cleared(&self, key: &[u8]) -> bool {
        let mut starting_before = self.cleared.range::<[u8], _>((Unbounded, Included(key)));
        starting_before.next_back().is_some_and(|(_, end)| key < end.as_ref())
    }

    fn put(&mut self, key: Bytes, mutation: Mutation) {
        self.drop_mutation(&key);
        self.bytes += key.len() + mutation.bytes();
        self.mutations.insert(key, mutation);
    }

    fn drop_mutation(&mut self, key: &Bytes) {
        if let Some(mutation) = self.mutations.remove(key) {
            self.bytes -= key.len() + mutation.bytes();
        }
    }
}

/// `before` and then `atomic`, in as few operations as that takes.
fn appended(before: &[Atomic], atomic: Atomic) -> Vec<Atomic> {
    let mut atomics = before.to_vec();
    match (atomics.last_mut(), atomic) {
        (Some(Atomic::Add(sum)), Atomic::Add(delta)) => *sum = sum.wrapping_add(delta),
        (Some(Atomic::Max(floor)), Atomic::Max(value)) => *floor = value.max(*floor),
        (Some(Atomic::Add(_) | Atomic::Max(_)) | None, Atomic::Add(_) | Atomic::Max(_)) => atomics.push(atomic),
    }
    atomics
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cleared_ranges_hold_exactly_the_keys_cleared(ranges in prop::collection::vec((0..30_u8, 0..30_u8), 0..12)) {
            let mut writes = WriteSet::default();
            for (start, end) in &ranges {
                writes.clear_range(vec![*start].into(), vec![*end].into());
            }
            for key in 0..30_u8 {
                let expected = ranges.iter().any(|(start, end)| (*start..*end).contains(&key));
                prop_assert_eq!(writes.is_cleared(&[key]), expected, "key {}", key);
            }
            let ends: Vec<_> = writes.cleared().flat_map(|(start, end)| [start, end]).collect();
            prop_assert!(ends.is_sorted_by(|left, right| left < right), "ranges overlap or adjoin: {:?}", ends);
            prop_assert_eq!(writes.bytes(), ends.len());
        }

        #[test]
        fn appended_atomics_do_what_each_of_them_does(
            atomics in prop::collection::vec((any::<bool>(), any::<u64>()), 1..8),
            value in any::<Option<u64>>(),
        ) {
            let atomics: Vec<_> = atomics
                .into_iter()
                .map(|(adds, operand)| if adds { Atomic::Add(operand) } else { Atomic::Max(operand) })
                .collect();
            let value = value.map(|value| Bytes::copy_from_slice(&value.to_le_bytes()));
            let joined = atomics.iter().fold(Vec::new(), |joined, atomic| appended(&joined, *atomic));
            prop_assert_eq!(fold(&joined, value.clone()), fold(&atomics, value));
        }
    }

    #[test]
    fn bytes_follow_what_the_buffer_holds() {
        let mut writes = WriteSet::default();
        writes.set("key".into(), "value".into());
        assert_eq!(writes.bytes(), 8);
        writes.set("key".into(), "v".into());
        assert_eq!(writes.bytes(), 4);
        writes.atomic("n".into(), Atomic::Add(1));
        writes.atomic("n".into(), Atomic::Add(2));
        assert_eq!(writes.bytes(), 13);
        writes.clear_range("a".into(), "z".into());
        assert_eq!(writes.bytes(), 2);
    }
}
