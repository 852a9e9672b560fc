//! `transact` runs again what may succeed, within bounds, and nothing else.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Space, read, read_number, write};
use crate::{CommitFault, Faults, Kv, KvError, Limits};

/// Runs the rules of this module.
pub async fn run_all(kv: &Kv) {
    a_conflict_is_tried_again(kv).await;
    a_wrapped_failure_of_the_store_is_tried_again(kv).await;
    a_failure_of_the_body_is_not_tried_again(kv).await;
    retries_are_bounded(kv).await;
    an_unknown_commit_is_told_and_not_tried_again(kv).await;
    what_writes_nothing_commits_nothing(kv).await;
}

/// A body's own error, as services have them.
#[derive(Debug)]
enum Failure {
    Own,
    /// Hides what the store has said.
    Wrapped,
    #[allow(dead_code, reason = "shown when a rule is broken")]
    Store(KvError),
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        Self::Store(error)
    }
}

/// The body runs again on a new snapshot.
pub async fn a_conflict_is_tried_again(kv: &Kv) {
    let key = Space::new(kv, "conflict_retry").await.key("n");
    let runs = AtomicU32::new(0);
    let seen: u64 = kv
        .transact::<_, KvError, _, _>(|txn| async {
            let txn = txn;
            let seen = txn.get(&key).await?.map_or(0, |value| super::number(&value));
            if runs.fetch_add(1, Ordering::SeqCst) < 3 {
                write(kv, |txn| txn.add(key.clone(), 1)).await?;
            }
            txn.add(key.clone(), 10);
            Ok(seen)
        })
        .await
        .unwrap();
    assert_eq!((seen, runs.load(Ordering::SeqCst)), (3, 4));
    assert_eq!(read_number(kv, &key).await, 13);
}

/// The store's failure counts, not what the body made of it.
pub async fn a_wrapped_failure_of_the_store_is_tried_again(kv: &Kv) {
    let key = Space::new(kv, "wrapped_retry").await.key("n");
    let short = kv.clone().with_limits(Limits {
        transaction_age_ms_max: 200,
        ..kv.limits()
    });
    let runs = AtomicU32::new(0);
    let done: Result<(), Failure> = short
        .transact(|txn| async {
            let txn = txn;
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            }
            txn.get(&key).await.map_err(|_| Failure::Wrapped)?;
            Ok(())
        })
        .await;
    done.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// A rejection is an answer.
pub async fn a_failure_of_the_body_is_not_tried_again(kv: &Kv) {
    let key = Space::new(kv, "rejection").await.key("n");
    let runs = AtomicU32::new(0);
    let rejected: Result<(), Failure> = kv
        .transact(|txn| async {
            let txn = txn;
            runs.fetch_add(1, Ordering::SeqCst);
            txn.get(&key).await?;
            txn.set(key.clone(), "never");
            Err(Failure::Own)
        })
        .await;
    assert!(matches!(rejected, Err(Failure::Own)), "{rejected:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(read(kv, &key).await, None);
}

/// Whoever always loses is told so.
pub async fn retries_are_bounded(kv: &Kv) {
    let key = Space::new(kv, "bounded").await.key("n");
    let runs = AtomicU32::new(0);
    let exhausted: Result<(), KvError> = kv
        .transact(|txn| async {
            let txn = txn;
            runs.fetch_add(1, Ordering::SeqCst);
            txn.get(&key).await?;
            write(kv, |txn| txn.add(key.clone(), 1)).await?;
            txn.set(key.clone(), "never");
            Ok(())
        })
        .await;
    let Err(KvError::RetriesExhausted { attempts, last }) = exhausted else {
        panic!("answered {exhausted:?}");
    };
    assert!(matches!(*last, KvError::Conflict), "{last:?}");
    assert_eq!(attempts, runs.load(Ordering::SeqCst));
    assert!((2..=64).contains(&attempts), "{attempts} attempts");
}

/// The caller has to look, whether it has happened or not.
pub async fn an_unknown_commit_is_told_and_not_tried_again(kv: &Kv) {
    let space = Space::new(kv, "unknown").await;
    let faults = Faults::default();
    let faulty = kv.clone().with_faults(faults.clone());
    let cases = [
        ("happened", CommitFault::After(KvError::CommitUnknown), 1),
        ("did_not", CommitFault::Before(KvError::CommitUnknown), 0),
    ];
    for (name, fault, expected) in cases {
        let runs = AtomicU32::new(0);
        faults.add(fault);
        let unknown: Result<(), KvError> = faulty
            .transact(|txn| async {
                let txn = txn;
                runs.fetch_add(1, Ordering::SeqCst);
                txn.add(space.key(name), 1);
                Ok(())
            })
            .await;
        assert!(matches!(unknown, Err(KvError::CommitUnknown)), "{name}: {unknown:?}");
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{name}");
        assert_eq!(read_number(kv, &space.key(name)).await, expected, "{name}");
    }
}

/// A reader is never refused for what others write.
pub async fn what_writes_nothing_commits_nothing(kv: &Kv) {
    let space = Space::new(kv, "read_only").await;
    let faults = Faults::default();
    faults.add(CommitFault::Before(KvError::CommitUnknown));
    let faulty = kv.clone().with_faults(faults);
    let read: Result<(), KvError> = faulty
        .transact(|txn| async {
            let txn = txn;
            txn.range(space.all()).await?;
            write(kv, |txn| txn.add(space.key("n"), 1)).await
        })
        .await;
    read.unwrap();
    assert_eq!(read_number(kv, &space.key("n")).await, 1, "the body ran once");
}
