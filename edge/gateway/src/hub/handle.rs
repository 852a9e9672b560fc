//! A session as the rest of the edge reaches it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use antiphon_proto::Codec;
use antiphon_session::{CloseReason, Push, Refusal, Session, SessionOptions};
use antiphon_types::{ConversationId, DeviceId, ErrorCode, Seq, TimestampMs, UserId};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::SharedFrame;

/// A session that is connected here. Its own task writes what is pushed; nobody waits for it.
pub(crate) struct SessionHandle {
    pub(crate) key: u64,
    codec: Codec,
    session: Mutex<Session>,
    /// The session's task has something to do.
    wake: Notify,
    /// The queue was written out.
    room: Notify,
    owner: OnceLock<Box<Owner>>,
    follows: Mutex<Follows>,
    unconfirmed: AtomicU32,
    confirmed: Notify,
}

/// Whose session it is.
pub(crate) struct Owner {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) session_id: String,
}

/// What a session follows, and what its task has to look after.
#[derive(Default)]
pub(crate) struct Follows {
    pub(crate) conversations: BTreeSet<ConversationId>,
    pub(crate) watched: BTreeSet<UserId>,
    pub(crate) tasks: Vec<Task>,
    /// The session has ended: nothing is added any more.
    pub(crate) ended: bool,
}

/// Users whose presence one session may see: as many as a conversation has members.
pub(crate) const WATCHED_MAX: usize = 10_000;

impl Follows {
    /// Adds users to those that are watched; returns which of them are new. None is added when these are too many.
    pub(super) fn watch(&mut self, user_ids: &[UserId]) -> Result<BTreeSet<UserId>, Refusal> {
        if self.ended {
            return Ok(BTreeSet::new());
        }
        let asked: BTreeSet<UserId> = user_ids.iter().copied().collect();
        let new = &asked - &self.watched;
        if self.watched.len() + new.len() > WATCHED_MAX {
            let message = format!(
                "this session watches {} users and asks for {} more, the limit is {WATCHED_MAX}",
                self.watched.len(),
                new.len()
            );
            return Err(Refusal::new(ErrorCode::FailedPrecondition, message));
        }
        self.watched.extend(&new);
        Ok(new)
    }
}

/// What the session's task has to do besides requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Bring the session up in a conversation that it is in.
    CatchUp(ConversationId, Start),
    /// Ask for conversations whose slots did not answer Hello, until they do; then bring the session up in them.
    Resume(BTreeMap<ConversationId, Start>),
    /// Changes of the user's list may have been missed: read it again.
    ReadList,
}

impl Task {
    /// Whether it brings the session up in this conversation.
    pub(crate) fn brings_up(&self, id: ConversationId) -> bool {
        match self {
            Self::CatchUp(of, _) => *of == id,
            Self::Resume(waiting) => waiting.contains_key(&id),
            Self::ReadList => false,
        }
    }
}

/// Where a session begins in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// After this seq.
    After(Seq),
    /// With the first message that was sent at this time or later: a new member gets what was sent since.
    Since(TimestampMs),
}

impl SessionHandle {
    pub(crate) fn new(key: u64, codec: Codec, options: Arc<SessionOptions>, now_ms: TimestampMs) -> Arc<Self> {
        Arc::new(Self {
            key,
            codec,
            session: Mutex::new(Session::new(codec, options, now_ms)),
            wake: Notify::new(),
            room: Notify::new(),
            owner: OnceLock::new(),
            follows: Mutex::default(),
            unconfirmed: AtomicU32::new(0),
            confirmed: Notify::new(),
        })
    }

    /// Lends the session. The caller must not call anything else of the edge meanwhile.
    pub(crate) fn with<T>(&self, body: impl FnOnce(&mut Session) -> T) -> T {
        body(&mut self.session.lock())
    }

    /// Queues a push and wakes the session's task.
    pub(crate) fn push(&self, push: Push) {
        self.session.lock().push(push);
        self.wake.notify_one();
    }

    /// Ends the session.
    pub(crate) fn go_away(&self, reason: CloseReason, now_ms: TimestampMs) {
        self.session.lock().go_away(reason, now_ms);
        self.wake.notify_one();
    }

    /// Ends the session, because this edge does: says when and where it shall come back.
    pub(crate) fn send_away(&self, reconnect_after_ms: u32, edges: Vec<String>, now_ms: TimestampMs) {
        let mut session = self.session.lock();
        session.send_away(CloseReason::Draining, reconnect_after_ms, edges, now_ms);
        drop(session);
        self.wake.notify_one();
    }

    /// Queues a frame that is shared with others, as `push` of its bytes in this session's codec.
    pub(crate) fn push_frame(&self, frame: &SharedFrame, push: impl FnOnce(Bytes) -> Push) {
        if let Some(bytes) = frame.bytes(self.codec) {
            self.push(push(bytes));
        }
    }

    /// Queues a message.
    pub(crate) fn push_message(&self, conversation_id: ConversationId, seq: Seq, frame: &SharedFrame) {
        self.push_frame(frame, |frame| Push::Message {
            conversation_id,
            seq,
            frame,
        });
    }
    /// Whose session it is, once Hello was accepted.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.owner.get().map(AsRef::as_ref)
    }

    pub(crate) fn set_owner(&self, owner: Owner) {
        let _ = self.owner.set(Box::new(owner));
    }

    /// Lends what the session follows.
    pub(crate) fn follows<T>(&self, body: impl FnOnce(&mut Follows) -> T) -> T {
        body(&mut self.follows.lock())
    }

    /// Gives the session's task something to do.
    pub(crate) fn give(&self, task: Task) {
        let mut follows = self.follows.lock();
        if !follows.ended && !follows.tasks.contains(&task) {
            follows.tasks.push(task);
            self.wake.notify_one();
        }
    }

    pub(crate) fn take_tasks(&self) -> Vec<Task> {
        std::mem::take(&mut self.follows.lock().tasks)
    }

    /// Waits until there is something to do.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// One more topic is followed that the feed has not confirmed.
    pub(crate) fn expects_confirmation(&self) {
        self.unconfirmed.fetch_add(1, Ordering::AcqRel);
    }

    /// The feed has confirmed a topic.
    pub(crate) fn is_confirmed(&self) {
        let _ = self
            .unconfirmed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
        self.confirmed.notify_waiters();
    }

    /// Waits until every topic is confirmed that is expected to be.
    pub(crate) async fn all_confirmed(&self) {
        loop {
            let mut confirmed = std::pin::pin!(self.confirmed.notified());
            confirmed.as_mut().enable();
            if self.unconfirmed.load(Ordering::Acquire) == 0 {
                return;
            }
            confirmed.await;
        }
    }

    /// Waits until any topic is confirmed.
    pub(crate) async fn any_confirmed(&self) {
        self.confirmed.notified().await;
    }

    /// Tells those who wait for room that the queue was written out.
    pub(crate) fn has_written(&self) {
        self.room.notify_waiters();
    }

    /// Waits until `frames` pushes fit without overflow.
    pub(crate) async fn room_for(&self, frames: usize, frames_max: usize) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            let waiting = self.with(|session| session.waiting().0);
            if waiting == 0 || waiting + frames <= frames_max {
                return;
            }
            room.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_types::Slot;

    use super::*;

    #[test]
    fn a_session_watches_so_many_users_and_no_more() {
        let mut number = 0;
        let mut users = |count: usize| -> Vec<UserId> {
            let next = |_| {
                number += 1;
                UserId::new(Slot::DEPLOYMENT, 1, number)
            };
            (0..count).map(next).collect()
        };
        let mut follows = Follows::default();
        let all = users(WATCHED_MAX - 1);
        assert_eq!(follows.watch(&all).unwrap().len(), all.len());
        assert!(follows.watch(&all).unwrap().is_empty(), "they are watched already");
        let refusal = follows.watch(&users(2)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::FailedPrecondition);
        assert!(
            refusal.message.contains("9999 users and asks for 2 more"),
            "{}",
            refusal.message
        );
        assert_eq!(
            follows.watch(&users(1)).unwrap().len(),
            1,
            "what was refused does not count"
        );
        assert!(follows.watch(&users(1)).is_err());
    }
}
