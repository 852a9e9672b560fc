//! The rows in the store.

use std::sync::Arc;

use antiphon_kv::{KvError, Page, RangeRead, Txn};
use antiphon_proto::log;
use antiphon_types::pack_key;
use bytes::Bytes;
use prost::Message as _;

use crate::{NodeId, NodeRow, Sign};

/// The first element of every key here. A byte string comes before every key of a slot, which begins with a number.
const NODE: &[u8] = b"node";
/// More nodes than that are not read.
const ROWS_MAX: usize = 256;

/// A node's row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) node: Arc<NodeRow>,
    pub(crate) sign: Sign,
    pub(crate) is_leaving: bool,
}

/// Reads every row. Those that cannot be read are left out: they are of a later version, or of nobody.
pub(crate) async fn all(txn: &Txn) -> Result<Vec<Row>, KvError> {
    Ok(decoded(txn.snapshot_range(every_row()).await?))
}

/// As [`all`], with conflict: whoever writes a row meanwhile comes before.
pub(crate) async fn all_exclusively(txn: &Txn) -> Result<Vec<Row>, KvError> {
    Ok(decoded(txn.range(every_row()).await?))
}

/// Reads one row, with conflict: whoever writes it meanwhile comes before.
pub(crate) async fn one(txn: &Txn, id: &NodeId) -> Result<Option<Row>, KvError> {
    let key = key(id);
    Ok(txn.get(&key).await?.and_then(|value| decode(&key, value)))
}

pub(crate) fn write(txn: &Txn, row: &Row) {
    let stored = log::NodeRow {
        rpc: row.node.rpc.clone(),
        process: row.sign.process,
        started_at_ms: row.node.started_at_ms,
        heartbeat: row.sign.heartbeat,
        leaving: row.is_leaving,
    };
    txn.set(key(&row.node.id), stored.encode_to_vec());
}

pub(crate) fn remove(txn: &Txn, id: &NodeId) {
    txn.clear(key(id));
}

fn every_row() -> RangeRead {
    let prefix = pack_key(&(NODE,));
    RangeRead {
        start: [prefix.as_ref(), &[0x00]].concat().into(),
        end: [prefix.as_ref(), &[0xff]].concat().into(),
        limit: ROWS_MAX,
        reverse: false,
    }
}

fn decoded(page: Page) -> Vec<Row> {
    let pairs = page.pairs.into_iter();
    pairs.filter_map(|pair| decode(&pair.key, pair.value)).collect()
}

fn key(id: &NodeId) -> Bytes {
    pack_key(&(NODE, id.as_str().as_bytes()))
}

fn decode(key: &[u8], value: Bytes) -> Option<Row> {
    let (_, id): (Vec<u8>, Vec<u8>) = foundationdb_tuple::unpack(key).ok()?;
    let id = NodeId::parse(std::str::from_utf8(&id).ok()?).ok()?;
    let stored = log::NodeRow::decode(value).ok()?;
    Some(Row {
        node: Arc::new(NodeRow {
            id,
            rpc: stored.rpc,
            started_at_ms: stored.started_at_ms,
        }),
        sign: Sign {
            process: stored.process,
            heartbeat: stored.heartbeat,
        },
        is_leaving: stored.leaving,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use foundationdb_tuple::pack;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written(
            id in "[a-z0-9-]{1,32}",
            rpc in ".{0,40}",
            process: u64,
            heartbeat: u64,
            started_at_ms: u64,
            is_leaving: bool,
        ) {
            let node = NodeRow { id: NodeId::parse(&id).unwrap(), rpc, started_at_ms };
            let stored = log::NodeRow { rpc: node.rpc.clone(), process, started_at_ms, heartbeat, leaving: is_leaving };
            let row = decode(&key(&node.id), stored.encode_to_vec().into());
            let sign = Sign { process, heartbeat };
            prop_assert_eq!(row, Some(Row { node: Arc::new(node), sign, is_leaving }));
        }
    }

    #[test]
    fn rows_come_before_every_slot() {
        let id = NodeId::parse("1").unwrap();
        assert_eq!(key(&id).as_ref(), b"\x01node\0\x011\0");
        assert!(*key(&id) < *pack(&(0_u16,)));
    }
}
