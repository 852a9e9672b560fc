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
    pub(super) fn add(&mut self, mut writes: WriteSet, below: &Generation) -> Result<Vec<Bytes>, KvError> {
        let cleared = self.cleared_keys(&writes, below)?;
        for (key, mutation) in &mut writes.mutations {
            if let Mutation::Atomics(atomics) = mutation {
                let value = fold(atomics, self.value(key, below)?);
                *mutation = value.map_or(Mutation::Clear, Mutation::Set);
            }
        }
        let mut keys = Vec::with_capacity(cleared.len() + writes.mutations.len());
        for key in cleared {
            keys.push(key.clone());
            self.put(key, None);
        }
        for (key, mutation) in writes.mutations {
            keys.push(key.clone());
            match mutation {
                Mutation::Set(value) => self.put(key, Some(value)),
                Mutation::Clear | Mutation::Atomics(_) => self.put(key, None),
            }
        }
        Ok(keys)
    }

    /// The keys that `writes` clears by range and does not write: those that are there, which is all that the other
    /// transactions can tell.
    fn cleared_keys(&self, writes: &WriteSet, below: &Generation) -> Result<Vec<Bytes>, KvError> {
        let mut keys = Vec::new();
        for (start, end) in writes.cleared() {
            let in_group = self.values.range::<Bytes, _>(start..end);
            keys.extend(
                in_group
                    .filter(|(_, value)| value.is_some())
                    .map(|(key, _)| key.clone()),
            );
            for key in below.keys(start, end) {
                let key = key?;
                if !self.values.contains_key(&key) {
                    keys.push(key);
                }
            }
        }
        keys.retain(|key| !writes.mutations.contains_key(key));
        Ok(keys)
    }

    fn value(&self, key: &Bytes, below: &Generation) -> Result<Option<Bytes>, KvError> {
        match self.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => below.get(key),
        }
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.values.insert(key, value);
    }
}
