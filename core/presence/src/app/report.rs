use antiphon_types::UserId;

use super::App;
use crate::{PresenceError, adapters::store, domain::Report};

/// Takes what an edge says of a session.
pub(crate) async fn report(app: &App, user: UserId, report: Report) -> Result<(), PresenceError> {
    let is_held = app.roster.lock().holds(user);
    let stored = if is_held {
        None
    } else {
        store::read(&app.slots, user).await?
    };
    let now_ms = app.clock.now_ms();
    app.change(|roster| {
        let restored = stored.and_then(|stored| roster.restore(user, stored, now_ms));
        let reported = match &report {
            // Who is not held has no session that could go.
            Report::Gone { .. } if !roster.holds(user) => None,
            Report::Gone { .. } | Report::Online { .. } => roster.report(user, report, now_ms),
        };
        restored.into_iter().chain(reported)
    });
    Ok(())
}
