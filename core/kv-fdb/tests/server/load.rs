//! Writers whose every acknowledgement is checked.

use std::sync::Arc;

use antiphon_kv::{Kv, KvError};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 8;
const SUM: &[u8] = b"load/sum";
const PATIENCE: Duration = Duration::from_secs(60);

/// Writers at work.
pub(crate) struct Load {
    kv: Kv,
    stop: CancellationToken,
    writers: JoinSet<u64>,
    progress: Arc<std::sync::atomic::AtomicU64>,
}

impl Load {
    pub(crate) fn start(kv: &Kv) -> Self {
        let (stop, progress) = (CancellationToken::new(), Arc::default());
        let mut load = Self {
            kv: kv.clone(),
            stop,
            writers: JoinSet::new(),
            progress,
        };
        for writer in 0..WRITERS {
            let (kv, stop, progress) = (kv.clone(), load.stop.clone(), load.progress.clone());
            load.writers.spawn(async move {
                let mut acknowledged = 0;
                // A result that is unknown is settled before the end.
                let mut is_settled = true;
                while !stop.is_cancelled() || !is_settled {
                    match write(&kv, writer, acknowledged + 1).await {
                        Ok(()) => {
                            acknowledged += 1;
                            progress.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            is_settled = true;
                        }
                        Err(KvError::CommitUnknown) => is_settled = false,
                        Err(KvError::RetriesExhausted { .. } | KvError::Unavailable(_)) => {}
                        Err(error) => panic!("writer {writer} was answered {error:?}"),
                    }
                }
                acknowledged
            });
        }
        load
    }

    /// Waits until so many more writes are acknowledged.
    pub(crate) async fn goes_on(&self, writes: u64) {
        let acknowledged = || self.progress.load(std::sync::atomic::Ordering::SeqCst);
        let (goal, deadline) = (acknowledged() + writes, Instant::now() + PATIENCE);
        while acknowledged() < goal {
            assert!(Instant::now() < deadline, "nothing is acknowledged any more");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the writers; panics unless the store holds what they were told, once.
    pub(crate) async fn check(mut self) -> u64 {
        self.stop.cancel();
        let mut acknowledged = 0;
        while let Some(ended) = self.writers.join_next().await {
            acknowledged += ended.unwrap();
        }
        let sum: Result<u64, KvError> = self.kv.transact(|txn| async move { number(txn.get(SUM).await?) }).await;
        assert_eq!(sum.unwrap(), acknowledged, "what was acknowledged is not what is there");
        acknowledged
    }
}

/// Writes what comes after `number - 1`, once, however often it is asked to.
async fn write(kv: &Kv, writer: usize, to_write: u64) -> Result<(), KvError> {
    let key = &format!("load/{writer}");
    kv.transact(|txn| async move {
        let stored = number(txn.get(key.as_bytes()).await?)?;
        if stored == to_write {
            return Ok(());
        }
        assert_eq!(stored + 1, to_write, "an acknowledged write of {key} is gone");
        txn.set(key.clone(), to_write.to_le_bytes().to_vec());
        txn.add(SUM, 1);
        Ok(())
    })
    .await
}

fn number(value: Option<impl AsRef<[u8]>>) -> Result<u64, KvError> {
    Ok(value.map_or(0, |value| {
        u64::from_le_bytes(value.as_ref().try_into().expect("eight bytes"))
    }))
}
