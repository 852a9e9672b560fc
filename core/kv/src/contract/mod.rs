//! The suite that every engine passes. Each rule is one function that panics when it is broken; it keeps to keys of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a rule that is broken panics")]

pub mod atomics;
pub mod history;
pub mod isolation;
pub mod lifecycle;
pub mod limits;
pub mod ranges;
pub mod retries;
pub mod watches;

use std::future::Future;

use bytes::Bytes;

use crate::{Kv, KvError, RangeRead, Txn};

/// Runs every rule. `open` opens the same store each time; before it opens again the suite closes what it had.
///
/// # Panics
/// When a rule is broken.
pub async fn run_all<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Kv>,
{
    let kv = open().await;
    isolation::run_all(&kv).await;
    ranges::run_all(&kv).await;
    atomics::run_all(&kv).await;
    limits::run_all(&kv).await;
    retries::run_all(&kv).await;
    watches::run_all(&kv).await;
    kv.close().await.unwrap();
    lifecycle::run_all(open).await;
}

/// The keys of one rule.
#[derive(Debug, Clone, Copy)]
struct Space(&'static str);

impl Space {
    /// An empty space.
    async fn new(kv: &Kv, rule: &'static str) -> Self {
        let space = Self(rule);
        let RangeRead { start, end, .. } = space.all();
        write(kv, |txn| txn.clear_range(start.clone(), end.clone()))
            .await
            .unwrap();
        space
    }

    fn key(self, name: &str) -> Bytes {
        format!("contract/{}/{name}", self.0).into()
    }

    fn all(self) -> RangeRead {
        self.range("", "~")
    }

    fn range(self, start: &str, end: &str) -> RangeRead {
        RangeRead {
            start: self.key(start),
            end: self.key(end),
            limit: usize::MAX,
            reverse: false,
        }
    }
}

/// Commits what `body` writes.
async fn write(kv: &Kv, body: impl Fn(&Txn) + Send + Sync) -> Result<(), KvError> {
    let txn = kv.begin().await?;
    body(&txn);
    kv.commit(&txn).await
}

async fn read(kv: &Kv, key: &Bytes) -> Option<Bytes> {
    kv.begin().await.unwrap().get(key).await.unwrap()
}

async fn read_number(kv: &Kv, key: &Bytes) -> u64 {
    read(kv, key).await.map_or(0, |value| number(&value))
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("eight bytes"))
}

/// The last part of each key, and the values.
fn names(pairs: &[crate::KvPair]) -> Vec<String> {
    let name = |key: &Bytes| {
        String::from_utf8_lossy(key)
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    pairs
        .iter()
        .map(|pair| format!("{}={}", name(&pair.key), String::from_utf8_lossy(&pair.value)))
        .collect()
}

macro_rules! assert_conflict {
    ($result:expr, $why:literal) => {
        let result = $result;
        assert!(matches!(result, Err($crate::KvError::Conflict)), "{}: {result:?}", $why);
    };
}
use assert_conflict;
