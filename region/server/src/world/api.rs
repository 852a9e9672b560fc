//! The admin port of a world, on the loopback address alone: what runs, the links, and the faults of drills.
//!
//! | | |
//! |---|---|
//! | `GET /world` | the regions, their processes, ports and state; of a region's further nodes under `nodes` |
//! | `GET /links` | every link, as it is now |
//! | `PUT /links/{from}/{to}` | changes what bytes from one region to the other meet: any of `delayMs`, `jitterMs`, `bitsPerS` (0: no limit) and `state` (`up`, `blackhole`, `reset`); what is not named stays |
//! | `POST /regions/{name}` | takes a region into the directory and starts it; answered when its process is about to start |
//! | `DELETE /regions/{name}` | ends a region that is in the directory no more |
//! | `POST /regions/{name}/{action}` | `kill` (SIGKILL), `stop` (SIGSTOP), `cont` (SIGCONT), `restart` (drain and start); `{"downMs": 30000}` keeps a region away for so long after `kill` and `restart` |
//!
//! The process of a region's first node is called as the region, that of a further one `NAME.NUMBER`: so in `{name}/{action}`.
//!
//! A refusal is a line of text.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use super::{
    link::{LinkChange, LinkError, LinkView, Links},
    members::Members,
    plan::{NodePlan, World},
    region::{Action, NotRunning, RegionHandle, RegionState},
};

/// A world as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorldView {
    pub(crate) base_port: u16,
    /// Whether every region is ready.
    pub(crate) ready: bool,
    /// As their first nodes are.
    pub(crate) regions: Vec<RegionView>,
    /// The further nodes of the regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<NodeView>,
}

/// A further node of a region as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    pub(crate) region: String,
    /// Names it among those of the region.
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) process: RegionView,
}

/// A region as it is now, or the process of one of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegionView {
    pub(crate) name: String,
    pub(crate) index: u16,
    pub(crate) state: RegionState,
    pub(crate) pid: Option<u32>,
    /// How often its process was started.
    pub(crate) starts: u32,
    /// How its process ended the last time.
    pub(crate) last_end: Option<String>,
    pub(crate) http_port: u16,
    pub(crate) admin_port: u16,
    pub(crate) rpc_port: u16,
    pub(crate) data: PathBuf,
}

/// How long a region stays away.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Down {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) down_ms: Option<u64>,
}

/// What the admin port speaks of.
#[derive(Clone)]
pub(crate) struct Shown {
    world: Arc<RwLock<World>>,
    data: Arc<PathBuf>,
    /// By name of the process.
    processes: Arc<RwLock<BTreeMap<String, RegionHandle>>>,
    pub(crate) links: Links,
    members: Members,
}

impl Shown {
    pub(crate) fn new(
        world: World,
        data: PathBuf,
        processes: BTreeMap<String, RegionHandle>,
        links: Links,
        members: Members,
    ) -> Self {
        Self {
            world: Arc::new(RwLock::new(world)),
            data: Arc::new(data),
            processes: Arc::new(RwLock::new(processes)),
            links,
            members,
        }
    }

    /// Who is in it now.
    pub(crate) fn world(&self) -> World {
        self.world.read().clone()
    }

    pub(crate) fn set_world(&self, world: World) {
        *self.world.write() = world;
    }

    pub(crate) fn handle(&self, process: &str) -> Option<RegionHandle> {
        self.processes.read().get(process).cloned()
    }

    pub(crate) fn insert(&self, process: &str, handle: RegionHandle) {
        self.processes.write().insert(process.to_owned(), handle);
    }

    pub(crate) fn remove(&self, process: &str) {
        self.processes.write().remove(process);
    }

    /// The regions, in the order of their indexes.
    pub(crate) fn view(&self) -> WorldView {
        let world = self.world();
        let mut view = WorldView {
            base_port: world.base_port,
            ready: true,
            regions: Vec::new(),
            nodes: Vec::new(),
        };
        for plan in world.regions.iter().flat_map(|region| world.nodes_of(region)) {
            let Some(process) = self.process(&plan) else {
                continue;
            };
            view.ready &= process.state == RegionState::Ready;
            if plan.is_first() {
                view.regions.push(process);
                continue;
            }
            let (region, node) = (plan.region, plan.node);
            view.nodes.push(NodeView { region, node, process });
        }
        view
    }

    fn process(&self, plan: &NodePlan) -> Option<RegionView> {
        let status = self.handle(&plan.name)?.status();
        Some(RegionView {
            name: plan.name.clone(),
            index: plan.index,
            state: status.state,
            pid: status.pid,
            starts: status.starts,
            last_end: status.last_end,
            http_port: plan.http_port,
            admin_port: plan.admin_port,
            rpc_port: plan.rpc_port,
            data: plan.folder(&self.data),
        })
    }
}

impl WorldView {
    /// Every process, each region's first node before its others.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &RegionView> {
        self.regions.iter().flat_map(|region| {
            let others = self.nodes.iter().filter(|node| node.region == region.name);
            std::iter::once(region).chain(others.map(|node| &node.process))
        })
    }
}

/// The running admin port.
pub(crate) struct Api {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Api {
    pub(crate) fn start(listener: TcpListener, shown: Shown) -> Self {
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/world", get(world))
            .route("/links", get(links))
            .route("/links/{from}/{to}", put(change_link))
            .route("/regions/{name}", post(add).delete(remove))
            .route("/regions/{name}/{action}", post(act))
            .with_state(shown);
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the world's admin port failed");
            }
        });
        Self { stop, task }
    }

    /// Stops. A connection that stays is cut.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if time::timeout(Duration::from_secs(1), self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Why nothing was done, for whoever typed it.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl From<LinkError> for Refused {
    fn from(error: LinkError) -> Self {
        let status = match error {
            LinkError::Unknown { .. } => StatusCode::NOT_FOUND,
            LinkError::TooLong { .. } => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<NotRunning> for Refused {
    fn from(error: NotRunning) -> Self {
        Self(StatusCode::CONFLICT, error.to_string())
    }
}

async fn world(State(shown): State<Shown>) -> Json<WorldView> {
    Json(shown.view())
}

async fn links(State(shown): State<Shown>) -> Json<Vec<LinkView>> {
    Json(shown.links.all())
}

async fn change_link(
    State(shown): State<Shown>,
    Path((from, to)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<LinkView>, Refused> {
    let change: LinkChange = parse(&body)?;
    let view = shown.links.change(&from, &to, change)?;
    tracing::info!(%from, %to, ?change, "the link is changed");
    Ok(Json(view))
}

async fn add(State(shown): State<Shown>, Path(name): Path<String>) -> Result<Json<serde_json::Value>, Refused> {
    shown.members.add(&name).await.map_err(conflict)?;
    Ok(Json(serde_json::json!({ "added": name })))
}

async fn remove(State(shown): State<Shown>, Path(name): Path<String>) -> Result<Json<serde_json::Value>, Refused> {
    shown.members.remove(&name).await.map_err(conflict)?;
    Ok(Json(serde_json::json!({ "removed": name })))
}

#[allow(clippy::needless_pass_by_value, reason = "taken by map_err")]
fn conflict(error: anyhow::Error) -> Refused {
    Refused(StatusCode::CONFLICT, format!("{error:#}"))
}

async fn act(
    State(shown): State<Shown>,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Refused> {
    let unknown = |why: String| Refused(StatusCode::NOT_FOUND, why);
    let Some(region) = shown.handle(&name) else {
        let world = shown.world();
        let nodes = world.regions.iter().flat_map(|region| world.nodes_of(region));
        let known = nodes.map(|node| node.name).collect::<Vec<_>>().join(", ");
        return Err(unknown(format!("there is no region {name}; the regions are {known}")));
    };
    let Ok(action) = serde_json::from_value::<Action>(action.clone().into()) else {
        return Err(unknown(format!(
            "nothing is called {action}; there are kill, stop, cont and restart"
        )));
    };
    let down: Down = parse(&body)?;
    region.act(action, down.down_ms.map(Duration::from_millis)).await?;
    Ok(Json(serde_json::json!({ "done": action })))
}

/// Reads a body whatever its `Content-Type` says: drills are typed by hand. An empty one names nothing.
fn parse<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refused> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}
