use std::{cmp::Ordering, iter, ops::Bound::Excluded, ops::Bound::Included};

use bytes::Bytes;

use crate::write::{Mutation, WriteSet, fold};

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPair {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// What to read of a range of keys.
#[derive(Debug, Clone)]
pub struct RangeRead {
    /// First key, inclusive.
    pub start: Bytes,
    /// Last key, exclusive.
    pub end: Bytes,
    /// At most this many pairs; 0 is refused.
    pub limit: usize,
    /// Read from the end backwards; pairs come in descending order.
    pub reverse: bool,
}

/// One page of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The pairs, in the order asked for.
    pub pairs: Vec<KvPair>,
    /// Whether the range holds more beyond the last pair (cut by the limit or by bytes).
    pub more: bool,
}

impl Page {
    /// Where a range that is read forwards goes on after this page; none when this was its last.
    #[must_use]
    pub fn next_start(&self) -> Option<Bytes> {
        let last = self.pairs.last().filter(|_| self.more)?;
        Some(after(&last.key))
    }
}

/// Bytes of keys and values after which a page ends.
pub const PAGE_BYTES_MAX: usize = 256 * 1_024;

impl RangeRead {
    pub(crate) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The part of the range that a page which ended at `last` has read, that key included.
    pub(crate) fn up_to(&self, last: &Bytes) -> (Bytes, Bytes) {
        if self.reverse {
            (last.clone(), self.end.clone())
        } else {
            (self.start.clone(), after(last))
        }
    }
}

/// A page of the store with the buffered writes laid over it. `stored` is all that the store holds from `start` to `end`, in
/// the order of reading.
pub(crate) fn overlaid<'a>(
    writes: &'a WriteSet,
    (start, end): (&Bytes, &Bytes),
    stored: Vec<KvPair>,
    reverse: bool,
) -> impl Iterator<Item = KvPair> + use<'a> {
    let mut stored = stored
        .into_iter()
        .filter(|pair| !writes.is_cleared(&pair.key))
        .peekable();
    let written = writes
        .mutations
        .range::<[u8], _>((Included(start.as_ref()), Excluded(end.as_ref())));
    let written: Box<dyn Iterator<Item = (&Bytes, &Mutation)> + Send> = if reverse {
        Box::new(written.rev())
    } else {
        Box::new(written)
    };
    let mut written = written.peekable();
    iter::from_fn(move || {
        loop {
            let next = match (stored.peek(), written.peek()) {
                (Some(pair), Some((key, _))) if reverse => (*key).cmp(&pair.key),
                (Some(pair), Some((key, _))) => pair.key.cmp(key),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if next == Ordering::Less {
                return stored.next();
            }
            let (key, mutation) = written.next()?;
            let below = if next == Ordering::Equal { stored.next() } else { None };
            let value = match mutation {
                Mutation::Set(value) => Some(value.clone()),
                Mutation::Clear => None,
                Mutation::Atomics(atomics) => fold(atomics, below.map(|pair| pair.value)),
            };
            if let Some(value) = value {
                return Some(KvPair {
                    key: key.clone(),
                    value,
                });
            }
        }
    })
}

/// The key right after `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
