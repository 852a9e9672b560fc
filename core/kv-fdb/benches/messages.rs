//! Durable messages a second through the slots' group commit, on the embedded engine and on one FoundationDB server, side by side; and
//! the yardstick: plain transactions of 64 messages, with nobody in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

#[path = "../../../tests/support/fdb.rs"]
mod fdb;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_kv::{EmbeddedOptions, Kv, KvError};
use antiphon_kv_fdb::{ClientOptions, FdbOptions};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{Slot, kind};
use bytes::Bytes;
use fdb::{Cluster, Programs};
use foundationdb_tuple::pack;
use futures_util::join;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::task::JoinSet;

const TEXT_BYTES: usize = 256;
/// Sends of each slot that wait at once.
const WAITING: usize = 64;
const LASTS: Duration = Duration::from_secs(5);
const BUSY_SLOTS: [u16; 3] = [1, 16, 256];

fn main() {
    let Some(programs) = Programs::find() else {
        println!("skipped: there is no fdbserver (ANTIPHON_FDB_BIN names the folder that has it)");
        return;
    };
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = Cluster::start(programs, 1, "single ssd");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!(
            "{:9} {:>5} {:>22} {:>11} {:>10} {:>10} {:>10} {:>15}",
            "engine", "slots", "", "messages/s", "per commit", "half ms", "99 % ms", "conflicts/1000"
        );
        let folder = tempfile::tempdir().unwrap();
        let embedded = EmbeddedOptions {
            path: folder.path().join("store"),
            ..EmbeddedOptions::default()
        };
        let engines = [
            Kv::open_embedded(embedded).await.unwrap(),
            antiphon_kv_fdb::open(options(&cluster)).await.unwrap(),
        ];
        for slots in BUSY_SLOTS {
            for kv in &engines {
                measure(kv, &snapshotter, slots, "transactions of 64", transactions(kv, slots)).await;
                measure(kv, &snapshotter, slots, "slots", through_slots(kv, slots)).await;
            }
        }
        measure(
            &engines[0],
            &snapshotter,
            1,
            "slots, one by one",
            one_by_one(&engines[0]),
        )
        .await;
        measure(
            &engines[1],
            &snapshotter,
            1,
            "slots, one by one",
            one_by_one(&engines[1]),
        )
        .await;
        for kv in engines {
            kv.close().await.unwrap();
        }
    });
    drop(runtime);
    antiphon_kv_fdb::stop();
}

fn options(cluster: &Cluster) -> FdbOptions {
    FdbOptions {
        cluster_file: Some(cluster.cluster_file()),
        prefix: vec!["bench".to_owned(), "messages".to_owned()],
        step_timeout: Duration::from_secs(5),
        watches_max: 10,
        client: ClientOptions::default(),
    }
}

/// Runs one load and prints its line: what it returns is how many messages were durable.
async fn measure(kv: &Kv, snapshotter: &Snapshotter, slots: u16, what: &str, load: impl Future<Output = u64>) {
    drop(snapshotter.snapshot());
    let began = Instant::now();
    let messages = load.await;
    let took = began.elapsed().as_secs_f64();
    let (mut commits, mut conflicts) = (Vec::new(), 0);
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        match (key.key().name(), value) {
            ("antiphon_kv_commit_seconds", DebugValue::Histogram(seconds)) => {
                commits.extend(seconds.into_iter().map(|seconds| seconds.into_inner() * 1_000.0));
            }
            ("antiphon_kv_conflicts_total", DebugValue::Counter(count)) => conflicts += count,
            _ => {}
        }
    }
    commits.sort_by(f64::total_cmp);
    let within = |percent: usize| commits.get(commits.len() * percent / 100).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let (per_s, per_commit, conflicts) = (
        messages as f64 / took,
        messages as f64 / commits.len().max(1) as f64,
        conflicts as f64 * 1_000.0 / commits.len().max(1) as f64,
    );
    println!(
        "{:9} {slots:>5} {what:>22} {per_s:>11.0} {per_commit:>10.1} {:>10.2} {:>10.2} {conflicts:>15.2}",
        kv.engine(),
        within(50),
        within(99),
    );
}

/// Slots that no other load uses.
fn fresh(count: u16) -> Vec<Slot> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = NEXT.fetch_add(count.into(), Ordering::Relaxed);
    (first..)
        .take(count.into())
        .map(|number| Slot::new(u16::try_from(number % 4_096).unwrap()).unwrap())
        .collect()
}

/// What a message writes besides the log: tail, message, idempotency key.
fn writes(slot: Slot, seq: u64, client_msg_id: u64) -> [(Bytes, Bytes); 3] {
    let slot = slot.number();
    [
        (
            pack(&(slot, kind::TAIL, "talk")).into(),
            Bytes::copy_from_slice(&seq.to_be_bytes()),
        ),
        (
            pack(&(slot, kind::MESSAGE, "talk", seq)).into(),
            vec![7; TEXT_BYTES].into(),
        ),
        (
            idempotency_key(slot, client_msg_id),
            Bytes::copy_from_slice(&seq.to_be_bytes()),
        ),
    ]
}

fn idempotency_key(slot: u16, client_msg_id: u64) -> Bytes {
    pack(&(slot, kind::IDEMPOTENCY, "talk", "sender", client_msg_id)).into()
}

async fn transactions(kv: &Kv, count: u16) -> u64 {
    let until = Instant::now() + LASTS;
    let mut tasks = JoinSet::new();
    for slot in fresh(count) {
        let kv = kv.clone();
        tasks.spawn(async move {
            let mut seq = 0;
            while Instant::now() < until {
                let first = seq;
                let committed = kv.transact(|txn| async move {
                    let header = pack(&(slot.number(), kind::HEADER));
                    txn.get(&header).await?;
                    for seq in first..first + WAITING as u64 {
                        for (key, value) in writes(slot, seq, seq) {
                            txn.set(key, value);
                        }
                    }
                    txn.set(header, first.to_be_bytes().to_vec());
                    txn.set(pack(&(slot.number(), kind::LOG, first)), vec![7; WAITING * TEXT_BYTES]);
                    Ok::<_, KvError>(())
                });
                committed.await.unwrap();
                seq += WAITING as u64;
            }
            seq
        });
    }
    tasks.join_all().await.into_iter().sum()
}

async fn through_slots(kv: &Kv, count: u16) -> u64 {
    let until = Instant::now() + LASTS;
    send(kv, count, WAITING, until).await
}

async fn one_by_one(kv: &Kv) -> u64 {
    send(kv, 1, 1, Instant::now() + LASTS).await
}

async fn send(kv: &Kv, count: u16, waiting: usize, until: Instant) -> u64 {
    let slots = Slots::start(kv.clone(), SlotOptions::default(), rand::random(), Hooks::default());
    let ended = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for slot in fresh(count) {
        slots.grant(slot, 1, InSync::alone());
        for _ in 0..waiting {
            let (slots, ended) = (slots.clone(), ended.clone());
            tasks.spawn(async move {
                let mut sent = 0;
                while !ended.load(Ordering::Relaxed) && Instant::now() < until {
                    let client_msg_id = rand::random();
                    let written = slots.write(slot, move |txn: SlotTxn| async move {
                        let (tail, sent_before) = (
                            pack(&(slot.number(), kind::TAIL, "talk")),
                            idempotency_key(slot.number(), client_msg_id),
                        );
                        let (tail, sent_before) = join!(txn.get(&tail), txn.get(&sent_before));
                        assert!(sent_before?.is_none());
                        let last = tail?.map_or(0, |tail| u64::from_be_bytes(tail.as_ref().try_into().unwrap()));
                        let [tail, message, idempotency] = writes(slot, last + 1, client_msg_id);
                        for (key, value) in [tail, message, idempotency] {
                            txn.set(key, value);
                        }
                        Ok::<_, SlotError>(())
                    });
                    written.await.unwrap();
                    sent += 1;
                }
                sent
            });
        }
    }
    let sent = tasks.join_all().await.into_iter().sum();
    slots.close().await;
    sent
}
