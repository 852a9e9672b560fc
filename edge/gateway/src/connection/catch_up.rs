//! Brings a session up in a conversation: what it missed, then live. History checks at each page that its user is a member.

use std::{sync::Arc, time::Duration};

use antiphon_proto::client::{Message, server_frame::Body};
use antiphon_session::{Push, Refusal};
use antiphon_types::{ConversationId, ErrorCode, Seq, TimestampMs, UserId};

use crate::{
    calls::HistoryRange,
    hub::{GoLive, SessionHandle, SharedFrame, Start, Task, backoff},
    shared::Shared,
};

const PAGE_LEN: u32 = 100;
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long to wait for a word of the feed before looking again.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the session is live in the conversation, or out of it.
pub(super) async fn run(shared: &Shared, handle: &Arc<SessionHandle>, id: ConversationId, start: Start) {
    let Some(user_id) = handle.owner().map(|owner| owner.user_id) else {
        return;
    };
    let mut one = CatchUp {
        shared,
        handle,
        id,
        user_id,
        start,
        pushed: 0,
    };
    let mut failures = 0;
    loop {
        let Some(epoch) = shared.hub.epoch(id) else {
            let _ = tokio::time::timeout(CONFIRM_INTERVAL, handle.any_confirmed()).await;
            if !handle.follows(|follows| follows.conversations.contains(&id)) {
                return;
            }
            continue;
        };
        match one.step(epoch).await {
            Ok(GoLive::Live | GoLive::Gone) => return,
            Ok(GoLive::Behind | GoLive::CheckAgain) => failures = 0,
            Err(refusal) if matches!(refusal.code, ErrorCode::NotFound | ErrorCode::Forbidden) => {
                return shared.hub.leave(handle, id);
            }
            Err(refusal) => {
                failures += 1;
                tracing::debug!(%id, code = %refusal.code, refusal.message, failures, "a catch-up has to be tried again");
                tokio::time::sleep(backoff(failures, BACKOFF_MAX)).await;
            }
        }
    }
}

/// Reads the user's list again, after changes of it may have been missed.
pub(super) async fn read_list(shared: &Shared, handle: &Arc<SessionHandle>) {
    let Some(user_id) = handle.owner().map(|owner| owner.user_id) else {
        return;
    };
    let mut failures = 0;
    loop {
        match shared
            .calls
            .memberships(user_id, shared.options.conversations_max)
            .await
        {
            Ok(memberships) => {
                for membership in memberships {
                    if shared
                        .hub
                        .join(handle, user_id, membership.conversation_id, membership.version)
                    {
                        handle.give(Task::CatchUp(
                            membership.conversation_id,
                            Start::Since(membership.joined_at_ms),
                        ));
                    }
                }
                return;
            }
            Err(refusal) => {
                failures += 1;
                tracing::debug!(%user_id, code = %refusal.code, failures, "a list of conversations has to be read again");
                tokio::time::sleep(backoff(failures, BACKOFF_MAX)).await;
            }
        }
    }
}

struct CatchUp<'a> {
    shared: &'a Shared,
    handle: &'a Arc<SessionHandle>,
    id: ConversationId,
    user_id: UserId,
    start: Start,
    /// Messages pushed so far.
    pushed: u64,
}

impl CatchUp<'_> {
    /// Reads one page, pushes it, and goes live when that was all.
    async fn step(&mut self, epoch: u64) -> Result<GoLive, Refusal> {
        let range = match self.start {
            Start::After(seq) => HistoryRange::After(seq),
            Start::Since(_) => HistoryRange::Newest,
        };
        let page = {
            let _permit = self.shared.catch_ups.acquire().await;
            self.shared
                .calls
                .history(self.id, Some(self.user_id), range, PAGE_LEN)
                .await?
        };
        let (after, messages) = match self.start {
            Start::After(seq) => (seq, page.messages),
            Start::Since(since_ms) => match sent_since(page.messages, since_ms, page.tail_seq) {
                Some(found) => found,
                None => return Ok(self.leave_to_device(page.tail_seq, epoch)),
            },
        };
        let missing = page.tail_seq.saturating_sub(after);
        let retention_passed = page.first_seq > page.tail_seq;
        if missing > 0 && messages.is_empty() && !retention_passed {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "history does not hold yet what its tail tells of",
            ));
        }
        if self.pushed + missing > self.shared.options.resume_push_max {
            return Ok(self.leave_to_device(page.tail_seq, epoch));
        }
        let last = self.push(messages).await;
        let after = if missing > 0 && retention_passed {
            page.tail_seq
        } else {
            last.unwrap_or(after)
        };
        self.start = Start::After(after);
        if after < page.tail_seq {
            return Ok(GoLive::Behind);
        }
        Ok(self.shared.hub.go_live(self.handle, self.id, after, epoch))
    }

    /// Tells the device to fetch what it misses up to `tail_seq`, and goes on from there.
    fn leave_to_device(&mut self, tail_seq: Seq, epoch: u64) -> GoLive {
        self.handle.push(Push::Lagged {
            conversation_id: self.id,
            tail_seq,
        });
        self.start = Start::After(tail_seq);
        self.shared.hub.go_live(self.handle, self.id, tail_seq, epoch)
    }

    /// Pushes messages as there is room for them; the last seq.
    async fn push(&mut self, messages: Vec<Message>) -> Option<Seq> {
        let last = messages.last().map(|message| message.seq);
        self.handle
            .room_for(messages.len(), self.shared.options.session.push_frames_max)
            .await;
        self.pushed += messages.len() as u64;
        for message in messages {
            let seq = message.seq;
            self.handle
                .push_message(self.id, seq, &SharedFrame::event(Body::Message(message)));
        }
        last
    }
}

/// The seq before the first message of the newest page that was sent at `since_ms` or later, and the messages from there. `None`
/// when even the oldest of the page is later, so that there may be more before it.
fn sent_since(mut messages: Vec<Message>, since_ms: TimestampMs, tail_seq: Seq) -> Option<(Seq, Vec<Message>)> {
    let first = messages
        .iter()
        .position(|message| message.sent_at_ms >= since_ms)
        .unwrap_or(messages.len());
    let since = messages.split_off(first);
    let after = since.first().map_or(tail_seq, |message| message.seq.saturating_sub(1));
    (first > 0 || after == 0 || since.is_empty()).then_some((after, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_member_begins_with_what_was_sent_since() {
        let page = |sent: &[u64]| -> Vec<Message> {
            sent.iter()
                .zip(11..)
                .map(|(sent_at_ms, seq)| Message {
                    seq,
                    sent_at_ms: *sent_at_ms,
                    ..Default::default()
                })
                .collect()
        };
        let begins = |sent: &[u64]| {
            let (after, messages) = sent_since(page(sent), 100, 13)?;
            Some((after, messages.iter().map(|message| message.seq).collect::<Vec<_>>()))
        };
        assert_eq!(begins(&[80, 100, 120]), Some((11, vec![12, 13])));
        assert_eq!(begins(&[80, 90, 99]), Some((13, vec![])));
        assert_eq!(begins(&[]), Some((13, vec![])));
        assert_eq!(begins(&[100, 110, 120]), None);
    }
}
