//! Moves what a region stores into another store: slot by slot, to be taken up again where it stopped, and compared at both ends.
//!
//! The region does not run meanwhile. Until everything is there the new store carries a mark, and no region starts on it.

use std::{num::NonZeroUsize, ops::Range};

use antiphon_kv::{Kv, KvError, Page, RangeRead};
use antiphon_slot::slot_range;
use antiphon_types::Slot;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What a store begins with while a copy into it has not ended. The tuple of one byte string: it comes before every key of a slot.
pub(crate) const MARK: &[u8] = b"\x01copying\0";

/// Before all slots: the stamp, and whatever else is not a slot's.
const OUTSIDE: (&[u8], &[u8]) = (b"\x01", b"\x02");
/// Pairs of one transaction; a page ends earlier when its bytes are many.
const PAGE_LEN: usize = 1_000;
/// Slots that are under way at once: a store far away answers many as fast as one.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// What a copy has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Copied {
    /// Slots that are the same at both ends.
    pub(crate) slots: u64,
    /// Of these, slots that an earlier copy had brought over.
    pub(crate) slots_before: u64,
    /// Keys at both ends.
    pub(crate) keys: u64,
    /// Bytes of keys and values at both ends.
    pub(crate) bytes: u64,
}

/// Copies everything in `from` to `to`, which is empty or holds a part of it. `told` hears of each slot.
///
/// # Errors
/// When `to` holds something else, a store fails, or the ends differ.
pub(crate) async fn copy(from: &Kv, to: &Kv, mut told: impl FnMut(Copied)) -> Result<Copied> {
    begin(to).await?;
    let mut copied = Copied::default();
    let mut slots = stream::iter(Slot::all())
        .map(|slot| async move { (slot, copy_slot(from, to, slot).await) })
        .buffer_unordered(AT_ONCE.get());
    while let Some((slot, result)) = slots.next().await {
        let (sum, was_there) = result.with_context(|| format!("slot {}", slot.number()))?;
        copied.slots += 1;
        copied.slots_before += u64::from(was_there);
        copied.keys += sum.keys;
        copied.bytes += sum.bytes;
        told(copied);
    }
    let outside = pages_into(from, to, &outside(), true).await?;
    copied.keys += outside.keys;
    copied.bytes += outside.bytes;
    Ok(copied)
}

/// Marks `to` as being copied into.
async fn begin(to: &Kv) -> Result<()> {
    let is_other = to.transact(|txn| async move {
        let is_marked = txn.get(MARK).await?.is_some();
        let any = txn
            .range(range(Bytes::from_static(&[0])..Bytes::from_static(&[0xff]), 1))
            .await?;
        if any.pairs.is_empty() {
            txn.set(MARK, Bytes::new());
        }
        Ok::<_, KvError>(!is_marked && !any.pairs.is_empty())
    });
    if is_other.await.context("the new store")? {
        bail!("the new store is not empty, and no copy into it was begun: copy into another prefix, or empty it first");
    }
    Ok(())
}

/// Copies a slot unless both ends are the same already; says what it holds and whether it was there.
async fn copy_slot(from: &Kv, to: &Kv, slot: Slot) -> Result<(Sum, bool)> {
    let (start, end) = slot_range(slot);
    let keys = start..end;
    let here = sum(from, &keys).await.context("the old store")?;
    if here == sum(to, &keys).await.context("the new store")? {
        let was_there = here.keys > 0;
        return Ok((here, was_there));
    }
    let written = pages_into(from, to, &keys, false).await?;
    let there = sum(to, &keys).await.context("the new store")?;
    if written != there {
        bail!(
            "the ends differ after copying: {} keys of {} bytes in the old store, {} of {} in the new one",
            written.keys,
            written.bytes,
            there.keys,
            there.bytes
        );
    }
    Ok((there, false))
}

/// Replaces what `to` holds of `keys` by what `from` holds. `unmark`: in the transaction of the last page, takes the mark away.
async fn pages_into(from: &Kv, to: &Kv, keys: &Range<Bytes>, unmark: bool) -> Result<Sum> {
    let mut written = Sum::default();
    let mut start = keys.start.clone();
    loop {
        let page = page(from, start.clone()..keys.end.clone())
            .await
            .context("the old store")?;
        let next = page.next_start();
        // Up to where this page speaks for the old store: what the new one holds of that goes.
        let end = next.clone().unwrap_or_else(|| keys.end.clone());
        let replaced = to.transact(|txn| {
            let (page, span) = (&page, start.clone()..end.clone());
            let is_last = next.is_none();
            async move {
                txn.clear_range(span.start, span.end);
                for pair in &page.pairs {
                    txn.set(pair.key.clone(), pair.value.clone());
                }
                if unmark && is_last {
                    txn.clear(MARK);
                } else if unmark {
                    txn.set(MARK, Bytes::new());
                }
                Ok::<_, KvError>(())
            }
        });
        match replaced.await {
            Ok(()) => {}
            // Whether it happened or not, the same once more makes it so.
            Err(KvError::CommitUnknown) => continue,
            Err(error) => return Err(error).context("the new store"),
        }
        written.add(&page);
        match next {
            Some(next) => start = next,
            None => return Ok(written.ended()),
        }
    }
}

/// What a range holds, to be compared.
#[derive(Debug, Clone, Default)]
struct Sum {
    keys: u64,
    bytes: u64,
    hash: Sha256,
    digest: Option<[u8; 32]>,
}

impl Sum {
    fn add(&mut self, page: &Page) {
        for pair in &page.pairs {
            self.keys += 1;
            self.bytes += (pair.key.len() + pair.value.len()) as u64;
            for part in [&pair.key, &pair.value] {
                self.hash.update((part.len() as u64).to_le_bytes());
                self.hash.update(part);
            }
        }
    }

    fn ended(mut self) -> Self {
        self.digest = Some(self.hash.clone().finalize().into());
        self
    }
}

impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        (self.keys, self.bytes, self.digest) == (other.keys, other.bytes, other.digest)
    }
}

async fn sum(kv: &Kv, keys: &Range<Bytes>) -> Result<Sum, KvError> {
    let mut sum = Sum::default();
    let mut start = keys.start.clone();
    loop {
        let page = page(kv, start.clone()..keys.end.clone()).await?;
        sum.add(&page);
        match page.next_start() {
            Some(next) => start = next,
            None => return Ok(sum.ended()),
        }
    }
}

async fn page(kv: &Kv, keys: Range<Bytes>) -> Result<Page, KvError> {
    let wanted = &range(keys, PAGE_LEN);
    kv.transact(|txn| async move { txn.snapshot_range(wanted.clone()).await })
        .await
}

fn range(keys: Range<Bytes>, limit: usize) -> RangeRead {
    RangeRead {
        start: keys.start,
        end: keys.end,
        limit,
        reverse: false,
    }
}

fn outside() -> Range<Bytes> {
    Bytes::from_static(OUTSIDE.0)..Bytes::from_static(OUTSIDE.1)
}

#[cfg(test)]
mod tests {
    use antiphon_kv::{CommitFault, EmbeddedOptions, Faults};

    use super::*;

    struct Store {
        _folder: tempfile::TempDir,
        kv: Kv,
    }

    async fn store() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().join("store"),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        Store { _folder: folder, kv }
    }

    fn key(slot: u16, number: u16) -> Vec<u8> {
        let (start, _) = slot_range(Slot::new(slot).unwrap());
        [start.as_ref(), b"\x15", &number.to_be_bytes()].concat()
    }

    async fn put(kv: &Kv, pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) {
        let pairs: Vec<_> = pairs.into_iter().collect();
        for some in pairs.chunks(100) {
            kv.transact(|txn| async move {
                for (key, value) in some {
                    txn.set(key.clone(), value.clone());
                }
                Ok::<_, KvError>(())
            })
            .await
            .unwrap();
        }
    }

    async fn filled() -> Store {
        let store = store().await;
        // More than a page in one slot, a little in another, and the stamp.
        let many = (0..2_500_u16).map(|number| (key(7, number), vec![number.to_be_bytes()[1]; 100]));
        let few = [(key(0, 1), b"first".to_vec()), (key(4_095, 1), b"last".to_vec())];
        let stamp = [(b"\x01stamp\0".to_vec(), b"12345678".to_vec())];
        put(&store.kv, many.chain(few).chain(stamp)).await;
        store
    }

    async fn all(kv: &Kv) -> Sum {
        sum(kv, &(Bytes::from_static(&[0])..Bytes::from_static(&[0xff])))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_copy_is_the_same_key_by_key_and_has_no_mark_left() {
        let (from, to) = (filled().await, store().await);
        let mut told = Vec::new();
        let copied = copy(&from.kv, &to.kv, |copied| told.push(copied.slots)).await.unwrap();
        assert_eq!((copied.slots, copied.slots_before, copied.keys), (4_096, 0, 2_503));
        assert_eq!(told.len(), 4_096);
        assert!(told.is_sorted());
        assert_eq!(all(&from.kv).await, all(&to.kv).await);
    }

    #[tokio::test]
    async fn a_copy_that_stopped_is_taken_up_again_and_what_has_changed_is_brought_up_to_date() {
        let (from, to) = (filled().await, store().await);
        begin(&to.kv).await.unwrap();
        copy_slot(&from.kv, &to.kv, Slot::new(7).unwrap()).await.unwrap();
        copy_slot(&from.kv, &to.kv, Slot::new(0).unwrap()).await.unwrap();
        // The region has run in between.
        put(&from.kv, [(key(7, 3), b"changed".to_vec())]).await;
        let copied = copy(&from.kv, &to.kv, |_| {}).await.unwrap();
        assert_eq!((copied.slots_before, copied.keys), (1, 2_503));
        assert_eq!(all(&from.kv).await, all(&to.kv).await);
    }

    #[tokio::test]
    async fn a_store_that_holds_something_else_is_left_alone() {
        let (from, to) = (filled().await, store().await);
        put(&to.kv, [(key(9, 1), b"of another region".to_vec())]).await;
        let before = all(&to.kv).await;
        let error = copy(&from.kv, &to.kv, |_| {}).await.unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        assert_eq!(all(&to.kv).await, before);
    }

    #[tokio::test]
    async fn a_commit_of_unknown_result_is_made_again() {
        let (from, to) = (filled().await, store().await);
        let faults = Faults::default();
        let faulty = to.kv.clone().with_faults(faults.clone());
        begin(&to.kv).await.unwrap();
        faults.add(CommitFault::After(KvError::CommitUnknown));
        faults.add(CommitFault::Before(KvError::CommitUnknown));
        copy(&from.kv, &faulty, |_| {}).await.unwrap();
        assert_eq!(all(&from.kv).await, all(&to.kv).await);
    }

    #[tokio::test]
    async fn a_store_in_which_a_copy_has_not_ended_is_marked() {
        let (from, to) = (filled().await, store().await);
        begin(&to.kv).await.unwrap();
        copy_slot(&from.kv, &to.kv, Slot::new(7).unwrap()).await.unwrap();
        let found = to.kv.transact(|txn| async move { txn.get(MARK).await }).await.unwrap();
        assert!(found.is_some());
    }
}
