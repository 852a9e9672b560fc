//! The store of a simulated region: in memory, serializable, with commits that take time. What was committed outlives a crash; a commit
//! that a crash interrupts has happened or not, as the seed says.

pub(crate) mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    ops::Bound::{Excluded, Included},
    sync::Arc,
    time::Duration,
};

use antiphon_kv::{
    KvError, KvPair, Page, RangeRead, Watch,
    engine::{Engine, Mutation, Reads, Snapshot, WriteSet, fold},
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::sync::{Notify, oneshot, watch};

/// Watches that may wait at once.
const WATCHES_MAX: usize = 100;
/// Tombstones that nobody can conflict with any more go after this many commits.
const SWEEP_EVERY: u64 = 256;

/// How the store treats commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temper {
    /// The longest that a group of commits takes, in microseconds.
    pub(crate) commit_us_max: u64,
    /// Of a thousand commits, how many end with an unknown result.
    pub(crate) unknown_permille: u32,
}

/// What is on the disk.
pub(crate) struct Disk {
    state: Mutex<State>,
}

struct State {
    version: u64,
    /// Per key the values that a snapshot may still see, oldest first.
    cells: BTreeMap<Bytes, Vec<(u64, Option<Bytes>)>>,
    snapshots: BTreeMap<u64, usize>,
    random: SmallRng,
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                version: 0,
                cells: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                random: SmallRng::seed_from_u64(seed),
            }),
        })
    }

    /// What is committed from `start`, inclusive, to `end`, exclusive.
    pub(crate) fn pairs(&self, start: &[u8], end: &[u8]) -> Vec<(Bytes, Bytes)> {
        let state = self.state.lock();
        let range = state.cells.range::<[u8], _>((Included(start), Excluded(end)));
        range
            .filter_map(|(key, cells)| Some((key.clone(), cells.last()?.1.clone()?)))
            .collect()
    }
}

impl State {
    fn at(cells: &[(u64, Option<Bytes>)], version: u64) -> Option<&Bytes> {
        let seen = cells.iter().rev().find(|(written, _)| *written <= version)?;
        seen.1.as_ref()
    }

    fn check(&self, read_version: u64, reads: &Reads) -> Result<(), KvError> {
        let newer =
            |cells: &Vec<(u64, Option<Bytes>)>| cells.last().is_some_and(|(written, _)| *written > read_version);
        let key_changed = |key: &Bytes| self.cells.get(key).is_some_and(newer);
        let range_changed = |(start, end): (&Bytes, &Bytes)| {
            start < end && self.cells.range::<Bytes, _>(start..end).any(|(_, cells)| newer(cells))
        };
        if reads.keys().any(key_changed) || reads.ranges().any(range_changed) {
            return Err(KvError::Conflict);
        }
        Ok(())
    }

    /// Returns the keys that were written.
    fn apply(&mut self, writes: &WriteSet) -> Vec<Bytes> {
        self.version += 1;
        let mut written = Vec::new();
        for (start, end) in writes.cleared() {
            let inside = self.cells.range::<Bytes, _>(start..end);
            let there = inside.filter(|(_, cells)| cells.last().is_some_and(|(_, value)| value.is_some()));
            let keys: Vec<Bytes> = there.map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.put(&key, None);
                written.push(key);
            }
        }
        for (key, mutation) in writes.mutations() {
            let value = match mutation {
                Mutation::Set(value) => Some(value.clone()),
                Mutation::Clear => None,
                Mutation::Atomics(atomics) => fold(atomics, self.latest(key)),
            };
            self.put(key, value);
            written.push(key.clone());
        }
        if self.version.is_multiple_of(SWEEP_EVERY) {
            let oldest = self.oldest();
            self.cells
                .retain(|_, cells| !matches!(&cells[..], [(written, None)] if *written <= oldest));
        }
        written
    }

    fn latest(&self, key: &Bytes) -> Option<Bytes> {
        self.cells.get(key)?.last()?.1.clone()
    }

    fn put(&mut self, key: &Bytes, value: Option<Bytes>) {
        let (version, oldest) = (self.version, self.oldest());
        let cells = self.cells.entry(key.clone()).or_default();
        if cells.last().is_some_and(|(written, _)| *written == version) {
            cells.pop();
        }
        cells.push((version, value));
        let needed = cells.iter().rposition(|(written, _)| *written <= oldest).unwrap_or(0);
        cells.drain(..needed);
    }

    /// The oldest version that anybody reads.
    fn oldest(&self) -> u64 {
        self.snapshots.keys().next().copied().unwrap_or(self.version)
    }
}

/// One opening of a disk.
pub(crate) struct Store {
    disk: Arc<Disk>,
    run: Arc<Mutex<Run>>,
    arrived: Arc<Notify>,
    ended: watch::Receiver<bool>,
}

#[derive(Default)]
struct Run {
    closed: bool,
    waiting: VecDeque<Commit>,
    /// The group that is being written.
    writing: VecDeque<Commit>,
    watches: BTreeMap<Bytes, Vec<oneshot::Sender<()>>>,
}

struct Commit {
    view: Arc<View>,
    reads: Reads,
    writes: WriteSet,
    answer: oneshot::Sender<Result<(), KvError>>,
}

impl Store {
    /// Opens the disk; its commits are made by a task of the runtime that this is called in.
    pub(crate) fn open(disk: &Arc<Disk>, temper: Temper) -> Arc<Self> {
        let (run, arrived) = (Arc::<Mutex<Run>>::default(), Arc::new(Notify::new()));
        let (end, ended) = watch::channel(false);
        tokio::spawn({
            let (disk, run, arrived) = (disk.clone(), run.clone(), arrived.clone());
            async move {
                write_groups(&disk, &run, &arrived, temper).await;
                end.send_replace(true);
            }
        });
        Arc::new(Self {
            disk: disk.clone(),
            run,
            arrived,
            ended,
        })
    }

    /// The region is gone: of the commits that were being written the first ones have happened, as many as the seed says.
    pub(crate) fn crash(&self) {
        let writing = {
            let mut run = self.run.lock();
            run.closed = true;
            run.waiting.clear();
            mem::take(&mut run.writing)
        };
        let mut state = self.disk.state.lock();
        let happened = state.random.random_range(0..=writing.len());
        for commit in writing.iter().take(happened) {
            if state.check(commit.view.version, &commit.reads).is_ok() {
                state.apply(&commit.writes);
            }
        }
        drop(state);
    }
}

/// Commits groups one after another until the store is closed.
async fn write_groups(disk: &Disk, run: &Mutex<Run>, arrived: &Notify, temper: Temper) {
    loop {
        let (busy, closed) = {
            let mut run = run.lock();
            let waiting = mem::take(&mut run.waiting);
            run.writing = waiting;
            (!run.writing.is_empty(), run.closed)
        };
        if !busy && closed {
            run.lock().watches.clear();
            return;
        }
        if !busy {
            arrived.notified().await;
            continue;
        }
        let takes_us = disk.state.lock().random.random_range(0..=temper.commit_us_max);
        tokio::time::sleep(Duration::from_micros(takes_us)).await;
        let group = mem::take(&mut run.lock().writing);
        for commit in group {
            let result = {
                let mut state = disk.state.lock();
                let checked = state.check(commit.view.version, &commit.reads);
                let unknown = state.random.random_range(0..1_000) < temper.unknown_permille;
                let lost = unknown && state.random.random_bool(0.5);
                checked.map(|()| {
                    let written = if lost { Vec::new() } else { state.apply(&commit.writes) };
                    (written, unknown)
                })
            };
            let answer = result.and_then(|(written, unknown)| {
                let mut run = run.lock();
                for key in written {
                    for watch in run.watches.remove(&key).unwrap_or_default() {
                        let _ = watch.send(());
                    }
                }
                if unknown { Err(KvError::CommitUnknown) } else { Ok(()) }
            });
            let _ = commit.answer.send(answer);
        }
    }
}

impl Engine for Store {
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, KvError>> {
        ready(self.snapshot()).boxed()
    }

    fn watch(&self, key: Bytes) -> BoxFuture<'_, Result<Watch, KvError>> {
        let mut run = self.run.lock();
        if run.closed {
            return ready(Err(KvError::Closed)).boxed();
        }
        run.watches.retain(|_, watches| {
            watches.retain(|watch| !watch.is_closed());
            !watches.is_empty()
        });
        if run.watches.values().map(Vec::len).sum::<usize>() >= WATCHES_MAX {
            return ready(Err(KvError::Unavailable("too many watches".to_owned()))).boxed();
        }
        let (fire, fired) = oneshot::channel();
        run.watches.entry(key).or_default().push(fire);
        ready(Ok(Watch::new(async move { fired.await.map_err(|_| KvError::Closed) }))).boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KvError>> {
        ready(if self.run.lock().closed {
            Err(KvError::Closed)
        } else {
            Ok(())
        })
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), KvError>> {
        self.run.lock().closed = true;
        self.arrived.notify_one();
        let mut ended = self.ended.clone();
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
            Ok(())
        }
        .boxed()
    }
}

impl Store {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        if self.run.lock().closed {
            return Err(KvError::Closed);
        }
        let mut state = self.disk.state.lock();
        let version = state.version;
        *state.snapshots.entry(version).or_default() += 1;
        let view = View {
            disk: self.disk.clone(),
            version,
        };
        Ok(Box::new(Open {
            view: Arc::new(view),
            run: self.run.clone(),
            arrived: self.arrived.clone(),
        }))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// A version that is being read.
struct View {
    disk: Arc<Disk>,
    version: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if let Some(readers) = state.snapshots.get_mut(&self.version) {
            *readers -= 1;
            if *readers == 0 {
                state.snapshots.remove(&self.version);
            }
        }
    }
}

struct Open {
    view: Arc<View>,
    run: Arc<Mutex<Run>>,
    arrived: Arc<Notify>,
}

impl Snapshot for Open {
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, KvError>> {
        let state = self.view.disk.state.lock();
        let cells = state.cells.get(key);
        let value = cells.and_then(|cells| State::at(cells, self.view.version)).cloned();
        ready(Ok(value)).boxed()
    }

    fn range(&self, range: RangeRead) -> BoxFuture<'_, Result<Page, KvError>> {
        let state = self.view.disk.state.lock();
        let inside = state.cells.range::<Bytes, _>(&range.start..&range.end);
        let visible = |(key, cells): (&Bytes, &Vec<(u64, Option<Bytes>)>)| {
            Some(KvPair {
                key: key.clone(),
                value: State::at(cells, self.view.version)?.clone(),
            })
        };
        let len = range.limit.saturating_add(1);
        let mut pairs: Vec<KvPair> = if range.reverse {
            inside.rev().filter_map(visible).take(len).collect()
        } else {
            inside.filter_map(visible).take(len).collect()
        };
        let more = pairs.len() > range.limit;
        pairs.truncate(range.limit);
        ready(Ok(Page { pairs, more })).boxed()
    }

    fn commit(&self, reads: Reads, writes: WriteSet) -> BoxFuture<'_, Result<(), KvError>> {
        let (answer, answered) = oneshot::channel();
        let commit = Commit {
            view: self.view.clone(),
            reads,
            writes,
            answer,
        };
        {
            let mut run = self.run.lock();
            if run.closed {
                return ready(Err(KvError::Closed)).boxed();
            }
            run.waiting.push_back(commit);
        }
        self.arrived.notify_one();
        async move { answered.await.unwrap_or(Err(KvError::CommitUnknown)) }.boxed()
    }
}
