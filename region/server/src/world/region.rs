//! The life of one region: it is started, looked after, started again when it dies, and ended with the world.

use std::{cmp, os::unix::process::ExitStatusExt as _, time::Duration};

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::process::{Launch, Process, in_words};

/// The first wait before a start after a failure is drawn from 0 up to this.
const RESTART_WAIT_FIRST: Duration = Duration::from_millis(400);
/// After so long in good health a failure counts as the first.
const GOOD_HEALTH: Duration = Duration::from_secs(10);
/// A region that was never ready and ended so often by itself is set up wrongly.
const FIRST_STARTS_MAX: u32 = 3;
/// Between two looks at a region that is starting, and at one that runs.
const LOOK_STARTING: Duration = Duration::from_millis(50);
const LOOK_RUNNING: Duration = Duration::from_secs(1);
/// What a look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
const ORDERS_LEN_MAX: usize = 8;

/// What a region is started with and judged by.
pub(crate) struct Care {
    pub(crate) name: String,
    pub(crate) launch: Launch,
    /// Answers 200 when the region takes traffic.
    pub(crate) ready_url: String,
    pub(crate) restart_wait_max: Duration,
    /// How long after SIGTERM it is killed.
    pub(crate) drain_max: Duration,
}

/// How a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum RegionState {
    /// It runs and was not ready yet.
    Starting,
    Ready,
    /// It was ready and does not say so any more.
    NotReady,
    /// SIGSTOP was asked for.
    Frozen,
    /// It died and is about to be started again.
    Waiting,
    /// It ended with the world.
    Ended,
}

/// How a region is, and what became of it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionStatus {
    pub(crate) state: RegionState,
    pub(crate) pid: Option<u32>,
    pub(crate) starts: u32,
    /// How its process ended the last time.
    pub(crate) last_end: Option<String>,
    ready_since: Option<Instant>,
}

/// What can be done to a region, by the name of what does it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// SIGKILL; it is started again as after any death.
    Kill,
    /// SIGSTOP: it is there and does nothing.
    Stop,
    /// SIGCONT.
    Cont,
    /// SIGTERM, and a new start once it has drained.
    Restart,
}

/// A region that does not run can be restarted, and nothing else.
#[derive(Debug, thiserror::Error)]
#[error("the region {0} does not run; it is started again soon")]
pub(crate) struct NotRunning(String);

/// Speaks to a region. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RegionHandle {
    name: String,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<RegionStatus>,
}

struct Order {
    action: Action,
    down: Option<Duration>,
    answer: oneshot::Sender<bool>,
}

impl RegionHandle {
    pub(crate) fn status(&self) -> RegionStatus {
        self.status.borrow().clone()
    }

    /// Waits until its process is gone for good.
    pub(crate) async fn ended(&self) {
        let mut status = self.status.clone();
        // A region that is not run any more has ended too.
        let _ = status.wait_for(|status| status.state == RegionState::Ended).await;
    }

    /// Does something to the region's process; `down` is how long it stays away after [`Action::Kill`] or [`Action::Restart`].
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn act(&self, action: Action, down: Option<Duration>) -> Result<(), NotRunning> {
        let (answer, answered) = oneshot::channel();
        let order = Order { action, down, answer };
        let done = match self.orders.send(order).await {
            Ok(()) => answered.await.unwrap_or(false),
            Err(_) => false,
        };
        if done {
            Ok(())
        } else {
            Err(NotRunning(self.name.clone()))
        }
    }
}

/// A region to be run.
pub(crate) struct Region {
    care: Care,
    orders: mpsc::Receiver<Order>,
    status: watch::Sender<RegionStatus>,
    client: reqwest::Client,
}

enum End {
    /// The world ends.
    World(Result<()>),
    /// Its process ended; `wait` is how long it stays away if somebody said so.
    Died {
        how: String,
        by_itself: bool,
        wait: Option<Duration>,
    },
}

impl Region {
    pub(crate) fn new(care: Care) -> (Self, RegionHandle) {
        let (orders, taken) = mpsc::channel(ORDERS_LEN_MAX);
        let status = watch::Sender::new(RegionStatus {
            state: RegionState::Waiting,
            pid: None,
            starts: 0,
            last_end: None,
            ready_since: None,
        });
        let handle = RegionHandle {
            name: care.name.clone(),
            orders,
            status: status.subscribe(),
        };
        let region = Self {
            care,
            orders: taken,
            status,
            client: antiphon_client::http_client(None),
        };
        (region, handle)
    }

    /// Runs the region until the world ends.
    ///
    /// # Errors
    /// When it cannot be started at all, or did not end in order.
    pub(crate) async fn run(mut self, world_ends: CancellationToken) -> Result<()> {
        let mut failures = 0;
        let mut was_ready = false;
        loop {
            let end = match self.care.launch.spawn() {
                Ok(process) => self.live(process, &world_ends).await,
                Err(error) => End::Died {
                    how: format!("{error:#}"),
                    by_itself: true,
                    wait: None,
                },
            };
            let (how, by_itself, wait) = match end {
                End::World(ended) => {
                    self.status.send_modify(|status| {
                        status.state = RegionState::Ended;
                        status.pid = None;
                    });
                    return ended;
                }
                End::Died { how, by_itself, wait } => (how, by_itself, wait),
            };
            let ready_since = self.status.borrow().ready_since;
            was_ready |= ready_since.is_some();
            let healthy = ready_since.is_some_and(|since| since.elapsed() >= GOOD_HEALTH);
            failures = if healthy { 1 } else { failures + 1 };
            self.status.send_modify(|status| {
                status.state = RegionState::Waiting;
                status.pid = None;
                status.last_end = Some(how.clone());
            });
            if by_itself && !was_ready && failures >= FIRST_STARTS_MAX {
                bail!(
                    "the region {} cannot start: {}",
                    self.care.name,
                    self.with_last_words(&how)
                );
            }
            let wait = wait.unwrap_or_else(|| backoff(failures, self.care.restart_wait_max));
            let said = if by_itself { self.with_last_words(&how) } else { how };
            tracing::warn!(
                region = %self.care.name,
                "the region ended ({said}) and starts again in {} ms",
                wait.as_millis()
            );
            if !self.stay_away(wait, &world_ends).await {
                self.status.send_modify(|status| status.state = RegionState::Ended);
                return Ok(());
            }
        }
    }

    /// Until the process or the world ends.
    async fn live(&mut self, mut process: Process, world_ends: &CancellationToken) -> End {
        self.status.send_modify(|status| {
            status.state = RegionState::Starting;
            status.pid = process.pid();
            status.starts += 1;
            status.ready_since = None;
        });
        let mut looks = Box::pin(look_after(&self.care, &self.client, &self.status));
        let mut wait = None;
        let mut kill_at = None;
        loop {
            tokio::select! {
                ended = process.ended() => {
                    return End::Died {
                        by_itself: ended.as_ref().is_ok_and(|status| status.code().is_some()) && wait.is_none(),
                        how: ended.map_or_else(|error| error.to_string(), in_words),
                        wait,
                    };
                }
                () = world_ends.cancelled() => return End::World(drain(&self.care, process).await),
                Some(order) = self.orders.recv() => {
                    let done = match order.action {
                        Action::Kill => {
                            wait = order.down;
                            process.signal(Signal::KILL)
                        }
                        Action::Stop => process.signal(Signal::STOP),
                        Action::Cont => process.signal(Signal::CONT),
                        Action::Restart => {
                            wait = Some(order.down.unwrap_or_default());
                            kill_at = Some(Instant::now() + self.care.drain_max);
                            process.ask_to_end();
                            Ok(())
                        }
                    };
                    tracing::info!(region = %self.care.name, action = ?order.action, "asked for");
                    if done.is_ok() {
                        self.status.send_modify(|status| status.state = after(order.action, status.state));
                    }
                    let _ = order.answer.send(done.is_ok());
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    kill_at = None;
                    tracing::warn!(region = %self.care.name, "the region does not drain and is killed");
                    let _ = process.signal(Signal::KILL);
                }
                () = &mut looks => {}
            }
        }
    }

    /// False when the world ends meanwhile.
    async fn stay_away(&mut self, wait: Duration, world_ends: &CancellationToken) -> bool {
        let over = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(over) => return true,
                () = world_ends.cancelled() => return false,
                Some(order) = self.orders.recv() => {
                    let restarts = order.action == Action::Restart;
                    let _ = order.answer.send(restarts);
                    if restarts {
                        return true;
                    }
                }
            }
        }
    }

    fn with_last_words(&self, how: &str) -> String {
        match self.care.launch.last_words() {
            Some(words) => format!(
                "{how}; the last line of {} is: {words}",
                self.care.launch.log_path().display()
            ),
            None => how.to_owned(),
        }
    }
}

/// Asks for the end and waits for it.
async fn drain(care: &Care, mut process: Process) -> Result<()> {
    process.ask_to_end();
    let Ok(ended) = timeout(care.drain_max, process.ended()).await else {
        let _ = process.signal(Signal::KILL);
        let _ = process.ended().await;
        bail!(
            "the region {} had not drained {} ms after SIGTERM and was killed",
            care.name,
            care.drain_max.as_millis()
        );
    };
    let ended = ended?;
    // A process that has not come as far as to listen to signals ends by the one it was sent.
    if !ended.success() && ended.signal() != Some(Signal::TERM.as_raw()) {
        bail!("the region {} did not end in order: {}", care.name, in_words(ended));
    }
    Ok(())
}

/// Asks whether the region is ready, and bounds its log; never ends.
async fn look_after(care: &Care, client: &reqwest::Client, status: &watch::Sender<RegionStatus>) {
    loop {
        let answer = client.get(&care.ready_url).timeout(LOOK_PATIENCE).send().await;
        let ready = answer.is_ok_and(|answer| answer.status().is_success());
        status.send_if_modified(|status| {
            let state = seen(status.state, ready);
            if state == RegionState::Ready && status.ready_since.is_none() {
                status.ready_since = Some(Instant::now());
            }
            let changed = state != status.state;
            status.state = state;
            changed
        });
        if let Err(error) = care.launch.bound_log().await {
            tracing::warn!(region = %care.name, %error, "the log cannot be put aside");
        }
        let running = status.borrow().ready_since.is_some();
        sleep(if running { LOOK_RUNNING } else { LOOK_STARTING }).await;
    }
}

fn seen(state: RegionState, ready: bool) -> RegionState {
    match state {
        RegionState::Frozen | RegionState::Waiting | RegionState::Ended => state,
        RegionState::Starting | RegionState::Ready | RegionState::NotReady if ready => RegionState::Ready,
        RegionState::Starting => RegionState::Starting,
        RegionState::Ready | RegionState::NotReady => RegionState::NotReady,
    }
}

fn after(action: Action, state: RegionState) -> RegionState {
    match action {
        Action::Stop => RegionState::Frozen,
        Action::Cont if state != RegionState::Frozen => state,
        Action::Cont | Action::Kill | Action::Restart => RegionState::NotReady,
    }
}

/// Full jitter: regions that died of one cause do not come back at one moment.
fn backoff(failures: u32, wait_max: Duration) -> Duration {
    let doubled = RESTART_WAIT_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    cmp::min(doubled, wait_max).mul_f64(rand::random())
}

#[cfg(test)]
mod tests;
