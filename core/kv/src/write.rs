//! What a transaction has written and not committed yet.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One atomic operation on a little-endian u64; an absent or shorter value counts as padded with zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add(u64),
    Max(u64),
}

impl Atomic {
    pub(crate) fn apply(self, value: Option<&[u8]>) -> Bytes {
        let mut bytes = [0; 8];
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

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mutation {
    Set(Bytes),
    Clear,
    /// Applied in order to what the key holds at the commit.
    Atomics(Vec<Atomic>),
}

/// What the buffer says of a key.
pub(crate) enum Buffered<'a> {
    /// Nothing: ask the store.
    Unknown,
    Value(Option<&'a Bytes>),
    Atomics(&'a [Atomic]),
}

/// The buffered writes of one transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct WriteSet {
    pub(crate) mutations: BTreeMap<Bytes, Mutation>,
    /// Cleared before the mutations apply.
    pub(crate) cleared: Vec<(Bytes, Bytes)>,
}

impl WriteSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.mutations.is_empty() && self.cleared.is_empty()
    }

    pub(crate) fn set(&mut self, key: Bytes, value: Bytes) {
        self.mutations.insert(key, Mutation::Set(value));
    }

    pub(crate) fn clear(&mut self, key: Bytes) {
        self.mutations.insert(key, Mutation::Clear);
    }

    pub(crate) fn clear_range(&mut self, start: Bytes, end: Bytes) {
        if start >= end {
            return;
        }
        self.mutations.retain(|key, _| *key < start || *key >= end);
        self.cleared.push((start, end));
    }

    pub(crate) fn atomic(&mut self, key: Bytes, atomic: Atomic) {
        let is_cleared = self.is_cleared(&key);
        match self.mutations.get_mut(&key) {
            Some(Mutation::Set(value)) => *value = atomic.apply(Some(value)),
            Some(mutation @ Mutation::Clear) => *mutation = Mutation::Set(atomic.apply(None)),
            Some(Mutation::Atomics(atomics)) => atomics.push(atomic),
            None if is_cleared => self.set(key, atomic.apply(None)),
            None => {
                self.mutations.insert(key, Mutation::Atomics(vec![atomic]));
            }
        }
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
        self.cleared
            .iter()
            .any(|(start, end)| start.as_ref() <= key && key < end.as_ref())
    }
}

/// Applies `atomics` in order to what a key holds.
pub(crate) fn fold(atomics: &[Atomic], value: Option<Bytes>) -> Option<Bytes> {
    atomics
        .iter()
        .fold(value, |value, atomic| Some(atomic.apply(value.as_deref())))
}
