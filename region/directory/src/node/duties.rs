//! What the leader does besides answering: it declares regions down and up by their leases, has homes moved as the planner says, and
//! brings the voters after the state.

use std::{sync::Arc, time::Duration};

use openraft::{ServerState, async_runtime::watch::WatchReceiver as _};

use super::{Shared, ask::Attempt, voters::VoterChange};
use crate::domain::{Command, RegionId, RegionStatus, State, plan};

/// How long the leader waits after something that did not go through.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Leads whenever this node is the leader, until the node is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut metrics = shared.raft.metrics();
    loop {
        if let Some(term) = leading(&shared) {
            shared
                .grants
                .begin(term, shared.terms, &shared.state(), shared.now_ms());
            tokio::select! {
                () = shared.closing.cancelled() => {}
                () = until(&shared, |now| now != Some(term)) => {}
                () = watch_clock(&shared) => {}
                () = watch_leases(&shared) => {}
                () = follow_state(&shared) => {}
            }
            shared.grants.end();
        }
        tokio::select! {
            () = shared.closing.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

/// The term in which this node leads.
fn leading(shared: &Shared) -> Option<u64> {
    let metrics = shared.raft.metrics();
    let metrics = metrics.borrow_watched();
    (metrics.state == ServerState::Leader).then_some(metrics.current_term)
}

async fn until(shared: &Shared, reached: impl Fn(Option<u64>) -> bool) {
    let mut metrics = shared.raft.metrics();
    while !reached(leading(shared)) && metrics.changed().await.is_ok() {}
}

async fn watch_clock(shared: &Shared) {
    loop {
        tokio::time::sleep(shared.options.lease.renewal() / 4).await;
        shared.grants.look(shared.now_ms());
    }
}

/// Declares down whose lease is over, and active who is back.
async fn watch_leases(shared: &Shared) {
    let look_every = shared.options.lease.renewal() / 4;
    loop {
        tokio::time::sleep(look_every).await;
        for region in shared.grants.condemn(&shared.state(), shared.now_ms()) {
            tracing::warn!(region = region.0, "a region's lease is over; it is declared down");
            match set_status(shared, region, RegionStatus::Down).await {
                Err(Attempt::Final(error)) => {
                    tracing::warn!(region = region.0, %error, "a silent region stays up");
                    shared.grants.stays_up(region, shared.now_ms());
                }
                // Either the state shows it, or it may yet come into effect, and is tried again until it has.
                Ok(()) | Err(Attempt::NotLed(_) | Attempt::Unknown) => {}
            }
        }
        for region in shared.grants.back(&shared.state()) {
            tracing::info!(region = region.0, "a region is back");
            let state = shared.state();
            let drains = state.regions.get(&region).is_some_and(|found| found.was_draining);
            let status = if drains {
                RegionStatus::Draining
            } else {
                RegionStatus::Active
            };
            // Otherwise it asks again.
            if let Err(error) = set_status(shared, region, status).await {
                tracing::info!(region = region.0, ?error, "a region that is back is not up yet");
            }
        }
    }
}

async fn set_status(shared: &Shared, region: RegionId, status: RegionStatus) -> Result<(), Attempt> {
    let command = Command::SetStatus { region, status };
    let proposed = shared.propose_here(command);
    let done = tokio::time::timeout(shared.request_timeout(), proposed).await;
    match done.unwrap_or(Err(Attempt::Unknown))? {
        Ok(_) => Ok(()),
        Err(rejection) => Err(Attempt::Final(rejection.into())),
    }
}

/// Each time the state has changed: asks homes to move, and takes the votes of regions that are gone.
async fn follow_state(shared: &Shared) {
    let mut images = shared.images.clone();
    loop {
        let state = images.borrow_and_update().state.clone();
        let planned = carry_out_plan(shared, &state).await;
        let reconciled = reconcile_voters(shared, &state).await;
        if planned.is_err() || reconciled.is_err() {
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        }
        let newer = images.wait_for(|image| image.state.version != state.version);
        if newer.await.is_err() {
            return;
        }
    }
}

async fn carry_out_plan(shared: &Shared, state: &State) -> Result<(), Attempt> {
    for command in plan(state) {
        let proposed = tokio::time::timeout(shared.request_timeout(), shared.propose_here(command));
        if let Err(rejection) = proposed.await.unwrap_or(Err(Attempt::Unknown))? {
            // The state has moved on, and the next look is at the newer one.
            tracing::info!(%rejection, "a planned move is refused");
        }
    }
    Ok(())
}

async fn reconcile_voters(shared: &Shared, state: &State) -> Result<(), Attempt> {
    if state.deployment.is_empty() {
        return Ok(());
    }
    let membership = shared.membership();
    let gone = membership
        .nodes()
        .map(|(id, _)| RegionId(*id))
        .filter(|id| !state.regions.contains_key(id));
    let change = VoterChange {
        add: [].into(),
        remove: gone.collect(),
    };
    if change.remove.is_empty() && membership.get_joint_config().len() < 2 {
        return Ok(());
    }
    let changed = tokio::time::timeout(shared.request_timeout(), shared.change_voters_here(&change));
    let changed = changed.await.unwrap_or(Err(Attempt::Unknown));
    changed.map(drop)
}
