use std::sync::Arc;

use antiphon_kv::{Kv, KvError};

use crate::{
    NodeRow, Sign,
    rows::{self, Row},
};

/// This node's row in the store. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    kv: Kv,
    pub(crate) own: Arc<NodeRow>,
    process: u64,
}

/// What a heartbeat has found.
pub(crate) enum Beat {
    /// Everybody's rows.
    Rows(Vec<Row>),
    /// Another process writes this node's row.
    Replaced,
}

impl Announcement {
    pub(crate) fn new(kv: Kv, own: NodeRow) -> Self {
        Self {
            kv,
            own: Arc::new(own),
            process: rand::random(),
        }
    }

    /// Writes the first row, whoever had it before, and returns all. Of two nodes that do so at once one sees the other.
    pub(crate) async fn announce(&self) -> Result<Vec<Row>, KvError> {
        loop {
            let announced = self.kv.transact(|txn| async move {
                let found = rows::all_exclusively(&txn).await?;
                rows::write(&txn, &self.row(0, false));
                Ok::<_, KvError>(found)
            });
            match announced.await {
                // To write it again changes nothing.
                Err(KvError::CommitUnknown) => {}
                result => return result,
            }
        }
    }

    /// Counts up, and reads everybody's rows.
    pub(crate) async fn beat(&self, heartbeat: u64, is_leaving: bool) -> Result<Beat, KvError> {
        let beaten = self.kv.transact(|txn| async move {
            if !self.is_own(rows::one(&txn, &self.own.id).await?.as_ref()) {
                return Ok(Beat::Replaced);
            }
            rows::write(&txn, &self.row(heartbeat, is_leaving));
            Ok::<_, KvError>(Beat::Rows(rows::all(&txn).await?))
        });
        beaten.await
    }

    /// Removes the row of this node.
    pub(crate) async fn remove(&self) -> Result<(), KvError> {
        let removed = self.kv.transact(|txn| async move {
            if self.is_own(rows::one(&txn, &self.own.id).await?.as_ref()) {
                rows::remove(&txn, &self.own.id);
            }
            Ok::<_, KvError>(())
        });
        removed.await
    }

    /// Removes another's row, unless it has changed.
    pub(crate) async fn forget(&self, row: &Row) -> Result<(), KvError> {
        let removed = self.kv.transact(|txn| async move {
            if rows::one(&txn, &row.node.id).await?.as_ref() == Some(row) {
                rows::remove(&txn, &row.node.id);
            }
            Ok::<_, KvError>(())
        });
        removed.await
    }

    /// Whether the row is this process's. One that is not there was removed by who has not seen this node for long.
    fn is_own(&self, row: Option<&Row>) -> bool {
        row.is_none_or(|row| row.sign.process == self.process)
    }

    fn row(&self, heartbeat: u64, is_leaving: bool) -> Row {
        Row {
            node: self.own.clone(),
            sign: Sign {
                process: self.process,
                heartbeat,
            },
            is_leaving,
        }
    }
}
