//! Conversations whose slots did not answer Hello: they are asked for again until they do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antiphon_proto::client::{ConversationEvent, server_frame::Body};
use antiphon_session::Push;
use antiphon_types::{ConversationId, UserId};

use super::hello::resumes;
use crate::{
    hub::{SessionHandle, SharedFrame, Start, Task, backoff},
    shared::Shared,
};

const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Runs until the device has been told of each conversation where it stands, or that it is not the user's.
pub(super) async fn run(shared: &Shared, handle: &Arc<SessionHandle>, mut waiting: BTreeMap<ConversationId, Start>) {
    let Some(user_id) = handle.owner().map(|owner| owner.user_id) else {
        return;
    };
    let mut rounds = 0;
    loop {
        rounds += 1;
        tokio::time::sleep(backoff(rounds, BACKOFF_MAX)).await;
        // The feed tells of a removal.
        handle.follows(|follows| waiting.retain(|id, _| follows.conversations.contains(id)));
        if waiting.is_empty() {
            return;
        }
        let summaries = shared.calls.summaries(user_id, waiting.keys().copied()).await;
        let answered = waiting.extract_if(.., |id, _| !summaries.unavailable.contains_key(id));
        for (id, start) in answered {
            let Some(summary) = summaries.known.get(&id).filter(|summary| summary.member) else {
                shared.hub.leave(handle, id);
                tell(handle, Body::Conversation(removed(id, user_id)));
                continue;
            };
            let start = match start {
                Start::After(seq) => Start::After(seq.min(summary.last_seq)),
                Start::Since(_) => start,
            };
            let after = match start {
                Start::After(seq) => seq,
                Start::Since(_) => summary.last_seq,
            };
            // Before what the device misses, which the catch-up pushes.
            tell(handle, Body::Resumed(resumes(id, after, summary)));
            handle.give(Task::CatchUp(id, start));
        }
    }
}

fn tell(handle: &SessionHandle, body: Body) {
    handle.push_frame(&SharedFrame::event(body), Push::Notice);
}

fn removed(id: ConversationId, user_id: UserId) -> ConversationEvent {
    ConversationEvent {
        conversation_id: id.to_string(),
        user_id: user_id.to_string(),
        change: "removed".to_owned(),
        ..ConversationEvent::default()
    }
}
