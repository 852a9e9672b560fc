//! One conversation as this edge passes it on: a state machine without IO.
//!
//! Three rules make it right whatever is lost on the way here:
//! - Messages are passed on in order without gaps: what is lower than the tail is dropped, what is higher opens a *fill*.
//! - A fill (after a hole, a reconnect, an overflow) checks every live member again *after* it has read the messages that it is
//!   going to pass on, because a removal may have been lost with them (I7).
//! - A session goes live only with a check that was begun in the present *epoch*; each loss begins a new one. The session is
//!   in the entry before its check begins, so a removal in between finds it.

use antiphon_types::{Seq, UserId};

/// A conversation with the sessions that follow it here. `S` is how a session is reached.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    /// Last seq passed on; `None` until the feed has told the tail.
    tail: Option<Seq>,
    /// Whether the feed follows the conversation now.
    confirmed: bool,
    /// Grows whenever something may have been lost.
    epoch: u64,
    /// Highest seq that the feed has brought; it may come just before a tail that was read earlier.
    seen: Seq,
    /// While a fill runs: up to which seq it has to come.
    fill: Option<Seq>,
    members: Vec<Member<S>>,
}

#[derive(Debug)]
struct Member<S> {
    session: S,
    key: u64,
    user_id: UserId,
    /// Version of the membership by which the session came; older removals do not concern it.
    version: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It reads history, or waits to.
    Waiting,
    /// It gets what the feed brings after this seq.
    Live { after: Seq },
}

/// Whether the caller has to start a fill. At most one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    StartFill,
}

/// What became of a session that says it has come up to a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoLive {
    Live,
    /// The entry has passed on more; read on.
    Behind,
    /// The feed was interrupted; check again.
    CheckAgain,
    /// The session is no longer in the entry.
    Gone,
}

/// One round of a fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FillRound {
    pub(crate) after: Seq,
    pub(crate) target: Seq,
    pub(crate) epoch: u64,
    /// The live sessions, whose users are to be checked after the messages have been read.
    pub(crate) checked: Vec<(u64, UserId)>,
}

impl<S> Default for Entry<S> {
    fn default() -> Self {
        Self {
            tail: None,
            confirmed: false,
            epoch: 0,
            seen: 0,
            fill: None,
            members: Vec::new(),
        }
    }
}

impl<S> Entry<S> {
    /// Puts a session in. It gets nothing before [`Entry::go_live`]. False when it was in already.
    pub(crate) fn join(&mut self, session: S, key: u64, user_id: UserId, version: u64) -> bool {
        if let Some(member) = self.members.iter_mut().find(|member| member.key == key) {
            member.version = version.max(member.version);
            return false;
        }
        self.members.push(Member {
            session,
            key,
            user_id,
            version,
            place: Place::Waiting,
        });
        true
    }

    /// Takes a session out.
    pub(crate) fn leave(&mut self, key: u64) {
        if let Some(at) = self.members.iter().position(|member| member.key == key) {
            self.members.swap_remove(at);
        }
    }

    /// Takes the sessions of a user out whose membership is older than `version`.
    pub(crate) fn remove(&mut self, user_id: UserId, version: u64) -> Vec<S> {
        let removed = self
            .members
            .extract_if(.., |member| member.user_id == user_id && member.version < version);
        removed.map(|member| member.session).collect()
    }

    /// Whether nobody follows the conversation here.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the feed follows the conversation now.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The epoch that a check belongs to that begins now; `None` while the feed does not follow the conversation.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.confirmed.then_some(self.epoch)
    }

    /// The feed has ended.
    pub(crate) fn lost(&mut self) {
        self.confirmed = false;
        self.epoch += 1;
    }

    /// The feed says: the last seq is `seq`, and something before it may have been lost.
    pub(crate) fn tail(&mut self, seq: Seq) -> Next {
        self.confirmed = true;
        self.epoch += 1;
        let tail = self.tail.unwrap_or(seq);
        self.begin_fill(tail, seq.max(tail).max(self.seen))
    }

    /// The feed brings a message. Passes it on to every live session, or opens a fill.
    pub(crate) fn message(&mut self, seq: Seq, push: impl FnMut(&S)) -> Next {
        self.seen = seq.max(self.seen);
        // Before the feed has told the tail nobody is live; whoever goes live then reads up to what was seen.
        let Some(tail) = self.tail else { return Next::Nothing };
        if !self.confirmed || seq <= tail {
            return Next::Nothing;
        }
        if let Some(target) = &mut self.fill {
            *target = seq.max(*target);
            return Next::Nothing;
        }
        if seq == tail + 1 {
            self.pass_on(seq, push);
            return Next::Nothing;
        }
        self.epoch += 1;
        self.begin_fill(tail, seq)
    }

    /// Calls for every session, live or not.
    pub(crate) fn each(&self, mut call: impl FnMut(&S)) {
        for member in &self.members {
            call(&member.session);
        }
    }

    /// A change of another's membership, for the live sessions. The feed does not lose such changes, so whoever is in the
    /// entry when one comes was a member just before it.
    pub(crate) fn notice(&self, mut push: impl FnMut(&S)) {
        for member in &self.members {
            if matches!(member.place, Place::Live { .. }) {
                push(&member.session);
            }
        }
    }

    /// Something without a seq. Held back while it is not certain who is a member.
    pub(crate) fn signal(&self, push: impl FnMut(&S)) {
        if self.fill.is_none() {
            self.notice(push);
        }
    }

    /// A session has everything up to `after`, by a check that began in `epoch`.
    pub(crate) fn go_live(&mut self, key: u64, after: Seq, epoch: u64) -> GoLive {
        let (confirmed, tail) = (self.confirmed, self.tail);
        let Some(member) = self.members.iter_mut().find(|member| member.key == key) else {
            return GoLive::Gone;
        };
        let (true, Some(tail)) = (confirmed && epoch == self.epoch, tail) else {
            return GoLive::CheckAgain;
        };
        if after < tail {
            return GoLive::Behind;
        }
        member.place = Place::Live { after };
        GoLive::Live
    }

    /// The next round of the running fill; `None` when it is done or nobody is left.
    pub(crate) fn fill_round(&mut self) -> Option<FillRound> {
        let target = self.fill?;
        let live = self
            .members
            .iter()
            .filter(|member| matches!(member.place, Place::Live { .. }));
        let checked: Vec<(u64, UserId)> = live.map(|member| (member.key, member.user_id)).collect();
        if checked.is_empty() {
            self.fill = None;
            self.tail = Some(target);
            return None;
        }
        Some(FillRound {
            after: self.tail.unwrap_or(target),
            target,
            epoch: self.epoch,
            checked,
        })
    }

    /// Takes out the sessions that a round has found to be of no member.
    pub(crate) fn fill_removes(&mut self, keys: &[u64]) -> Vec<S> {
        let removed = self.members.extract_if(.., |member| keys.contains(&member.key));
        removed.map(|member| member.session).collect()
    }

    /// Passes on one message that a round has read.
    pub(crate) fn fill_message(&mut self, seq: Seq, push: impl FnMut(&S)) {
        if self.tail.is_none_or(|tail| seq > tail) {
            self.pass_on(seq, push);
        }
    }

    /// Gives up on what lies between the tail and `seq`: live sessions are told to fetch.
    pub(crate) fn fill_skips_to(&mut self, seq: Seq, push: impl FnMut(&S)) {
        if self.tail.is_none_or(|tail| seq > tail) {
            self.pass_on(seq, push);
        }
    }

    /// Ends a round that began in `epoch`. True when the fill is done.
    pub(crate) fn fill_ends_round(&mut self, epoch: u64) -> bool {
        if self.epoch == epoch && self.fill <= self.tail {
            self.fill = None;
        }
        self.fill.is_none()
    }

    fn begin_fill(&mut self, tail: Seq, target: Seq) -> Next {
        let is_anyone_live = self
            .members
            .iter()
            .any(|member| matches!(member.place, Place::Live { .. }));
        if !is_anyone_live && self.fill.is_none() {
            self.tail = Some(target);
            return Next::Nothing;
        }
        self.tail = Some(tail);
        let already = self.fill.is_some();
        self.fill = Some(target.max(self.fill.unwrap_or(0)));
        if already { Next::Nothing } else { Next::StartFill }
    }

    fn pass_on(&mut self, seq: Seq, mut push: impl FnMut(&S)) {
        self.tail = Some(seq);
        for member in &mut self.members {
            if let Place::Live { after } = &mut member.place
                && *after < seq
            {
                *after = seq;
                push(&member.session);
            }
        }
    }
}
