use antiphon_proto::{
    log::{DirectOpened, Pair, event},
    rpc::CreateDirectRequest,
};
use antiphon_slot::SlotTxn;
use antiphon_types::{ConversationId, IdError, TimestampMs, UserId};
use bytes::Bytes;

use super::App;
use crate::{
    ConversationError, Rejection,
    adapters::{keys, peers, store},
    new_conversation_id,
};

/// The direct conversation of two users, and whether this request opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) conversation: ConversationId,
    pub(crate) created: bool,
}

/// Finds or opens the direct conversation of two users, in the slot of the smaller id: its one writer is what makes the
/// conversation unique (I8). The conversation itself is created in its own slot. The event in the log sees to that whatever
/// happens; the call made here is the same one, made sooner, and waits for both users' lists.
pub(crate) async fn open_direct(app: &App, creator: UserId, peer: UserId) -> Result<Opened, ConversationError> {
    if creator == peer {
        return Err(Rejection::WithOneself { user: creator }.into());
    }
    let key = keys::pair(creator.min(peer), creator.max(peer));
    let slot = creator.min(peer).slot();

    let read_key = &key;
    let known = app
        .slots
        .read(slot, |read| async move {
            Ok::<_, ConversationError>(store::decoded::<Pair>("a pair", read.get(read_key).await?)?)
        })
        .await?;
    let (pair, created) = match known {
        Some(pair) => (pair, false),
        None => {
            peers::accounts_exist(&app.route, &[creator, peer]).await?;
            let now_ms = app.clock.now_ms();
            let proposed = new_conversation_id(&app.route, now_ms, rand::random());
            let claim = move |txn| claim(txn, key.clone(), proposed, creator, peer, now_ms);
            app.slots.write(slot, claim).await?.value
        }
    };

    let conversation = ConversationId::from_bytes(&pair.conversation_id).map_err(field("conversationId"))?;
    let first = UserId::from_bytes(&pair.creator_id).map_err(field("creatorId"))?;
    let other = if first == creator { peer } else { creator };
    let request = CreateDirectRequest {
        conversation_id: conversation.to_bytes(),
        creator_id: first.to_bytes(),
        peer_id: other.to_bytes(),
        created_at_ms: pair.created_at_ms,
        await_listed: true,
    };
    peers::create_direct(&app.route, conversation.slot(), request).await?;
    Ok(Opened { conversation, created })
}

/// Gives the pair the proposed conversation unless it has one.
async fn claim(
    txn: SlotTxn,
    key: Bytes,
    proposed: ConversationId,
    creator: UserId,
    peer: UserId,
    now_ms: TimestampMs,
) -> Result<(Pair, bool), ConversationError> {
    if let Some(pair) = store::decoded::<Pair>("a pair", txn.get(&key).await?)? {
        return Ok((pair, false));
    }
    let pair = Pair {
        conversation_id: proposed.to_bytes(),
        created_at_ms: now_ms,
        creator_id: creator.to_bytes(),
    };
    txn.set(key, store::encode(&pair));
    txn.emit(event::Body::DirectOpened(DirectOpened {
        conversation_id: proposed.to_bytes(),
        creator_id: creator.to_bytes(),
        peer_id: peer.to_bytes(),
        created_at_ms: now_ms,
    }));
    Ok((pair, true))
}

fn field(field: &'static str) -> impl Fn(IdError) -> ConversationError {
    move |reason| ConversationError::Id { field, reason }
}
