use std::sync::Arc;

use antiphon_directory::Route;
use antiphon_proto::{
    log::{AccountClaimed, Event, event},
    refusal,
    rpc::{CreateAccountRequest, identity_client::IdentityClient},
};
use antiphon_slot::{Carrier, CarryError};
use antiphon_types::UserId;
use futures_util::{FutureExt as _, future::BoxFuture};

/// Carries the claim on a username to the slot where its account is to live.
#[must_use]
pub fn carrier(route: Route) -> Arc<dyn Carrier> {
    Arc::new(AccountCarrier { route })
}

struct AccountCarrier {
    route: Route,
}

impl Carrier for AccountCarrier {
    fn wants(&self, event: &Event) -> bool {
        matches!(event.body, Some(event::Body::AccountClaimed(_)))
    }

    fn carry(&self, event: Event) -> BoxFuture<'static, Result<(), CarryError>> {
        let route = self.route.clone();
        async move {
            let Some(event::Body::AccountClaimed(claim)) = event.body else {
                return Ok(());
            };
            create_account(&route, claim).await
        }
        .boxed()
    }
}

async fn create_account(route: &Route, claim: AccountClaimed) -> Result<(), CarryError> {
    let user_id = UserId::from_bytes(&claim.user_id).map_err(|error| CarryError(error.to_string()))?;
    let request = CreateAccountRequest { claim: Some(claim) };
    let created = IdentityClient::new(route.to(user_id.slot()))
        .create_account(request)
        .await;
    created.map(drop).map_err(|status| {
        CarryError(format!(
            "account {user_id}: {}: {}",
            refusal::of(&status).code,
            status.message()
        ))
    })
}
