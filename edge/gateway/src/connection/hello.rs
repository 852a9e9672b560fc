//! Hello: whose session it is, what it follows, and from where.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use antiphon_identity::AccessClaims;
use antiphon_proto::{
    client::{Resumed, Unavailable},
    rpc::Summary,
};
use antiphon_session::{Accepted, CloseReason, HelloRequest, Refusal};
use antiphon_types::{ConversationId, ErrorCode, Seq, TimestampMs, UserId};

use crate::{
    hub::{Admission, GoLive, Owner, SessionHandle, Start, Task},
    options::DevicePolicy,
    shared::Shared,
};

/// How long Hello waits for the feed. Without it the session is brought up after Welcome.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(500);

/// A session whose Hello was accepted.
pub(super) struct Opened {
    user_id: UserId,
    session_id: String,
    device_id: String,
    token_expires_at_ms: TimestampMs,
    standing: Standing,
}

/// How the session's conversations stand.
#[derive(Default)]
struct Standing {
    resumed: Vec<Resumed>,
    unavailable: Vec<Unavailable>,
}

impl Opened {
    /// What Welcome says, once.
    pub(super) fn accepted(&mut self, shared: &Shared, handle: &SessionHandle) -> Accepted {
        let Standing { resumed, unavailable } = mem::take(&mut self.standing);
        Accepted {
            user_id: self.user_id,
            token_expires_at_ms: self.token_expires_at_ms,
            session_id: self.session_id.clone(),
            region: shared.calls.route().region().to_owned(),
            resumed,
            unavailable,
            edges: shared.other_edges(handle.key),
        }
    }

    /// The session has ended. One that is to come back at once is not shown as offline meanwhile.
    pub(super) fn closed(self, shared: &Shared, reason: CloseReason) {
        if reason != CloseReason::Draining {
            shared.presence.closed(self.user_id, self.session_id, self.device_id);
        }
    }
}

/// Answers Hello when its turn comes, within the time it may take. Whose it is, is looked at before: a stranger has no place in
/// the line.
pub(super) async fn greet(
    shared: &Arc<Shared>,
    handle: &Arc<SessionHandle>,
    hello: HelloRequest,
) -> Result<Opened, Refusal> {
    let claims = check(shared, &hello).await?;
    let _turn = shared.hellos.take().await?;
    let limit_ms = shared.options.hello_work_timeout_ms;
    let opened = open(shared, handle, claims, hello.cursors);
    match tokio::time::timeout(Duration::from_millis(limit_ms), opened).await {
        Ok(opened) => opened,
        Err(_) => {
            let message = format!("hello could not be answered within {limit_ms} ms");
            Err(Refusal::new(ErrorCode::DeadlineExceeded, message).retry_after(1_000))
        }
    }
}

/// Checks a new token of a session; when it expires.
pub(super) async fn reauth(shared: &Shared, handle: &SessionHandle, token: &str) -> Result<TimestampMs, Refusal> {
    let claims = shared.auth.verify(token).await?;
    match handle.owner() {
        Some(owner) if owner.user_id == claims.user_id && owner.device_id == claims.device_id => {
            Ok(claims.expires_at_ms)
        }
        _ => Err(Refusal::new(
            ErrorCode::Forbidden,
            "the token is of another user or device than the session's",
        )),
    }
}

async fn check(shared: &Shared, hello: &HelloRequest) -> Result<AccessClaims, Refusal> {
    let claims = shared.auth.verify(&hello.access_token).await?;
    if claims.device_id != hello.device_id {
        let message = format!(
            "the token is of device {} and not of {}",
            claims.device_id, hello.device_id
        );
        return Err(Refusal::new(ErrorCode::Unauthenticated, message));
    }
    shared.limits.users.take(&claims.user_id)?;
    Ok(claims)
}

async fn open(
    shared: &Arc<Shared>,
    handle: &Arc<SessionHandle>,
    claims: AccessClaims,
    cursors: Vec<(ConversationId, Seq)>,
) -> Result<Opened, Refusal> {
    let user_id = claims.user_id;
    let session_id = shared.session_id(handle.key);
    handle.set_owner(Owner {
        user_id,
        device_id: claims.device_id.clone(),
        session_id: session_id.clone(),
    });
    admit(shared, handle, user_id)?;

    // The user's topic is followed before the list is read: what changes in between is in one of them.
    let _ = tokio::time::timeout(CONFIRM_TIMEOUT, handle.all_confirmed()).await;
    let memberships = shared
        .calls
        .memberships(user_id, shared.options.conversations_max)
        .await?;
    let listed = memberships
        .into_iter()
        .map(|membership| (membership.conversation_id, membership.version));
    let cursors: BTreeMap<ConversationId, Seq> = cursors.into_iter().collect();
    // The list may not hold yet what the device knows already.
    let known = cursors.keys().map(|id| (*id, 0));
    let followed: BTreeMap<ConversationId, u64> = known.chain(listed).collect();

    let standing = follow(shared, handle, user_id, &followed, &cursors).await;
    shared.newcomers.remove(handle);
    shared
        .presence
        .opened(user_id, session_id.clone(), claims.device_id.to_string());
    Ok(Opened {
        user_id,
        session_id,
        device_id: claims.device_id.to_string(),
        token_expires_at_ms: claims.expires_at_ms,
        standing,
    })
}

fn admit(shared: &Shared, handle: &Arc<SessionHandle>, user_id: UserId) -> Result<(), Refusal> {
    let device_id = handle.owner().map(|owner| owner.device_id.clone());
    let replaces = |other: &Owner| match shared.options.device_policy {
        DevicePolicy::Any => false,
        DevicePolicy::OnePerDevice => Some(&other.device_id) == device_id.as_ref(),
        DevicePolicy::Single => true,
    };
    let sessions_max = shared.options.sessions_per_user_max;
    match shared.hub.admit(handle, user_id, sessions_max, replaces) {
        Admission::Admitted { replaced } => {
            let now_ms = shared.clock.now_ms();
            replaced
                .iter()
                .for_each(|other| other.go_away(CloseReason::Replaced, now_ms));
            Ok(())
        }
        Admission::TooMany { sessions } => {
            let message = format!("the user has {sessions} sessions here, the limit is {sessions_max}");
            Err(Refusal::new(ErrorCode::RateLimited, message).retry_after(5_000))
        }
    }
}

/// Puts the session into its conversations and reads where each stands. A session begins at the tail as it is before Welcome,
/// so that everything sent after Welcome reaches it. Where that cannot be read now the session goes on asking after Welcome.
async fn follow(
    shared: &Arc<Shared>,
    handle: &Arc<SessionHandle>,
    user_id: UserId,
    followed: &BTreeMap<ConversationId, u64>,
    cursors: &BTreeMap<ConversationId, Seq>,
) -> Standing {
    let hub = &shared.hub;
    for (id, version) in followed {
        hub.join(handle, user_id, *id, *version);
    }
    let _ = tokio::time::timeout(CONFIRM_TIMEOUT, handle.all_confirmed()).await;
    // An epoch that is known before the summaries are asked for makes them the check of membership.
    let epochs: Vec<(ConversationId, Option<u64>)> = followed.keys().map(|id| (*id, hub.epoch(*id))).collect();
    let began_ms = shared.clock.now_ms();
    let summaries = shared.calls.summaries(user_id, followed.keys().copied()).await;

    let (mut standing, mut waiting) = (Standing::default(), BTreeMap::new());
    for (id, epoch) in epochs {
        // The feed may have brought the membership meanwhile: the device's cursor says better where the session begins, and two
        // who bring it up would push everything twice.
        handle.follows(|follows| follows.tasks.retain(|task| !task.brings_up(id)));
        let cursor = cursors.get(&id).copied();
        if let Some(retry_after_ms) = summaries.unavailable.get(&id) {
            standing.unavailable.push(Unavailable {
                conversation_id: id.to_string(),
                retry_after_ms: *retry_after_ms,
            });
            waiting.insert(id, cursor.map_or(Start::Since(began_ms), Start::After));
            continue;
        }
        let Some(summary) = summaries.known.get(&id).filter(|summary| summary.member) else {
            hub.leave(handle, id);
            continue;
        };
        if let Some(after) = cursor {
            standing.resumed.push(resumes(id, after, summary));
        }
        let after = cursor.unwrap_or(summary.last_seq).min(summary.last_seq);
        let is_live = after == summary.last_seq
            && epoch.is_some_and(|epoch| hub.go_live(handle, id, after, epoch) == GoLive::Live);
        if !is_live {
            handle.give(Task::CatchUp(id, Start::After(after)));
        }
    }
    if !waiting.is_empty() {
        handle.give(Task::Resume(waiting));
    }
    standing
}

pub(super) fn resumes(id: ConversationId, after: Seq, summary: &Summary) -> Resumed {
    let is_truncated = summary.first_seq > after.saturating_add(1);
    Resumed {
        conversation_id: id.to_string(),
        tail_seq: summary.last_seq,
        truncated_from_seq: is_truncated.then_some(summary.first_seq),
    }
}
