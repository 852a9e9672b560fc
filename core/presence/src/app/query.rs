use antiphon_types::UserId;

use super::App;
use crate::{PresenceError, Rejection, adapters::store, domain::Shown};

/// What `asker` sees of `user`.
pub(crate) async fn query(app: &App, asker: UserId, user: UserId) -> Result<Shown, PresenceError> {
    if !may_see(app, asker, user).await {
        return Err(Rejection::Hidden { user }.into());
    }
    if let Some(shown) = app.roster.lock().shown(user) {
        return Ok(shown);
    }
    let Some(stored) = store::read(&app.slots, user).await? else {
        return Ok(Shown::default());
    };
    let mut shown = Shown {
        online: stored.online,
        last_seen_ms: stored.last_seen_ms,
    };
    let now_ms = app.clock.now_ms();
    app.change(|roster| {
        // Who was offline stays in the store alone.
        let change = stored.online.then(|| roster.restore(user, stored, now_ms)).flatten();
        shown = roster.shown(user).unwrap_or(shown);
        change
    });
    Ok(shown)
}

async fn may_see(app: &App, asker: UserId, user: UserId) -> bool {
    if asker == user {
        return true;
    }
    match &app.may_see {
        Some(may_see) => may_see(asker, user).await,
        None => false,
    }
}
