//! The users who are here, and those who are watched from here.

use std::{collections::BTreeSet, sync::Arc};

use ahash::{AHashMap, RandomState};
use antiphon_types::UserId;
use parking_lot::Mutex;

use super::{Owner, SHARDS, SessionHandle, interest::Interests};

/// Users by id, each with the sessions that are theirs and those that watch them.
pub(crate) struct People {
    hasher: RandomState,
    shards: Box<[Mutex<AHashMap<UserId, Person>>]>,
}

#[derive(Default)]
struct Person {
    sessions: Vec<Arc<SessionHandle>>,
    watchers: Vec<Arc<SessionHandle>>,
    /// The feed follows the user's topic.
    confirmed: bool,
    /// Nobody was here when it was last swept.
    deserted: bool,
}

/// Whether a session may be.
pub(crate) enum Admission {
    /// Yes; these are to make room for it.
    Admitted { replaced: Vec<Arc<SessionHandle>> },
    /// The user has as many sessions as may be.
    TooMany { sessions: usize },
}

impl Default for People {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl People {
    /// Makes a session of a user known. `replaces` says of each other session whether it has to go.
    pub(super) fn admit(
        &self,
        handle: &Arc<SessionHandle>,
        user_id: UserId,
        sessions_max: usize,
        replaces: impl Fn(&Owner) -> bool,
        interests: &Interests,
    ) -> Admission {
        let mut shard = self.shard(user_id).lock();
        let person = shard.entry(user_id).or_insert_with(|| subscribed(user_id, interests));
        let goes = |session: &Arc<SessionHandle>| session.owner().is_some_and(&replaces);
        let stay = person.sessions.iter().filter(|session| !goes(session)).count();
        if stay >= sessions_max {
            return Admission::TooMany { sessions: stay };
        }
        let replaced = person.sessions.extract_if(.., |session| goes(session)).collect();
        if !person.confirmed {
            handle.expects_confirmation();
        }
        person.deserted = false;
        person.sessions.push(handle.clone());
        Admission::Admitted { replaced }
    }

    /// Lets a session see what the topic of a user says of presence.
    pub(super) fn watch(&self, handle: &Arc<SessionHandle>, user_id: UserId, interests: &Interests) {
        let mut shard = self.shard(user_id).lock();
        let person = shard.entry(user_id).or_insert_with(|| subscribed(user_id, interests));
        person.deserted = false;
        person.watchers.push(handle.clone());
    }

    /// Takes a session out, and with it what it watched.
    pub(super) fn end(&self, handle: &Arc<SessionHandle>, watched: &BTreeSet<UserId>) {
        let is_other = |other: &Arc<SessionHandle>| !Arc::ptr_eq(other, handle);
        for user_id in watched {
            if let Some(person) = self.shard(*user_id).lock().get_mut(user_id) {
                person.watchers.retain(is_other);
            }
        }
        if let Some(owner) = handle.owner()
            && let Some(person) = self.shard(owner.user_id).lock().get_mut(&owner.user_id)
        {
            person.sessions.retain(is_other);
        }
    }

    /// The sessions of a user.
    pub(crate) fn sessions(&self, user_id: UserId) -> Vec<Arc<SessionHandle>> {
        self.shard(user_id)
            .lock()
            .get(&user_id)
            .map(|person| person.sessions.clone())
            .unwrap_or_default()
    }

    /// The sessions that watch a user.
    pub(super) fn watchers(&self, user_id: UserId) -> Vec<Arc<SessionHandle>> {
        self.shard(user_id)
            .lock()
            .get(&user_id)
            .map(|person| person.watchers.clone())
            .unwrap_or_default()
    }

    /// Every session whose user is known.
    pub(crate) fn all(&self) -> Vec<Arc<SessionHandle>> {
        (0..SHARDS).flat_map(|shard| self.of_shard(shard)).collect()
    }

    /// As above, of the users of one shard.
    pub(crate) fn of_shard(&self, shard: u8) -> Vec<Arc<SessionHandle>> {
        let people = self.shards.get(usize::from(shard)).map(|shard| shard.lock());
        let people = people.iter().flat_map(|people| people.values());
        people.flat_map(|person| person.sessions.iter().cloned()).collect()
    }

    /// The feed follows the topic of a user now. True when it had done so before, and something may have been missed.
    pub(super) fn confirm(&self, user_id: UserId) -> bool {
        let mut shard = self.shard(user_id).lock();
        let Some(person) = shard.get_mut(&user_id) else {
            return false;
        };
        person.sessions.iter().for_each(|session| session.is_confirmed());
        std::mem::replace(&mut person.confirmed, true)
    }

    /// Subscribes the topics of all users anew. They stay confirmed, so that the next confirmation is known to be another one.
    pub(super) fn lose_upstream(&self, interests: &Interests) {
        for shard in &self.shards {
            shard
                .lock()
                .keys()
                .for_each(|user_id| interests.subscribe((*user_id).into()));
        }
    }

    pub(super) fn sweep(&self, interests: &Interests) {
        for shard in &self.shards {
            shard.lock().retain(|user_id, person| {
                let empty = person.sessions.is_empty() && person.watchers.is_empty();
                let keep = !(empty && person.deserted);
                person.deserted = empty;
                if !keep {
                    interests.unsubscribe((*user_id).into());
                }
                keep
            });
        }
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
    fn shard(&self, user_id: UserId) -> &Mutex<AHashMap<UserId, Person>> {
        &self.shards[self.hasher.hash_one(user_id) as usize % usize::from(SHARDS)]
    }
}

fn subscribed(user_id: UserId, interests: &Interests) -> Person {
    interests.subscribe(user_id.into());
    Person::default()
}
