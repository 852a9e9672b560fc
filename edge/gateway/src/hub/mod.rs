//! The edge's end of the delivery tree: one upstream stream, fanned out to the sessions here.
//!
//! Each topic is subscribed once, however many sessions want it. What is right when things get lost is decided by
//! [`entry::Entry`]; here are the maps around it. Order of locks: shard, entry or person, session.

mod apply;
mod entry;
#[cfg(test)]
mod entry_tests;
mod fill;
mod frames;
mod handle;
mod interest;
mod people;
mod upstream;

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use antiphon_session::Refusal;
use antiphon_types::{Clock, ConversationId, Seq, UserId};
use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    entry::{Entry, FillRound},
    interest::Interests,
    people::People,
};
use crate::calls::Calls;

pub(crate) use apply::{kind_name, role_name};
pub(crate) use entry::GoLive;
pub(crate) use fill::backoff;
pub(crate) use frames::SharedFrame;
pub(crate) use handle::{Owner, SessionHandle, Start, Task};
pub(crate) use people::Admission;

/// Parts of what is looked up by id, each with a lock of its own.
pub(crate) const SHARDS: u8 = 64;
/// Fills that run at once.
const FILLS_AT_ONCE: usize = 128;
/// A topic that nobody wants is kept for one to two of these: most who leave come back at once.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

type EntryCell = Arc<Mutex<Entry<Arc<SessionHandle>>>>;

/// Fans the feed out to local sessions.
pub(crate) struct Hub {
    calls: Calls,
    clock: Clock,
    /// Messages of one conversation that are fetched for a fill; more are left to the devices.
    fill_push_max: u64,
    shards: Box<[Mutex<Shard>]>,
    people: People,
    interests: Interests,
    fills: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
    pushes: Counter,
    push_lag_seconds: Histogram,
}

#[derive(Default)]
struct Shard {
    entries: AHashMap<ConversationId, Followed>,
}

struct Followed {
    entry: EntryCell,
    /// Nobody was in it when it was last swept.
    deserted: bool,
}

impl Hub {
    /// Starts the hub's tasks on `tasks`; they end with `stop`.
    pub(crate) fn start(
        calls: Calls,
        clock: Clock,
        fill_push_max: u64,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let hub = Arc::new(Self {
            calls,
            clock,
            fill_push_max,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            people: People::default(),
            // Made once: to look them up would be a part of what a message costs.
            pushes: metrics::counter!("antiphon_push_total"),
            push_lag_seconds: metrics::histogram!("antiphon_push_lag_seconds"),
            interests: Interests::default(),
            fills: Semaphore::new(FILLS_AT_ONCE),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        tasks.spawn(upstream::run(hub.clone()));
        tasks.spawn(sweep(hub.clone()));
        hub
    }

    /// The users who are here.
    pub(crate) fn people(&self) -> &People {
        &self.people
    }

    /// Puts a session into a conversation; it gets nothing before [`Hub::go_live`]. False when it was in already.
    pub(crate) fn join(&self, handle: &Arc<SessionHandle>, user_id: UserId, id: ConversationId, version: u64) -> bool {
        let mut shard = self.shard(id).lock();
        if handle.follows(|follows| follows.ended || !follows.conversations.insert(id)) {
            return false;
        }
        let followed = shard.entries.entry(id).or_insert_with(|| {
            self.interests.subscribe(id.into());
            Followed {
                entry: EntryCell::default(),
                deserted: false,
            }
        });
        followed.deserted = false;
        let mut entry = followed.entry.lock();
        if !entry.is_confirmed() {
            handle.expects_confirmation();
        }
        entry.join(handle.clone(), handle.key, user_id, version)
    }

    /// Takes a session out of a conversation.
    pub(crate) fn leave(&self, handle: &SessionHandle, id: ConversationId) {
        // Both behind one lock, as in `join`: who joins again in between would follow it and not be in it.
        let shard = self.shard(id).lock();
        handle.follows(|follows| follows.conversations.remove(&id));
        if let Some(followed) = shard.entries.get(&id) {
            followed.entry.lock().leave(handle.key);
        }
    }

    /// The epoch that a check belongs to that begins now; `None` while the feed does not follow the conversation.
    pub(crate) fn epoch(&self, id: ConversationId) -> Option<u64> {
        self.entry(id)?.lock().epoch()
    }

    /// Makes a session live that has everything up to `after`, by a check that began in `epoch`.
    pub(crate) fn go_live(&self, handle: &SessionHandle, id: ConversationId, after: Seq, epoch: u64) -> GoLive {
        match self.entry(id) {
            Some(entry) => entry.lock().go_live(handle.key, after, epoch),
            None => GoLive::Gone,
        }
    }

    /// Takes a session out of everything.
    pub(crate) fn end(&self, handle: &Arc<SessionHandle>) {
        let (conversations, watched) = handle.follows(|follows| {
            follows.ended = true;
            follows.tasks.clear();
            (
                std::mem::take(&mut follows.conversations),
                std::mem::take(&mut follows.watched),
            )
        });
        for id in &conversations {
            if let Some(entry) = self.entry(*id) {
                entry.lock().leave(handle.key);
            }
        }
        self.people.end(handle, &watched);
    }

    /// Lets a session see the presence of users from now on.
    ///
    /// # Errors
    /// When it would watch too many.
    pub(crate) fn watch(&self, handle: &Arc<SessionHandle>, user_ids: &[UserId]) -> Result<(), Refusal> {
        for user_id in handle.follows(|follows| follows.watch(user_ids))? {
            self.people.watch(handle, user_id, &self.interests);
        }
        Ok(())
    }

    /// Makes a session of a user known, so that the user's topic reaches it. See [`People::admit`].
    pub(crate) fn admit(
        &self,
        handle: &Arc<SessionHandle>,
        user_id: UserId,
        sessions_max: usize,
        replaces: impl Fn(&Owner) -> bool,
    ) -> Admission {
        self.people
            .admit(handle, user_id, sessions_max, replaces, &self.interests)
    }

    fn shard(&self, id: ConversationId) -> &Mutex<Shard> {
        let [.., last] = id.as_bytes();
        &self.shards[usize::from(*last % SHARDS)]
    }

    fn entry(&self, id: ConversationId) -> Option<EntryCell> {
        self.shard(id)
            .lock()
            .entries
            .get(&id)
            .map(|followed| followed.entry.clone())
    }

    /// Marks every topic as no longer followed, and wants all of them again.
    fn lose_upstream(&self) {
        // Before, so that whoever comes in between is not forgotten.
        self.interests.forget();
        self.people.lose_upstream(&self.interests);
        for shard in &self.shards {
            for (id, followed) in &shard.lock().entries {
                followed.entry.lock().lost();
                self.interests.subscribe((*id).into());
            }
        }
    }

    /// Unsubscribes what nobody has wanted since the last time.
    fn sweep(&self) {
        for shard in &self.shards {
            shard.lock().entries.retain(|id, followed| {
                let empty = followed.entry.lock().is_empty();
                let keep = !(empty && followed.deserted);
                followed.deserted = empty;
                if !keep {
                    self.interests.unsubscribe((*id).into());
                }
                keep
            });
        }
        self.people.sweep(&self.interests);
    }
}

async fn sweep(hub: Arc<Hub>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while hub.stop.run_until_cancelled(interval.tick()).await.is_some() {
        hub.sweep();
    }
}
