use std::path::Path;

use axum::{Router, routing::get};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Runs until it is asked to end, or let go of.
const OBEDIENT: &str = "trap 'exit 0' TERM; echo listening; while :; do sleep 0.01; done";

struct Run {
    handle: RegionHandle,
    ends: CancellationToken,
    task: JoinHandle<Result<()>>,
    folder: tempfile::TempDir,
}

impl Run {
    /// A shell in the place of a region, and something that answers in its stead.
    async fn of(script: &str) -> Self {
        Self::with(script, Duration::from_millis(50), true).await
    }

    async fn with(script: &str, restart_wait_max: Duration, answers: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if answers {
            let router = Router::new().route("/readyz", get(|| async { "ready" }));
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        let care = Care {
            name: "north".to_owned(),
            launch: Launch {
                program: "/bin/sh".into(),
                arguments: vec!["-c".into(), script.into()],
                folder: folder.path().to_owned(),
                log_bytes_max: 1_000,
            },
            ready_url: format!("http://{address}/readyz"),
            restart_wait_max,
            drain_max: Duration::from_millis(300),
        };
        let (region, handle) = Region::new(care);
        let ends = CancellationToken::new();
        let task = tokio::spawn(region.run(ends.clone()));
        Self {
            handle,
            ends,
            task,
            folder,
        }
    }

    async fn until(&self, what: impl Fn(&RegionStatus) -> bool) -> RegionStatus {
        let mut status = self.handle.status.clone();
        let found = timeout(PATIENCE, status.wait_for(|status| what(status))).await;
        found
            .unwrap_or_else(|_| panic!("it stays {:?}", self.handle.status()))
            .unwrap()
            .clone()
    }

    /// Until the shell has set its traps.
    async fn listens(&self) {
        let log = self.folder.path().join("log");
        while !std::fs::read_to_string(&log).unwrap().contains("listening") {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> Result<()> {
        self.ends.cancel();
        timeout(PATIENCE, self.task).await.expect("it does not end").unwrap()
    }
}

fn kill9(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_region_that_is_killed_is_started_again() {
    let run = Run::of(OBEDIENT).await;
    let first = run.until(|status| status.state == RegionState::Ready).await;
    kill9(first.pid.unwrap());
    let second = run
        .until(|status| status.starts == 2 && status.state == RegionState::Ready)
        .await;
    assert_ne!(first.pid, second.pid);
    assert_eq!(second.last_end.as_deref(), Some("signal 9 (SIGKILL)"));
    run.end().await.unwrap();
    assert!(!runs(second.pid.unwrap()));
}

#[tokio::test]
async fn a_region_that_never_was_ready_and_ends_by_itself_is_given_up_with_its_last_words() {
    let run = Run::with("echo; echo no such setting; exit 1", Duration::from_millis(1), false).await;
    let error = timeout(PATIENCE, run.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("north") && error.contains("exit code 1") && error.ends_with("no such setting"),
        "{error}"
    );
    assert_eq!(run.handle.status.borrow().starts, FIRST_STARTS_MAX);
}

#[tokio::test]
async fn a_region_that_was_ready_once_is_never_given_up() {
    // It ends by itself as soon as it was seen ready.
    let run = Run::of("sleep 0.3; exit 1").await;
    run.until(|status| status.starts > FIRST_STARTS_MAX + 1).await;
    run.end().await.err();
}

#[tokio::test]
async fn a_region_that_does_not_drain_is_killed() {
    let run = Run::of("trap '' TERM; echo listening; while :; do sleep 0.01; done").await;
    let pid = run
        .until(|status| status.state == RegionState::Ready)
        .await
        .pid
        .unwrap();
    run.listens().await;
    let error = run.end().await.unwrap_err().to_string();
    assert!(error.contains("300 ms") && error.contains("killed"), "{error}");
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_frozen_region_says_so_goes_on_and_ends_when_the_world_does() {
    let run = Run::of(OBEDIENT).await;
    run.until(|status| status.state == RegionState::Ready).await;
    run.handle.act(Action::Stop, None).await.unwrap();
    assert_eq!(run.handle.status().state, RegionState::Frozen);
    run.handle.act(Action::Cont, None).await.unwrap();
    run.until(|status| status.state == RegionState::Ready).await;
    run.handle.act(Action::Stop, None).await.unwrap();
    run.end().await.unwrap();
}

#[tokio::test]
async fn a_restart_drains_first_and_needs_no_wait() {
    let run = Run::with(OBEDIENT, Duration::from_secs(3_600), true).await;
    run.until(|status| status.state == RegionState::Ready).await;
    run.listens().await;
    run.handle.act(Action::Restart, None).await.unwrap();
    let again = run
        .until(|status| status.starts == 2 && status.state == RegionState::Ready)
        .await;
    assert_eq!(again.last_end.as_deref(), Some("exit code 0"));
    run.end().await.unwrap();
}

#[tokio::test]
async fn a_region_stays_away_as_long_as_it_was_told_or_until_it_is_asked_for() {
    let run = Run::of(OBEDIENT).await;
    run.until(|status| status.state == RegionState::Ready).await;
    let forever = Some(Duration::from_secs(3_600));
    run.handle.act(Action::Kill, forever).await.unwrap();
    run.until(|status| status.state == RegionState::Waiting).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(run.handle.status().state, RegionState::Waiting);
    let error = run.handle.act(Action::Stop, None).await.unwrap_err().to_string();
    assert!(error.contains("north does not run"), "{error}");
    run.handle.act(Action::Restart, None).await.unwrap();
    run.until(|status| status.starts == 2).await;
    run.handle.act(Action::Kill, forever).await.unwrap();
    run.until(|status| status.state == RegionState::Waiting).await;
    run.end().await.unwrap();
}

#[test]
fn waits_are_drawn_from_nothing_to_a_doubling_limit_that_ends() {
    let wait_max = Duration::from_secs(10);
    for (failures, limit_ms) in [(1, 400), (2, 800), (4, 3_200), (6, 10_000), (u32::MAX, 10_000)] {
        let limit = Duration::from_millis(limit_ms);
        let drawn: Vec<Duration> = (0..200).map(|_| backoff(failures, wait_max)).collect();
        assert!(drawn.iter().all(|wait| *wait <= limit), "{failures}");
        assert!(drawn.iter().any(|wait| *wait > limit / 2), "{failures}");
        assert!(drawn.iter().any(|wait| *wait < limit / 2), "{failures}");
    }
}
