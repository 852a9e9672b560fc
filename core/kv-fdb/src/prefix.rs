use antiphon_kv::{KvError, RangeRead};
use bytes::Bytes;
use foundationdb::tuple;

/// The keys of one store among all keys of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(Bytes);

impl Prefix {
    /// Tuple-encoded names, so that no prefix is the beginning of another one of as many names.
    pub(crate) fn new(names: &[String]) -> Result<Self, KvError> {
        // The encoding writes a zero byte as two, of which a key behind it could bring the second.
        let is_usable = !names.is_empty() && names.iter().all(|name| !name.contains('\0'));
        if !is_usable {
            let reason = format!("the prefix {names:?} is refused: it takes names without zero bytes");
            return Err(KvError::Io(reason));
        }
        Ok(Self(tuple::pack(&names).into()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A key as the cluster knows it.
    pub(crate) fn outer(&self, key: &[u8]) -> Vec<u8> {
        [&self.0, key].concat()
    }

    /// The key right after a key, as the cluster knows it.
    pub(crate) fn outer_after(&self, key: &[u8]) -> Vec<u8> {
        [&self.0, key, &[0]].concat()
    }

    /// The bounds of a range, as the cluster knows them.
    pub(crate) fn outer_range(&self, range: &RangeRead) -> (Vec<u8>, Vec<u8>) {
        (self.outer(&range.start), self.outer(&range.end))
    }

    /// A key as the store knows it. Only keys that were asked for under this prefix come here.
    pub(crate) fn inner(&self, key: &[u8]) -> Bytes {
        Bytes::copy_from_slice(key.get(self.0.len()..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_key_of_one_store_is_a_key_of_another(
            names in prop::array::uniform2(prop::array::uniform2("[a-c]{0,3}")),
            keys in prop::array::uniform2(prop::collection::vec(any::<u8>(), 0..4)),
        ) {
            let [left, right] = names.clone().map(|names| Prefix::new(&names).unwrap());
            prop_assume!(names[0] != names[1]);
            prop_assert_ne!(left.outer(&keys[0]), right.outer(&keys[1]));
        }

        #[test]
        fn keys_keep_their_order_and_come_back(keys in prop::array::uniform2(prop::collection::vec(any::<u8>(), 0..4))) {
            let prefix = Prefix::new(&["deployment".to_owned(), "region".to_owned()]).unwrap();
            let [left, right] = &keys;
            prop_assert_eq!(prefix.outer(left).cmp(&prefix.outer(right)), left.cmp(right));
            prop_assert_eq!(&prefix.inner(&prefix.outer(left)), left);
        }
    }

    #[test]
    fn a_prefix_that_another_could_continue_is_refused() {
        for names in [vec![], vec!["a".to_owned(), "b\0".to_owned()]] {
            assert!(matches!(Prefix::new(&names), Err(KvError::Io(_))), "{names:?}");
        }
    }
}
