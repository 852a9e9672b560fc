//! kill -9 loses nothing that was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use antiphon_kv::{EmbeddedOptions, Kv, KvError, Txn};
use futures_util::future::try_join_all;
use tempfile::tempdir;

const FOLDER: &str = "ANTIPHON_KV_CRASH_FOLDER";
const ROUND: &str = "ANTIPHON_KV_CRASH_ROUND";
const ROUNDS: u64 = 8;
const COMMITTERS: u64 = 8;

#[test]
fn killed_process_loses_nothing_acknowledged() {
    let folder = tempdir().unwrap();
    let mut acknowledged: Vec<Vec<u64>> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = spawn(folder.path(), round);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (first, started) = mpsc::sync_channel(1);
        let reader = thread::spawn(move || {
            let mut numbers = Vec::new();
            for line in lines.map_while(Result::ok) {
                if let Some((_, number)) = line.split_once("acknowledged ") {
                    numbers.push(number.parse::<u64>().unwrap());
                    let _ = first.try_send(());
                }
            }
            numbers
        });
        started
            .recv_timeout(Duration::from_secs(30))
            .expect("the child commits");
        wait(Duration::from_micros(rand::random_range(0..300_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let numbers = reader.join().unwrap();
        println!("round {round}: {} acknowledged", numbers.len());
        acknowledged.push(numbers);
        judge(folder.path(), &acknowledged);
    }
}

fn spawn(folder: &Path, round: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "child_commits_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Each acknowledged commit of every round is there, whole and once.
#[tokio::main(flavor = "current_thread")]
async fn judge(folder: &Path, acknowledged: &[Vec<u64>]) {
    let kv = open(folder).await;
    for (round, numbers) in (0..).zip(acknowledged) {
        let read: Result<(), KvError> = kv.transact(|txn| judge_round(txn, round, numbers)).await;
        read.unwrap();
    }
    kv.close().await.unwrap();
}

async fn judge_round(txn: Txn, round: u64, numbers: &[u64]) -> Result<(), KvError> {
    for number in numbers {
        for part in ["a", "b"] {
            let value = txn.snapshot_get(&key(round, *number, part)).await?;
            assert_eq!(
                value.as_deref(),
                Some(&number.to_le_bytes()[..]),
                "{round}/{number}/{part} is lost"
            );
        }
    }
    let sum = txn.snapshot_get(format!("sum/{round}").as_bytes()).await?.unwrap();
    let sum = u64::from_le_bytes(sum[..].try_into().unwrap());
    let count = numbers.len() as u64;
    // Those that were under way may have happened.
    assert!(
        (count..=count + COMMITTERS).contains(&sum),
        "{sum} counted, {count} acknowledged"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_commits_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let round: u64 = env::var(ROUND).unwrap().parse().unwrap();
    let kv = open(&folder).await;
    let next = Arc::new(AtomicU64::new(0));
    let committers = (0..COMMITTERS).map(|_| {
        let (kv, next) = (kv.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let committed: Result<(), KvError> = kv
                    .transact(|txn| async move {
                        for part in ["a", "b"] {
                            txn.set(key(round, number, part), number.to_le_bytes().to_vec());
                        }
                        txn.add(format!("sum/{round}"), 1);
                        Ok(())
                    })
                    .await;
                committed.unwrap();
                writeln!(std::io::stdout(), "acknowledged {number}").unwrap();
            }
        })
    });
    let _: Vec<()> = try_join_all(committers).await.unwrap();
}

fn key(round: u64, number: u64, part: &str) -> Vec<u8> {
    format!("number/{round}/{number}/{part}").into_bytes()
}

async fn open(folder: &Path) -> Kv {
    let options = EmbeddedOptions {
        path: folder.to_owned(),
        ..EmbeddedOptions::default()
    };
    Kv::open_embedded(options).await.unwrap()
}

fn wait(time: Duration) {
    let (_sender, receiver) = mpsc::sync_channel::<()>(0);
    let _ = receiver.recv_timeout(time);
}
