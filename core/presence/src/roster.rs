//! All users that memory holds, with what is due for each, as a value.

use std::collections::{BTreeSet, HashMap};

use antiphon_proto::log::StoredPresence;
use antiphon_types::{TimestampMs, UserId};

use crate::{
    PresenceOptions,
    domain::{Report, Shown, User},
};

/// Who is online here, or was until lately.
#[derive(Debug)]
pub(crate) struct Roster {
    options: PresenceOptions,
    started_at_ms: TimestampMs,
    users: HashMap<UserId, Entry>,
    settles: Schedule,
    writes: Schedule,
}

#[derive(Debug, Default)]
struct Entry {
    user: User,
    settles_at_ms: Option<TimestampMs>,
    writes_at_ms: Option<TimestampMs>,
}

type Schedule = BTreeSet<(TimestampMs, UserId)>;

/// What the watchers of a user are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) user: UserId,
    pub(crate) shown: Shown,
}

impl Roster {
    /// Holds nobody yet.
    pub(crate) fn new(options: PresenceOptions, started_at_ms: TimestampMs) -> Self {
        Self {
            options,
            started_at_ms,
            users: HashMap::new(),
            settles: Schedule::new(),
            writes: Schedule::new(),
        }
    }

    /// Whether the user is held; what is stored of one who is need not be read.
    pub(crate) fn holds(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    /// How many users are held.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Takes up what is stored of a user, unless the user is held already.
    pub(crate) fn restore(&mut self, user: UserId, stored: StoredPresence, now_ms: TimestampMs) -> Option<Change> {
        if self.holds(user) {
            return None;
        }
        let restored = User::restored(stored, self.started_at_ms, now_ms, &self.options);
        self.users.insert(
            user,
            Entry {
                user: restored,
                ..Entry::default()
            },
        );
        self.change(user, now_ms, |_, _| {})
    }

    /// Takes a report of one of the user's sessions.
    pub(crate) fn report(&mut self, user: UserId, report: Report, now_ms: TimestampMs) -> Option<Change> {
        self.users.entry(user).or_default();
        self.change(user, now_ms, |user, options| user.report(report, now_ms, options))
    }

    /// What is shown of a user; none when the user is not held.
    pub(crate) fn shown(&self, user: UserId) -> Option<Shown> {
        self.users.get(&user).map(|entry| entry.user.shown())
    }

    /// Lets go of what has expired, of up to `len_max` users.
    pub(crate) fn settle(&mut self, now_ms: TimestampMs, len_max: usize) -> Vec<Change> {
        let due = due(&self.settles, now_ms, len_max);
        due.into_iter()
            .filter_map(|user| self.change(user, now_ms, |_, _| {}))
            .collect()
    }

    /// Whether [`Roster::settle`] has nothing to do now.
    pub(crate) fn is_settled(&self, now_ms: TimestampMs) -> bool {
        self.settles.first().is_none_or(|(at_ms, _)| *at_ms > now_ms)
    }

    /// Takes up to `len_max` records that are due to be written.
    pub(crate) fn take_writes(&mut self, now_ms: TimestampMs, len_max: usize) -> Vec<(UserId, StoredPresence)> {
        let due = due(&self.writes, now_ms, len_max);
        due.into_iter()
            .filter_map(|user| self.take_write(user, now_ms))
            .collect()
    }

    /// Takes every record that lacks something, due or not.
    pub(crate) fn take_all_writes(&mut self, now_ms: TimestampMs) -> Vec<(UserId, StoredPresence)> {
        let behind = self.users.iter().filter(|(_, entry)| entry.user.is_behind());
        let behind: Vec<_> = behind.map(|(user, _)| *user).collect();
        behind
            .into_iter()
            .filter_map(|user| self.take_write(user, now_ms))
            .collect()
    }

    /// A record was written, or could not be.
    pub(crate) fn written(&mut self, user: UserId, is_written: bool, now_ms: TimestampMs) -> Option<Change> {
        self.change(user, now_ms, |user, _| user.written(is_written, now_ms))
    }

    /// Lets go of a user whose home is elsewhere now.
    pub(crate) fn forget(&mut self, user: UserId) {
        if let Some(entry) = self.users.remove(&user) {
            schedule(&mut self.settles, user, entry.settles_at_ms, None);
            schedule(&mut self.writes, user, entry.writes_at_ms, None);
        }
    }

    fn take_write(&mut self, user: UserId, now_ms: TimestampMs) -> Option<(UserId, StoredPresence)> {
        let entry = self.users.get_mut(&user)?;
        let record = entry.user.write(now_ms);
        self.reschedule(user);
        Some((user, record))
    }

    fn change(
        &mut self,
        user: UserId,
        now_ms: TimestampMs,
        act: impl FnOnce(&mut User, &PresenceOptions),
    ) -> Option<Change> {
        let entry = self.users.get_mut(&user)?;
        act(&mut entry.user, &self.options);
        let shown = entry.user.settle(now_ms, &self.options);
        self.reschedule(user);
        shown.map(|shown| Change { user, shown })
    }

    fn reschedule(&mut self, user: UserId) {
        let Some(entry) = self.users.get_mut(&user) else {
            return;
        };
        if entry.user.is_at_rest() {
            self.forget(user);
            return;
        }
        let settles_at_ms = entry.user.settles_at_ms(&self.options);
        schedule(&mut self.settles, user, entry.settles_at_ms, settles_at_ms);
        entry.settles_at_ms = settles_at_ms;
        let writes_at_ms = entry.user.writes_at_ms(&self.options);
        schedule(&mut self.writes, user, entry.writes_at_ms, writes_at_ms);
        entry.writes_at_ms = writes_at_ms;
    }
}

fn due(schedule: &Schedule, now_ms: TimestampMs, len_max: usize) -> Vec<UserId> {
    let due = schedule.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
    due.take(len_max).map(|(_, user)| *user).collect()
}

fn schedule(schedule: &mut Schedule, user: UserId, from_ms: Option<TimestampMs>, to_ms: Option<TimestampMs>) {
    if from_ms == to_ms {
        return;
    }
    if let Some(from_ms) = from_ms {
        schedule.remove(&(from_ms, user));
    }
    if let Some(to_ms) = to_ms {
        schedule.insert((to_ms, user));
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
