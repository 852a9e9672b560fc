use std::{collections::HashMap, sync::Arc};

use antiphon_kv::{
    KvError, KvPair, Page, RangeRead,
    engine::{Atomic, Mutation, PAGE_BYTES_MAX, Reads, Snapshot, WriteSet},
};
use bytes::Bytes;
use foundationdb::{
    FdbResult, KeySelector, RangeOption, Transaction,
    options::{ConflictRangeType, MutationType, StreamingMode},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    engine::Shared,
    errors::{failed, of_commit},
    prefix::Prefix,
};

/// The cluster at one version.
pub(crate) struct FdbSnapshot {
    pub(crate) transaction: Transaction,
    pub(crate) version: i64,
    pub(crate) shared: Arc<Shared>,
    /// Keys that were read. At one version they hold one value.
    pub(crate) found: Mutex<HashMap<Bytes, Arc<OnceCell<Option<Bytes>>>>>,
}

impl Snapshot for FdbSnapshot {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>> {
        let found = {
            let mut found = self.found.lock();
            match found.get(key) {
                Some(value) => value.clone(),
                None => found.entry(Bytes::copy_from_slice(key)).or_default().clone(),
            }
        };
        async move {
            let value = found.get_or_try_init(|| self.read(key)).await?;
            Ok(value.clone())
        }
        .boxed()
    }

    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>> {
        async move { self.page(&range).await }.boxed()
    }

    fn commit(&self, reads: Reads, writes: WriteSet) -> BoxFuture<'_, Result<(), KvError>> {
        async move { self.commit(&reads, &writes).await }.boxed()
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl FdbSnapshot {
    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let key = self.shared.prefix.outer(key);
        let value = self.shared.step(self.transaction.get(&key, true)).await?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    async fn page(&self, range: &RangeRead) -> Result<Page, KvError> {
        let prefix = &self.shared.prefix;
        let (start, end) = prefix.outer_range(range);
        let option = RangeOption {
            begin: KeySelector::first_greater_or_equal(start),
            end: KeySelector::first_greater_or_equal(end),
            limit: Some(range.limit),
            target_bytes: PAGE_BYTES_MAX,
            mode: StreamingMode::Exact,
            reverse: range.reverse,
            ..RangeOption::default()
        };
        let found = self.shared.step(self.transaction.get_range(&option, 1, true)).await?;
        let pairs: Vec<KvPair> = found
            .iter()
            .map(|pair| KvPair {
                key: prefix.inner(pair.key()),
                value: Bytes::copy_from_slice(pair.value()),
            })
            .collect();
        // The client says so of what is cut exactly at its end, too.
        let more = found.more() && !pairs.is_empty();
        Ok(Page { pairs, more })
    }

    /// Commits in a transaction of its own at the same version: the one that reads may be in use.
    async fn commit(&self, reads: &Reads, writes: &WriteSet) -> Result<(), KvError> {
        let _running = self.shared.enter()?;
        let transaction = self.shared.transaction()?;
        transaction.set_read_version(self.version);
        note(&transaction, &self.shared.prefix, reads).map_err(failed)?;
        write(&transaction, &self.shared.prefix, writes);
        match timeout(self.shared.step_timeout, transaction.commit()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(of_commit(*error, writes.bytes())),
            // It may be on its way still.
            Err(_) => Err(KvError::CommitUnknown),
        }
    }
}

/// Says what must not have changed.
fn note(transaction: &Transaction, prefix: &Prefix, reads: &Reads) -> FdbResult<()> {
    for key in reads.keys() {
        transaction.add_conflict_range(&prefix.outer(key), &prefix.outer_after(key), ConflictRangeType::Read)?;
    }
    for (start, end) in reads.ranges() {
        transaction.add_conflict_range(&prefix.outer(start), &prefix.outer(end), ConflictRangeType::Read)?;
    }
    Ok(())
}

fn write(transaction: &Transaction, prefix: &Prefix, writes: &WriteSet) {
    for (start, end) in writes.cleared() {
        transaction.clear_range(&prefix.outer(start), &prefix.outer(end));
    }
    for (key, mutation) in writes.mutations() {
        let key = prefix.outer(key);
        match mutation {
            Mutation::Set(value) => transaction.set(&key, value),
            Mutation::Clear => transaction.clear(&key),
            Mutation::Atomics(atomics) => atomics.iter().for_each(|atomic| apply(transaction, &key, *atomic)),
        }
    }
}

fn apply(transaction: &Transaction, key: &[u8], atomic: Atomic) {
    let (operand, kind) = match atomic {
        Atomic::Add(delta) => (delta, MutationType::Add),
        Atomic::Max(floor) => (floor, MutationType::Max),
    };
    transaction.atomic_op(key, &operand.to_le_bytes(), kind);
}
