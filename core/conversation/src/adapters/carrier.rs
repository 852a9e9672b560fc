use std::sync::Arc;

use antiphon_directory::Route;
use antiphon_proto::{
    log::{DirectOpened, Event, MembershipChanged, event},
    rpc::CreateDirectRequest,
};
use antiphon_slot::{Carrier, CarryError};
use antiphon_types::{ConversationId, UserId};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::adapters::peers;

/// Carries what slots' logs hold of conversations for other slots: a direct conversation to its slot, a change of
/// membership to the member's own list.
#[must_use]
pub fn carrier(route: Route) -> Arc<dyn Carrier> {
    Arc::new(ConversationCarrier { route })
}

struct ConversationCarrier {
    route: Route,
}

impl Carrier for ConversationCarrier {
    fn wants(&self, event: &Event) -> bool {
        matches!(
            event.body,
            Some(event::Body::DirectOpened(_) | event::Body::MembershipChanged(_))
        )
    }

    fn carry(&self, event: Event) -> BoxFuture<'static, Result<(), CarryError>> {
        let route = self.route.clone();
        async move {
            if let Some(event::Body::DirectOpened(opened)) = event.body {
                return create(route, opened).await;
            }
            if let Some(event::Body::MembershipChanged(change)) = event.body {
                return list(route, change).await;
            }
            Ok(())
        }
        .boxed()
    }
}

async fn create(route: Route, opened: DirectOpened) -> Result<(), CarryError> {
    let conversation = ConversationId::from_bytes(&opened.conversation_id).map_err(|error| failed(&error))?;
    let request = CreateDirectRequest {
        conversation_id: opened.conversation_id,
        creator_id: opened.creator_id,
        peer_id: opened.peer_id,
        created_at_ms: opened.created_at_ms,
        await_listed: false,
    };
    peers::create_direct(&route, conversation.slot(), request)
        .await
        .map_err(|error| failed(&error))
}

async fn list(route: Route, change: MembershipChanged) -> Result<(), CarryError> {
    let user = UserId::from_bytes(&change.user_id).map_err(|error| failed(&error))?;
    peers::list_membership(&route, user, change)
        .await
        .map_err(|error| failed(&error))
}

fn failed(error: &impl ToString) -> CarryError {
    CarryError(error.to_string())
}
