use std::sync::Arc;

use antiphon_feed::Topics;
use antiphon_proto::rpc::{
    PresenceQueryRequest, PresenceQueryResponse, PresenceReport, PresenceReported,
    presence_server::{Presence, PresenceServer},
};
use antiphon_slot::Slots;
use antiphon_types::{Clock, UserId};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    MaySee, PresenceError, PresenceOptions,
    app::{self, App},
    domain::Report,
    roster::Roster,
};

/// The service `rpc.v1.Presence`. Cheap to clone.
#[derive(Clone)]
pub struct PresenceService {
    app: Arc<App>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl PresenceService {
    /// Starts the service over the slots of this node, within a runtime. Changes go to `topics`, the home's feed. `may_see` says
    /// who may see whom; without it all see nobody but themselves.
    #[must_use]
    pub fn start(
        slots: Slots,
        topics: Arc<Topics>,
        clock: Clock,
        options: PresenceOptions,
        may_see: Option<MaySee>,
    ) -> Self {
        let roster = Mutex::new(Roster::new(options.clone(), clock.now_ms()));
        let app = Arc::new(App {
            slots,
            topics,
            clock,
            options,
            may_see,
            roster,
        });
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(app::keep(app.clone(), closing.clone()));
        Self { app, tasks, closing }
    }

    /// The tonic server.
    #[must_use]
    pub fn into_server(self) -> PresenceServer<Self> {
        PresenceServer::new(self)
    }

    /// Writes down what is not written yet, in bounded time, and ends the task. To be called before the slots close.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[tonic::async_trait]
impl Presence for PresenceService {
    #[tracing::instrument(name = "presence.report", level = "debug", skip_all)]
    async fn report(&self, request: Request<PresenceReport>) -> Result<Response<PresenceReported>, Status> {
        let request = request.into_inner();
        let user = user("userId", &request.user_id)?;
        let report = if request.online {
            Report::online(request.session_id, request.edge, request.device_id)
        } else {
            Report::gone(request.session_id)
        };
        let report = report.map_err(refused)?;
        app::report(&self.app, user, report).await.map_err(refused)?;
        Ok(Response::new(PresenceReported {}))
    }

    #[tracing::instrument(name = "presence.query", level = "debug", skip_all)]
    async fn query(&self, request: Request<PresenceQueryRequest>) -> Result<Response<PresenceQueryResponse>, Status> {
        let request = request.into_inner();
        let (asker, user) = (user("askerId", &request.asker_id)?, user("userId", &request.user_id)?);
        let shown = app::query(&self.app, asker, user).await.map_err(refused)?;
        Ok(Response::new(PresenceQueryResponse {
            online: shown.online,
            last_seen_ms: shown.last_seen_ms,
        }))
    }
}

fn refused(error: impl Into<PresenceError>) -> Status {
    let error = error.into();
    metrics::counter!("antiphon_rejections_total", "code" => error.code().as_str()).increment(1);
    error.to_status()
}

fn user(field: &'static str, bytes: &[u8]) -> Result<UserId, Status> {
    UserId::from_bytes(bytes).map_err(|reason| refused(PresenceError::Id { field, reason }))
}
