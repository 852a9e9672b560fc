//! What the feed brings, and to whom it goes.

use std::sync::Arc;

use antiphon_feed::Topic;
use antiphon_proto::{
    client::{ConversationEvent, server_frame},
    log::{FamilyRevoked, Kind, MembershipChanged, Role},
    rpc::{FeedItem, OwnFrame, PushedMessage, feed_item::Body},
};
use antiphon_session::{CloseReason, Push};
use antiphon_types::{ConversationId, Seq, UserId, trace};
use bytes::Bytes;

use super::{EntryCell, Hub, SessionHandle, SharedFrame, Start, Task, entry::Next};

impl Hub {
    /// Passes one item on.
    pub(super) fn apply(self: &Arc<Self>, item: FeedItem) {
        let Ok(topic) = Topic::try_from(&*item.topic) else {
            return;
        };
        let Some(body) = item.body else { return };
        if item.traceparent.is_empty() {
            return self.apply_body(topic, body);
        }
        let span = tracing::info_span!("push", ?topic);
        trace::continue_from(&span, &item.traceparent);
        span.in_scope(|| self.apply_body(topic, body));
    }

    fn apply_body(self: &Arc<Self>, topic: Topic, body: Body) {
        if let Some(user_id) = topic.user() {
            return self.apply_to_user(user_id, body);
        }
        let Some(id) = topic.conversation() else { return };
        let Some(entry) = self.entry(id) else { return };
        match body {
            Body::Message(message) => self.apply_message(id, entry, message),
            Body::Tail(seq) => self.apply_tail(id, entry, seq),
            Body::Frame(frame) => apply_signal(&entry, frame),
            Body::Membership(change) => self.apply_membership(id, &entry, &change),
            Body::OwnFrame(own) => self.apply_own_frame(own),
            Body::Revoked(_) => {}
        }
    }

    fn apply_message(self: &Arc<Self>, id: ConversationId, entry: EntryCell, message: PushedMessage) {
        let frame = SharedFrame::from_encoded(message.frame);
        let mut pushed = 0;
        let next = entry.lock().message(message.seq, |handle| {
            pushed += 1;
            handle.push_message(id, message.seq, &frame);
        });
        self.pushes.increment(pushed);
        if message.sent_at_ms > 0 && pushed > 0 {
            let lag_ms = self.clock.now_ms().saturating_sub(message.sent_at_ms);
            #[allow(clippy::cast_precision_loss, reason = "a lag is far below 2^52 ms")]
            self.push_lag_seconds.record(lag_ms as f64 / 1_000.0);
        }
        if next == Next::StartFill {
            self.start_fill(id, entry);
        }
    }

    fn apply_tail(self: &Arc<Self>, id: ConversationId, entry: EntryCell, seq: Seq) {
        let next = {
            let mut entry = entry.lock();
            let is_first = !entry.is_confirmed();
            let next = entry.tail(seq);
            if is_first {
                entry.each(|handle| handle.is_confirmed());
            }
            next
        };
        if next == Next::StartFill {
            self.start_fill(id, entry);
        }
    }

    /// In order with the messages around it: whoever was removed is out before the next message is passed on (I7).
    fn apply_membership(&self, id: ConversationId, entry: &EntryCell, change: &MembershipChanged) {
        let Ok(user_id) = UserId::from_bytes(&change.user_id) else {
            return;
        };
        if change.role() == Role::None {
            let removed = entry.lock().remove(user_id, change.version);
            forget(&removed, id);
        }
        let event = SharedFrame::event(server_frame::Body::Conversation(event_of(id, user_id, change)));
        entry.lock().notice(|handle| {
            if handle.owner().is_some_and(|owner| owner.user_id != user_id) {
                handle.push_frame(&event, Push::Notice);
            }
        });
        if change.role() != Role::None {
            // The user's own topic says so too; whichever is first.
            self.bring_in(&self.people.sessions(user_id), user_id, id, change);
        }
    }

    /// What only the devices of one member are told.
    fn apply_own_frame(&self, own: OwnFrame) {
        let Ok(user_id) = UserId::from_bytes(&own.user_id) else {
            return;
        };
        let frame = SharedFrame::from_encoded(own.frame);
        for handle in self.people.sessions(user_id) {
            handle.push_frame(&frame, Push::Signal);
        }
    }

    fn apply_to_user(self: &Arc<Self>, user_id: UserId, body: Body) {
        match body {
            Body::Tail(_) => {
                if self.people.confirm(user_id) {
                    self.people
                        .sessions(user_id)
                        .iter()
                        .for_each(|handle| handle.give(Task::ReadList));
                }
            }
            Body::Membership(change) => self.apply_own_membership(user_id, &change),
            Body::Revoked(revoked) => self.apply_revoked(user_id, &revoked),
            Body::Frame(frame) => {
                let frame = SharedFrame::from_encoded(frame);
                for handle in self.people.watchers(user_id) {
                    handle.push_frame(&frame, Push::Signal);
                }
            }
            Body::Message(_) | Body::OwnFrame(_) => {}
        }
    }

    fn apply_own_membership(&self, user_id: UserId, change: &MembershipChanged) {
        let Ok(id) = ConversationId::from_bytes(&change.conversation_id) else {
            return;
        };
        let sessions = self.people.sessions(user_id);
        if sessions.is_empty() {
            return;
        }
        let event = SharedFrame::event(server_frame::Body::Conversation(event_of(id, user_id, change)));
        for handle in &sessions {
            handle.push_frame(&event, Push::Notice);
        }
        if change.role() != Role::None {
            return self.bring_in(&sessions, user_id, id, change);
        }
        if let Some(entry) = self.entry(id) {
            let removed = entry.lock().remove(user_id, change.version);
            forget(&removed, id);
        }
    }

    /// Puts a member's sessions into a conversation, beginning with what was sent since they joined.
    fn bring_in(
        &self,
        sessions: &[Arc<SessionHandle>],
        user_id: UserId,
        id: ConversationId,
        change: &MembershipChanged,
    ) {
        for handle in sessions {
            if self.join(handle, user_id, id, change.version) {
                handle.give(Task::CatchUp(id, Start::Since(change.joined_at_ms)));
            }
        }
    }

    fn apply_revoked(&self, user_id: UserId, revoked: &FamilyRevoked) {
        for handle in self.people.sessions(user_id) {
            // By device and not by family: a device has one, and its session may have begun under the one before.
            if handle
                .owner()
                .is_some_and(|owner| owner.device_id.as_str() == revoked.device_id)
            {
                handle.go_away(CloseReason::Revoked, self.clock.now_ms());
            }
        }
    }
}

/// A receipt, or that somebody types; that oneself types is no news.
fn apply_signal(entry: &EntryCell, frame: Bytes) {
    let frame = SharedFrame::from_encoded(frame);
    let typist = match frame.decode() {
        Some(server_frame::Body::Typing(typing)) => UserId::parse(&typing.user_id).ok(),
        Some(_) => None,
        None => return,
    };
    entry.lock().signal(|handle| {
        if typist.is_none() || handle.owner().map(|owner| owner.user_id) != typist {
            handle.push_frame(&frame, if typist.is_none() { Push::Signal } else { Push::Fleeting });
        }
    });
}

/// Sessions that were taken out of a conversation forget it.
pub(super) fn forget(removed: &[Arc<SessionHandle>], id: ConversationId) {
    for handle in removed {
        handle.follows(|follows| follows.conversations.remove(&id));
    }
}

fn event_of(id: ConversationId, user_id: UserId, change: &MembershipChanged) -> ConversationEvent {
    let what = match change.role() {
        Role::None => "removed",
        Role::Member | Role::Admin | Role::Owner if change.joined_at_ms == change.changed_at_ms => "added",
        Role::Member | Role::Admin | Role::Owner => "role",
    };
    ConversationEvent {
        conversation_id: id.to_string(),
        user_id: user_id.to_string(),
        change: what.to_owned(),
        role: role_name(change.role()).to_owned(),
        kind: kind_name(change.kind()).to_owned(),
        title: change.title.clone(),
    }
}

/// A role as devices read it; empty for none.
pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::None => "",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

/// A kind of conversation as devices read it.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "",
        Kind::Direct => "direct",
        Kind::Group => "group",
    }
}
