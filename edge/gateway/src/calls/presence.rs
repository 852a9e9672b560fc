use antiphon_directory::SlotRoute;
use antiphon_proto::{
    client::Presence,
    rpc::{PresenceQueryRequest, PresenceReport, presence_client::PresenceClient},
};
use antiphon_session::Refusal;
use antiphon_types::{ErrorCode, Slot, UserId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Calls;

/// Users that are asked for at once.
const USERS_AT_ONCE: usize = 16;

impl Calls {
    pub(crate) async fn report_presence(&self, who: UserId, report: PresenceReport) -> Result<(), Refusal> {
        let mut client = self.presence(who.slot());
        self.answer(client.report(report)).await?;
        Ok(())
    }

    /// The presence of each user, in the order asked; whose presence the asker may not see is left out.
    pub(crate) async fn presences(&self, asker: UserId, users: Vec<UserId>) -> Result<Vec<Presence>, Refusal> {
        let answers = stream::iter(users)
            .map(|who| self.presence_of(asker, who))
            .buffered(USERS_AT_ONCE);
        let seen = answers.try_filter_map(|presence| async move { Ok(presence) });
        seen.try_collect().await
    }

    async fn presence_of(&self, asker: UserId, who: UserId) -> Result<Option<Presence>, Refusal> {
        let mut client = self.presence(who.slot());
        let request = PresenceQueryRequest {
            asker_id: asker.to_bytes(),
            user_id: who.to_bytes(),
        };
        let answer = match self.answer(client.query(request)).await {
            Ok(answer) => answer,
            Err(refusal) if refusal.code == ErrorCode::Forbidden => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        Ok(Some(Presence {
            user_id: who.to_string(),
            online: answer.online,
            last_seen_ms: answer.last_seen_ms,
        }))
    }

    fn presence(&self, slot: Slot) -> PresenceClient<SlotRoute> {
        PresenceClient::new(self.route.to(slot))
    }
}
