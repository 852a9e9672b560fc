//! The operator's part of the admin port: `/directory`. For whoever may reach that port; it belongs on a private network.

use std::sync::{Arc, OnceLock};

use antiphon_directory::{
    Directory, DirectoryError,
    domain::{Addresses, Command, RegionId, RegionStatus, State, plan_rebalance},
};
use antiphon_types::Slot;
use axum::{
    Json, Router,
    extract::{Path, Query, State as Shared},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    policy::{PolicyChange, PolicyView},
    view::{SlotView, View},
};

/// Slots that a rebalance has under way at once.
const REBALANCED_AT_ONCE: usize = 256;

/// The node's directory, once there is one.
pub(crate) type DirectoryCell = Arc<OnceLock<Directory>>;

/// Which slots are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shown {
    /// Of this home alone.
    home: Option<String>,
}

/// Whose homes are given away.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FailOver {
    /// All slots that are homed in this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// These slots.
    #[serde(default)]
    pub(crate) slots: Vec<u16>,
    /// To this region; without it each slot to an in-sync region that the rules choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Though `to` is not in sync: slots that only regions which are down are in sync with, with what it holds of them.
    #[serde(default)]
    pub(crate) accept_loss: bool,
}

/// What a command has brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Done {
    /// Slots that are other than before.
    pub(crate) slots: usize,
    /// Why others are not: slot and reason.
    pub(crate) refused: Vec<(u16, String)>,
}

/// How a region is reached that is to be taken in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reached {
    rpc: String,
    edge: String,
}

/// How a region is reached otherwise than before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReachedNow {
    rpc: Option<String>,
    edge: Option<String>,
}

/// What the directory calls a region from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Added {
    pub(crate) id: u64,
}

/// The routes.
pub(crate) fn routes(directory: DirectoryCell) -> Router {
    Router::new()
        .route("/directory", get(show))
        .route("/directory/slots", get(slots))
        .route("/directory/regions/{name}", post(add).delete(remove))
        .route("/directory/policy", get(policy).patch(change_policy))
        .route("/directory/regions/{name}/addresses", patch(change_addresses))
        .route("/directory/regions/{name}/drain", post(drain))
        .route("/directory/regions/{name}/undrain", post(undrain))
        .route("/directory/failover", post(fail_over))
        .route("/directory/rebalance", post(rebalance))
        .with_state(directory)
}

async fn show(Shared(directory): Shared<DirectoryCell>) -> Result<Json<View>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    Ok(Json(View::of(&state, &directory.status())))
}

async fn slots(
    Shared(directory): Shared<DirectoryCell>,
    Query(shown): Query<Shown>,
) -> Result<Json<Vec<SlotView>>, Refused> {
    let state = of(&directory)?.state_linearizable().await?;
    let home = match &shown.home {
        Some(name) => Some(region(&state, name)?),
        None => None,
    };
    let slots = state
        .slots()
        .filter(|(_, placement)| home.is_none_or(|home| placement.home == home));
    Ok(Json(
        slots
            .map(|(slot, placement)| SlotView::of(&state, slot, placement))
            .collect(),
    ))
}

async fn add(
    Shared(directory): Shared<DirectoryCell>,
    Path(name): Path<String>,
    Json(reached): Json<Reached>,
) -> Result<Json<Added>, Refused> {
    let addresses = Addresses {
        rpc: reached.rpc,
        edge: reached.edge,
    };
    let id = of(&directory)?.add_region(&name, &addresses).await?;
    Ok(Json(Added { id: id.0 }))
}

async fn change_addresses(
    Shared(directory): Shared<DirectoryCell>,
    Path(name): Path<String>,
    Json(reached): Json<ReachedNow>,
) -> Result<Json<Done>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let region = region(&state, &name)?;
    let mut addresses = state
        .regions
        .get(&region)
        .map(|found| found.addresses.clone())
        .unwrap_or_default();
    addresses.rpc = reached.rpc.unwrap_or(addresses.rpc);
    addresses.edge = reached.edge.unwrap_or(addresses.edge);
    propose(directory, Command::SetAddresses { region, addresses }).await
}

async fn policy(Shared(directory): Shared<DirectoryCell>) -> Result<Json<PolicyView>, Refused> {
    let state = of(&directory)?.state_linearizable().await?;
    Ok(Json(PolicyView::of(&state.policy)))
}

async fn change_policy(
    Shared(directory): Shared<DirectoryCell>,
    Json(change): Json<PolicyChange>,
) -> Result<Json<Done>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let policy = change.of(&state).map_err(|unknown| no_region(&state, &unknown))?;
    propose(directory, Command::SetPolicy { policy }).await
}

async fn remove(Shared(directory): Shared<DirectoryCell>, Path(name): Path<String>) -> Result<Json<Added>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let region = region(&state, &name)?;
    directory.remove_region(region).await?;
    Ok(Json(Added { id: region.0 }))
}

async fn drain(directory: Shared<DirectoryCell>, name: Path<String>) -> Result<Json<Done>, Refused> {
    set_status(directory, name, RegionStatus::Draining).await
}

async fn undrain(directory: Shared<DirectoryCell>, name: Path<String>) -> Result<Json<Done>, Refused> {
    set_status(directory, name, RegionStatus::Active).await
}

async fn set_status(
    Shared(directory): Shared<DirectoryCell>,
    Path(name): Path<String>,
    status: RegionStatus,
) -> Result<Json<Done>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let region = region(&state, &name)?;
    if state.is(region, RegionStatus::Down) {
        let message = format!("region {name} is down; it becomes active by itself when it returns");
        return Err(Refused(StatusCode::CONFLICT, message));
    }
    propose(directory, Command::SetStatus { region, status }).await
}

async fn fail_over(
    Shared(directory): Shared<DirectoryCell>,
    Json(asked): Json<FailOver>,
) -> Result<Json<Done>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let mut slots: Vec<Slot> = asked
        .slots
        .iter()
        .map(|number| Slot::new(*number).ok_or_else(|| bad(format!("there is no slot {number}; they are 0 to 4095"))))
        .collect::<Result<_, _>>()?;
    if let Some(name) = &asked.region {
        let home = region(&state, name)?;
        let homed = state.slots().filter(|(_, placement)| placement.home == home);
        slots.extend(homed.map(|(slot, _)| slot));
    }
    let to = match &asked.to {
        Some(name) => Some(region(&state, name)?),
        None => None,
    };
    let command = match (asked.accept_loss, to) {
        (false, to) => Command::FailOver { slots, to },
        (true, Some(to)) => Command::ForceHome { slots, to },
        (true, None) => return Err(bad("who accepts a loss says which region takes over (to)".to_owned())),
    };
    propose(directory, command).await
}

async fn rebalance(Shared(directory): Shared<DirectoryCell>) -> Result<Json<Done>, Refused> {
    let directory = of(&directory)?;
    let state = directory.state_linearizable().await?;
    let mut done = Done {
        slots: 0,
        refused: Vec::new(),
    };
    for command in plan_rebalance(&state, REBALANCED_AT_ONCE) {
        let Json(part) = propose(directory, command).await?;
        done.slots += part.slots;
        done.refused.extend(part.refused);
    }
    Ok(Json(done))
}

async fn propose(directory: &Directory, command: Command) -> Result<Json<Done>, Refused> {
    let applied = directory.propose(command).await?;
    let refused = applied.refused.into_iter();
    Ok(Json(Done {
        slots: applied.slots_changed,
        refused: refused.map(|(slot, why)| (slot.number(), why.to_string())).collect(),
    }))
}

fn of(directory: &DirectoryCell) -> Result<&Directory, Refused> {
    directory.get().ok_or_else(|| {
        let message = "this node is not part of several regions: there is no directory".to_owned();
        Refused(StatusCode::NOT_FOUND, message)
    })
}

fn region(state: &State, name: &str) -> Result<RegionId, Refused> {
    let found = state.regions.iter().find(|(_, region)| region.name == name);
    found.map(|(id, _)| *id).ok_or_else(|| no_region(state, name))
}

fn no_region(state: &State, name: &str) -> Refused {
    let names: Vec<&str> = state.regions.values().map(|region| region.name.as_str()).collect();
    let message = format!("there is no region {name}; there are {}", names.join(", "));
    Refused(StatusCode::NOT_FOUND, message)
}

fn bad(message: String) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message)
}

/// A refusal, as `{"error": …}`.
struct Refused(StatusCode, String);

impl From<DirectoryError> for Refused {
    fn from(error: DirectoryError) -> Self {
        let status = if error.is_retryable() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::CONFLICT
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
