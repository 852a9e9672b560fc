use bytes::Bytes;
use foundationdb_tuple::TuplePack;
use smallvec::SmallVec;

/// A key that is looked at and not kept: of up to 96 bytes, which nearly all keys have, without an allocation.
pub type PackedKey = SmallVec<[u8; 96]>;

/// A key of the store, as the tuple layer packs it.
///
/// # Panics
/// When an element has four GiB.
#[must_use]
pub fn packed_key(tuple: &impl TuplePack) -> PackedKey {
    let mut packed = PackedKey::new();
    #[expect(clippy::expect_used, reason = "writing to memory does not fail")]
    tuple.pack_root(&mut packed).expect("a key that fits");
    packed
}

/// As [`packed_key`], to be kept: with one allocation.
///
/// # Panics
/// As that does.
#[must_use]
pub fn pack_key(tuple: &impl TuplePack) -> Bytes {
    Bytes::copy_from_slice(&packed_key(tuple))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_packed_as_the_tuple_layer_does() {
        let (short, long) = ((7_u16, 8_u16, "nine"), (7_u16, "x".repeat(200)));
        assert_eq!(pack_key(&short), foundationdb_tuple::pack(&short));
        assert_eq!(pack_key(&long), foundationdb_tuple::pack(&long));
    }
}
