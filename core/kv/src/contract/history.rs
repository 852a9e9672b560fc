//! Any interleaving of transactions is explained by the order of their commits.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;

use super::write;
use crate::{Kv, KvError, KvPair, RangeRead, Txn};

/// One step of one of several transactions that run at the same time.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which transaction; it begins at its first step and anew after its commit.
    pub txn: u8,
    /// What it does.
    pub action: Action,
}

/// What a transaction does. Keys are small numbers, so that transactions meet.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "they are the operations of a transaction")]
pub enum Action {
    Get {
        key: u8,
        snapshot: bool,
    },
    Range {
        start: u8,
        end: u8,
        limit: usize,
        reverse: bool,
        snapshot: bool,
    },
    Set {
        key: u8,
        value: Vec<u8>,
    },
    Clear {
        key: u8,
    },
    ClearRange {
        start: u8,
        end: u8,
    },
    Add {
        key: u8,
        delta: u64,
    },
    Max {
        key: u8,
        value: u64,
    },
    Commit,
}

type State = BTreeMap<u8, Vec<u8>>;

/// What a read has shown: pairs in the order of reading, and whether there is more.
type Shown = (Vec<(u8, Vec<u8>)>, bool);

struct Running {
    txn: Txn,
    /// The model's state when the transaction began, with its own writes.
    view: State,
    actions: Vec<Action>,
    shown: Vec<Shown>,
    /// How many commits there had been when it began.
    began: usize,
}

/// Runs `steps` against the store and against a model; `prefix` is of this run alone.
///
/// # Panics
/// When a read shows what the transaction's snapshot and own writes do not; when a transaction commits whose reads would have
/// shown something else in the order of commits; when one that has read nothing, or with no commit since it began, conflicts;
/// when the store holds something else in the end.
pub async fn is_serializable(kv: &Kv, prefix: &[u8], steps: &[Step]) {
    let store = Store { prefix };
    let mut committed = State::new();
    let mut commits = 0;
    let mut running: BTreeMap<u8, Running> = BTreeMap::new();
    for step in steps {
        let current = match running.entry(step.txn) {
            Entry::Occupied(current) => current.into_mut(),
            Entry::Vacant(place) => place.insert(Running {
                txn: kv.begin().await.unwrap(),
                view: committed.clone(),
                actions: Vec::new(),
                shown: Vec::new(),
                began: commits,
            }),
        };
        if let Action::Commit = step.action {
            let ended = running.remove(&step.txn).unwrap();
            if settle(kv, &ended, &mut committed, commits).await {
                commits += 1;
            }
            continue;
        }
        let expected = apply(&mut current.view, &step.action);
        let shown = store.run(&current.txn, &step.action).await;
        assert_eq!(
            shown, expected,
            "{step:?} shows what is not in the snapshot with the transaction's own writes"
        );
        current.actions.push(step.action.clone());
        current.shown.extend(shown);
    }
    drop(running);
    let all = Action::Range {
        start: 0,
        end: u8::MAX,
        limit: usize::MAX,
        reverse: false,
        snapshot: true,
    };
    let left = store.run(&kv.begin().await.unwrap(), &all).await;
    assert_eq!(
        left,
        apply(&mut committed, &all),
        "the store holds something else in the end"
    );
    write(kv, |txn| txn.clear_range(store.key(0), store.key(u8::MAX)))
        .await
        .unwrap();
}

/// Commits; returns whether something was written.
async fn settle(kv: &Kv, ended: &Running, committed: &mut State, commits: usize) -> bool {
    match kv.commit(&ended.txn).await {
        Ok(()) => {}
        Err(KvError::Conflict) => {
            assert!(
                commits > ended.began,
                "nobody has committed since it began: {:?}",
                ended.actions
            );
            assert!(
                ended.actions.iter().any(is_serializable_read),
                "it has read nothing: {:?}",
                ended.actions
            );
            return false;
        }
        Err(other) => panic!("answered {other:?}"),
    }
    if !ended.actions.iter().any(is_write) {
        return false;
    }
    let mut shown = ended.shown.iter();
    for action in &ended.actions {
        let Some(now) = apply(committed, action) else { continue };
        let then = shown.next().unwrap();
        if is_serializable_read(action) {
            assert_eq!(
                *then, now,
                "committed although {action:?} would show something else: {:?}",
                ended.actions
            );
        }
    }
    true
}

fn is_serializable_read(action: &Action) -> bool {
    matches!(
        action,
        Action::Get { snapshot: false, .. } | Action::Range { snapshot: false, .. }
    )
}

fn is_write(action: &Action) -> bool {
    match action {
        Action::Get { .. } | Action::Range { .. } | Action::Commit => false,
        Action::ClearRange { start, end } => start < end,
        Action::Set { .. } | Action::Clear { .. } | Action::Add { .. } | Action::Max { .. } => true,
    }
}

/// The model: applies one action, returns what a read shows.
fn apply(state: &mut State, action: &Action) -> Option<Shown> {
    match action {
        Action::Get { key, .. } => {
            let found = state.get(key).map(|value| (*key, value.clone()));
            return Some((found.into_iter().collect(), false));
        }
        Action::Range {
            start,
            end,
            limit,
            reverse,
            ..
        } => {
            let inside = state.iter().filter(|(key, _)| (*start..*end).contains(*key));
            let mut pairs: Vec<_> = inside.map(|(key, value)| (*key, value.clone())).collect();
            if *reverse {
                pairs.reverse();
            }
            let more = pairs.len() > *limit;
            pairs.truncate(*limit);
            return Some((pairs, more));
        }
        Action::Set { key, value } => {
            state.insert(*key, value.clone());
        }
        Action::Clear { key } => {
            state.remove(key);
        }
        Action::ClearRange { start, end } => state.retain(|key, _| !(*start..*end).contains(key)),
        Action::Add { key, delta } => change_number(state, *key, |number| number.wrapping_add(*delta)),
        Action::Max { key, value } => change_number(state, *key, |number| number.max(*value)),
        Action::Commit => {}
    }
    None
}

fn change_number(state: &mut State, key: u8, change: impl Fn(u64) -> u64) {
    let mut bytes = state.get(&key).cloned().unwrap_or_default();
    bytes.resize(8, 0);
    state.insert(key, change(super::number(&bytes)).to_le_bytes().to_vec());
}

/// The model's keys in the real store.
struct Store<'a> {
    prefix: &'a [u8],
}

impl Store<'_> {
    fn key(&self, key: u8) -> Bytes {
        [self.prefix, &[key]].concat().into()
    }

    fn range(&self, start: u8, end: u8, limit: usize, reverse: bool) -> RangeRead {
        RangeRead {
            start: self.key(start),
            end: self.key(end),
            limit,
            reverse,
        }
    }

    async fn run(&self, txn: &Txn, action: &Action) -> Option<Shown> {
        let shown = |pairs: Vec<KvPair>, more| {
            let pair = |pair: KvPair| (pair.key[self.prefix.len()], pair.value.to_vec());
            (pairs.into_iter().map(pair).collect(), more)
        };
        match action {
            Action::Get { key, snapshot } => {
                let key = self.key(*key);
                let value = if *snapshot {
                    txn.snapshot_get(&key).await
                } else {
                    txn.get(&key).await
                };
                let found = value.unwrap().map(|value| KvPair { key, value });
                return Some(shown(found.into_iter().collect(), false));
            }
            Action::Range {
                start,
                end,
                limit,
                reverse,
                snapshot,
            } => {
                let range = self.range(*start, *end, *limit, *reverse);
                let page = if *snapshot {
                    txn.snapshot_range(range).await
                } else {
                    txn.range(range).await
                };
                let page = page.unwrap();
                return Some(shown(page.pairs, page.more));
            }
            Action::Set { key, value } => txn.set(self.key(*key), value.clone()),
            Action::Clear { key } => txn.clear(self.key(*key)),
            Action::ClearRange { start, end } => txn.clear_range(self.key(*start), self.key(*end)),
            Action::Add { key, delta } => txn.add(self.key(*key), *delta),
            Action::Max { key, value } => txn.max(self.key(*key), *value),
            Action::Commit => {}
        }
        None
    }
}
