use std::{future::Future, sync::Arc};

use antiphon_proto::log::StoredPresence;
use antiphon_slot::SlotError;
use antiphon_types::UserId;
use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::App;
use crate::adapters::store;

/// Users that are settled under one lock.
const SETTLE_LEN_MAX: usize = 4_096;

/// Keeps time: lets expire what was not reported again, and writes down what has changed, until `closing`.
pub(crate) async fn keep(app: Arc<App>, closing: CancellationToken) {
    let mut ticks = time::interval(app.options.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            _ = ticks.tick() => settle(&app).await,
            Some(()) = writes.next() => {}
        }
        let room = app.options.writes_concurrent_max.saturating_sub(writes.len());
        let due = app.roster.lock().take_writes(app.clock.now_ms(), room);
        writes.extend(due.into_iter().map(|record| write(&app, record)));
    }
    let rest = async {
        while writes.next().await.is_some() {}
        write_all(&app).await;
    };
    if time::timeout(app.options.close_timeout, rest).await.is_err() {
        warn!(timeout = ?app.options.close_timeout, "presence was not written down in time; edges report it again");
    }
}

async fn settle(app: &App) {
    let now_ms = app.clock.now_ms();
    while !app.roster.lock().is_settled(now_ms) {
        app.change(|roster| roster.settle(now_ms, SETTLE_LEN_MAX));
        tokio::task::yield_now().await;
    }
    #[allow(clippy::cast_precision_loss, reason = "a count of users")]
    metrics::gauge!("antiphon_presence_users").set(app.roster.lock().len() as f64);
}

async fn write_all(app: &Arc<App>) {
    let rest = app.roster.lock().take_all_writes(app.clock.now_ms());
    let writes = stream::iter(rest).map(|record| write(app, record));
    writes
        .buffer_unordered(app.options.writes_concurrent_max.max(1))
        .collect::<()>()
        .await;
}

/// Writes one record. What cannot be written now is tried again later; nobody waits for it.
fn write(app: &Arc<App>, (user, record): (UserId, StoredPresence)) -> impl Future<Output = ()> + Send + use<> {
    let app = app.clone();
    async move {
        let written = store::write(&app.slots, user, record).await;
        if matches!(&written, Err(SlotError::NotHome { .. })) {
            debug!(%user, "presence is kept elsewhere now");
            app.roster.lock().forget(user);
            return;
        }
        if let Err(error) = &written {
            warn!(%user, %error, "presence could not be written down yet");
        }
        let now_ms = app.clock.now_ms();
        app.change(|roster| roster.written(user, written.is_ok(), now_ms));
    }
}
