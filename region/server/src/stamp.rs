//! Which deployment a store of slots belongs to.
//!
//! The directory counts on what a region holds. A region whose store was lost or exchanged, but which still speaks under its id, would
//! be asked for what it has forgotten; and a store that was filled by a region alone would be taken for copies that it does not hold.

use std::time::Duration;

use antiphon_kv::{Kv, KvError, RangeRead};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::store_copy;

/// The tuple of one byte string: it comes before every key of a slot, which begins with a number.
const STAMP: &[u8] = b"\x01stamp\0";

/// Where the keys of slots are, which begin with a number; nodes that announce themselves write before.
const SLOTS: (&[u8], &[u8]) = (b"\x02", b"\xff");

/// The name of the deployment, in a store that is one of several in a cluster.
const NAME: &[u8] = b"\x01deployment\0";

/// Who opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    /// A region that knows no other.
    Alone,
    /// A region of a deployment.
    Member {
        /// The number of its directory's store.
        directory: u64,
        /// Whether the directory holds a deployment already.
        is_founded: bool,
    },
    /// A further node of a region, beside the one that has the voter.
    Beside {
        /// The number of that one's directory's store.
        directory: u64,
    },
}

/// How long a further node waits for the stamp: the node with the voter is heard by the others a little before it has stamped the store.
const STAMP_WAIT_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// Checks that the store is this region's; the node with the region's voter stamps a new one.
///
/// # Errors
/// When it is not, with what to do.
pub(crate) async fn check(kv: &Kv, opener: Opener) -> Result<()> {
    check_within(kv, opener, STAMP_WAIT_MAX).await
}

async fn check_within(kv: &Kv, opener: Opener, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let (stamp, is_empty) = read(kv, opener).await?;
        let waits = matches!(opener, Opener::Beside { .. }) && stamp.is_none() && begun.elapsed() < patience;
        if !waits {
            return judge(opener, stamp.as_deref(), is_empty);
        }
        sleep(LOOK).await;
    }
}

/// The stamp, and whether no slot holds anything.
async fn read(kv: &Kv, opener: Opener) -> Result<(Option<Bytes>, bool)> {
    let found = kv.transact(|txn| async move {
        let stamp = txn.get(STAMP).await?;
        if txn.get(store_copy::MARK).await?.is_some() {
            return Err(Unread::Copying);
        }
        let any = txn
            .range(RangeRead {
                start: SLOTS.0.to_vec().into(),
                end: SLOTS.1.to_vec().into(),
                limit: 1,
                reverse: false,
            })
            .await?;
        if let (None, Opener::Member { directory, .. }, true) = (&stamp, opener, any.pairs.is_empty()) {
            txn.set(STAMP.to_vec(), directory.to_be_bytes().to_vec());
        }
        Ok((stamp, any.pairs.is_empty()))
    });
    Ok(found.await?)
}

/// Why a stamp does not say whose the store is.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the store's stamp cannot be read: {0}")]
    Store(#[from] KvError),
    #[error(
        "a copy into the store was begun and has not ended: end it (`antiphon ctl store copy` once more, with the same settings), or \
         empty the store"
    )]
    Copying,
}

fn judge(opener: Opener, stamp: Option<&[u8]>, is_empty: bool) -> Result<()> {
    match (opener, stamp) {
        (Opener::Alone, None) => Ok(()),
        (Opener::Alone, Some(_)) => bail!(
            "the store belongs to a region of a deployment and cannot be opened alone: start it with the other regions (setting \
             `deployment.regions`)"
        ),
        (Opener::Member { directory, .. } | Opener::Beside { directory }, Some(stamp))
            if *stamp == directory.to_be_bytes() =>
        {
            Ok(())
        }
        (Opener::Beside { .. }, _) => bail!(
            "the store is not that of the region's other nodes: a further node has to be given the same store as the one with the \
             region's voter"
        ),
        (Opener::Member { .. }, Some(_)) => bail!(
            "the store and the directory in this folder do not belong together: one of them was exchanged. Put back what belongs \
             here, or have the region removed (`antiphon ctl region remove`) and added anew"
        ),
        (Opener::Member { is_founded: true, .. }, None) => bail!(
            "the store is not the one that this region has kept its copies in: the others count on those. Have the region removed \
             (`antiphon ctl region remove`) and added anew, with an empty folder"
        ),
        (Opener::Member { .. }, None) if is_empty => Ok(()),
        (Opener::Member { .. }, None) => bail!(
            "the store was filled by a region alone, and no other region has copies of that: start the deployment with an empty folder"
        ),
    }
}

/// Checks that a store in a cluster is of the deployment of this name, and names a new one. After [`check`], which takes a store with a
/// name for one that is in use.
///
/// # Errors
/// When it is of another, with what to do.
pub(crate) async fn check_name(kv: &Kv, deployment: &str) -> Result<()> {
    let found = kv.transact(|txn| async move {
        let found = txn.get(NAME).await?;
        if found.is_none() {
            txn.set(NAME.to_vec(), deployment.as_bytes().to_vec());
        }
        Ok::<_, KvError>(found)
    });
    match found
        .await
        .context("the name of the store's deployment cannot be read")?
    {
        Some(name) if *name != *deployment.as_bytes() => bail!(
            "the store belongs to the deployment {:?} and not to {deployment:?}: choose another prefix (setting `store.fdb_prefix`)",
            String::from_utf8_lossy(&name)
        ),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_kv::EmbeddedOptions;

    use super::*;

    const NEW: Opener = Opener::Member {
        directory: 7,
        is_founded: false,
    };
    const FOUNDED: Opener = Opener::Member {
        directory: 7,
        is_founded: true,
    };
    const OTHER: Opener = Opener::Member {
        directory: 8,
        is_founded: true,
    };

    async fn store() -> (tempfile::TempDir, Kv) {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().join("store"),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        (folder, kv)
    }

    async fn refused(kv: &Kv, opener: Opener) -> String {
        check(kv, opener).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_store_is_stamped_once_and_serves_nobody_else() {
        let (_folder, kv) = store().await;
        check(&kv, NEW).await.unwrap();
        check(&kv, NEW).await.unwrap();
        check(&kv, FOUNDED).await.unwrap();
        assert!(refused(&kv, OTHER).await.contains("do not belong together"));
        assert!(refused(&kv, Opener::Alone).await.contains("deployment.regions"));
    }

    #[tokio::test]
    async fn a_store_of_a_cluster_serves_one_deployment() {
        let (_folder, kv) = store().await;
        check(&kv, NEW).await.unwrap();
        for _ in 0..2 {
            check_name(&kv, "one").await.unwrap();
            check(&kv, FOUNDED).await.unwrap();
        }
        let refused = check_name(&kv, "two").await.unwrap_err().to_string();
        assert!(
            refused.contains("\"one\"") && refused.contains("store.fdb_prefix"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_store_that_is_being_copied_into_is_opened_by_nobody() {
        let (_folder, kv) = store().await;
        kv.transact(|txn| async move {
            txn.set(store_copy::MARK.to_vec(), Vec::new());
            Ok::<_, KvError>(())
        })
        .await
        .unwrap();
        for opener in [NEW, FOUNDED, Opener::Alone] {
            assert!(refused(&kv, opener).await.contains("ctl store copy"));
        }
    }

    #[tokio::test]
    async fn a_further_node_waits_for_the_stamp_and_takes_no_other_store() {
        let (_folder, kv) = store().await;
        let beside = |directory| Opener::Beside { directory };
        assert!(check_within(&kv, beside(7), LOOK).await.is_err(), "never stamped");
        let waiting = check(&kv, beside(7));
        let stamping = async {
            sleep(LOOK).await;
            check(&kv, NEW).await.unwrap();
        };
        let (waited, ()) = tokio::join!(waiting, stamping);
        waited.unwrap();
        assert!(refused(&kv, beside(8)).await.contains("same store"));
    }

    #[tokio::test]
    async fn a_store_that_was_lost_or_filled_alone_is_not_taken_for_copies() {
        let (_folder, kv) = store().await;
        assert!(refused(&kv, FOUNDED).await.contains("region remove"));
        let (_folder, kv) = store().await;
        check(&kv, Opener::Alone).await.unwrap();
        kv.transact(|txn| async move {
            txn.set(vec![0x15, 3], vec![1]);
            Ok::<_, KvError>(())
        })
        .await
        .unwrap();
        check(&kv, Opener::Alone).await.unwrap();
        assert!(refused(&kv, NEW).await.contains("filled by a region alone"));
    }
}
