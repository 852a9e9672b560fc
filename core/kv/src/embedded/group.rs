use std::collections::BTreeMap;

use bytes::Bytes;

use super::generation::Generation;
use crate::{
    KvError,
    engine::{Mutation, WriteSet, fold},
};

/// What a group of commits makes of the store: the last word on each key.
///
/// A key occurs once in the batch that is written: fjall tells two writes of a key apart by their batches alone.
#[derive(Default)]
pub(super) struct Group {
    pub(super) values: BTreeMap<Bytes, Option<Bytes>>,
    pub(super) bytes: usize,
}

impl Group {
    /// Adds one commit after those that are there; returns the keys that it changes. A failure leaves the group as it was.
    pub(super) fn add(&mut self, writes: &WriteSet, below: &Generation) -> Result<Vec<Bytes>, KvError> {
        let mut changes = Vec::with_capacity(writes.mutations.len());
        for (start, end) in writes.cleared() {
            self.clear_range(start, end, writes, below, &mut changes)?;
        }
        for (key, mutation) in writes.mutations() {
            let value = match mutation {
                Mutation::Set(value) => Some(value.clone()),
                Mutation::Clear => None,
                Mutation::Atomics(atomics) => fold(atomics, self.value(key, below)?),
            };
            changes.push((key.clone(), value));
        }
        let keys = changes.iter().map(|(key, _)| key.clone()).collect();
        for (key, value) in changes {
            self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            self.values.insert(key, value);
        }
        Ok(keys)
    }

    /// Clears the keys that are there, which is all that the other transactions can tell.
    fn clear_range(
        &self,
        start: &Bytes,
        end: &Bytes,
        writes: &WriteSet,
        below: &Generation,
        changes: &mut Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<(), KvError> {
        let in_group = self.values.range::<Bytes, _>(start..end);
        for (key, _) in in_group.filter(|(_, value)| value.is_some()) {
            if !writes.mutations.contains_key(key) {
                changes.push((key.clone(), None));
            }
        }
        for key in below.keys(start, end) {
            let key = key?;
            if !self.values.contains_key(&key) && !writes.mutations.contains_key(&key) {
                changes.push((key, None));
            }
        }
        Ok(())
    }

    fn value(&self, key: &Bytes, below: &Generation) -> Result<Option<Bytes>, KvError> {
        match self.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => below.get(key),
        }
    }
}
