use antiphon_types::Slot;

use super::NodeId;

/// Whose `slot` is among `nodes`; `None` when there are none. The order in which they come does not matter.
///
/// Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): every node has a weight for
/// the slot, and the heaviest owns it. Nodes of different versions and regions compare their results, so the weights never change.
#[must_use]
pub fn owner<'a>(slot: Slot, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    nodes.into_iter().max_by_key(|node| (weight(slot, node), *node))
}

/// FNV-1a of the node's id and the slot's number in two bytes, big-endian, then the finalizer of SplitMix64: FNV alone leaves the
/// upper bits of two slots alike.
fn weight(slot: Slot, node: &NodeId) -> u64 {
    let number = slot.number().to_be_bytes();
    let bytes = node.as_str().bytes().chain([0]).chain(number);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use antiphon_types::SLOT_COUNT;
    use proptest::prelude::*;

    use super::*;

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        let id = "[a-z0-9-]{1,8}".prop_map(|text| NodeId::parse(&text).unwrap());
        prop::collection::btree_set(id, 1..8)
    }

    proptest! {
        #[test]
        fn slots_spread_evenly(nodes in nodes()) {
            let even = usize::from(SLOT_COUNT) / nodes.len();
            for node in &nodes {
                let count = Slot::all().filter(|slot| owner(*slot, &nodes) == Some(node)).count();
                prop_assert!(count.abs_diff(even) <= even * 3 / 10, "{node}: {count} and not about {even}");
            }
        }

        #[test]
        fn who_comes_or_goes_moves_no_slot_between_others(nodes in nodes(), other in "[a-z0-9-]{9}") {
            let other = NodeId::parse(&other).unwrap();
            let mut with_other = nodes.clone();
            with_other.insert(other.clone());
            for slot in Slot::all() {
                let (without, with) = (owner(slot, &nodes), owner(slot, &with_other));
                prop_assert!(with == without || with == Some(&other), "{slot:?}: {without:?}, then {with:?}");
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(nodes in nodes()) {
            for slot in Slot::all().take(64) {
                prop_assert_eq!(owner(slot, &nodes), owner(slot, nodes.iter().rev()));
            }
        }
    }

    #[test]
    fn nobody_owns_a_slot_of_a_region_without_nodes() {
        assert_eq!(owner(Slot::DEPLOYMENT, []), None);
    }

    /// Nodes of the next version must come to the same.
    #[test]
    fn weights_are_what_they_always_were() {
        let node = |text| NodeId::parse(text).unwrap();
        assert_eq!(weight(Slot::DEPLOYMENT, &node("1")), 0xabf6_aad0_3f69_7c94);
        assert_eq!(weight(Slot::new(4095).unwrap(), &node("node-7")), 0x712d_0a95_20b9_fe70);
    }
}
