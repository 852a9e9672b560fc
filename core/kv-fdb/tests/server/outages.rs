use std::{sync::Arc, time::Duration};

use antiphon_kv::{Kv, KvError};
use foundationdb::{Database, options::TransactionOption};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    blocking, cluster,
    contract::{get, open, set},
    fdb::{Cluster, Programs},
    load::Load,
};

/// Within this a store says that its cluster does not answer: as long as it is tried, one step more, and some for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the store's health is as expected.
async fn until_healthy(kv: &Kv, expected: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = kv.health().await;
        if health.is_ok() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "the store says {health:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn on(cluster: &Arc<Cluster>, work: impl FnOnce(&Cluster) + Send + 'static) {
    let cluster = cluster.clone();
    blocking(move || work(&cluster)).await;
}

async fn is_refused_in_time(kv: &Kv) {
    let began = Instant::now();
    let refused = set(kv, "refused", "value").await.unwrap_err();
    assert!(began.elapsed() < TOLD_WITHIN, "told after {:?}", began.elapsed());
    assert!(refused.is_unavailable(), "{refused:?}");
}

pub(crate) async fn a_cluster_that_stands_still_is_unavailable_and_comes_back(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let kv = open(&cluster, "stopped").await;
    set(&kv, "before", "value").await.unwrap();
    let watch = kv.watch(b"watched").await.unwrap();
    on(&cluster, |cluster| cluster.signal_all("STOP")).await;
    is_refused_in_time(&kv).await;
    until_healthy(&kv, false).await;
    assert!(matches!(kv.health().await, Err(KvError::Unavailable(_))));
    // From now on at once.
    let began = Instant::now();
    is_refused_in_time(&kv).await;
    assert!(began.elapsed() < TOLD_WITHIN / 2, "told after {:?}", began.elapsed());
    on(&cluster, |cluster| cluster.signal_all("CONT")).await;
    until_healthy(&kv, true).await;
    assert_eq!(get(&kv, "before").await.unwrap().unwrap(), "value");
    set(&kv, "watched", "value").await.unwrap();
    timeout(PATIENCE, watch.changed())
        .await
        .expect("the watch is lost")
        .unwrap();
    kv.close().await.unwrap();
}

pub(crate) async fn a_killed_cluster_has_all_that_was_acknowledged(programs: Programs) {
    let cluster = cluster(programs, 1, "single ssd").await;
    let kv = open(&cluster, "killed").await;
    let watch = kv.watch(b"load/0").await.unwrap();
    let load = Load::start(&kv);
    timeout(PATIENCE, watch.changed())
        .await
        .expect("nothing is written")
        .unwrap();
    for _ in 0..3 {
        load.goes_on(100).await;
        let watch = kv.watch(b"watched").await.unwrap();
        on(&cluster, |cluster| {
            cluster.kill(0);
            cluster.start_again(0);
        })
        .await;
        load.goes_on(100).await;
        set(&kv, "watched", &format!("{:?}", Instant::now())).await.unwrap();
        timeout(PATIENCE, watch.changed())
            .await
            .expect("the watch is lost")
            .unwrap();
    }
    assert!(load.check().await >= 600);
    kv.close().await.unwrap();
}

pub(crate) async fn a_locked_database_is_unavailable_until_it_is_unlocked(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let kv = open(&cluster, "locked").await;
    let load = Load::start(&kv);
    load.goes_on(50).await;
    let locking = cluster.clone();
    let said = blocking(move || locking.cli("lock")).await;
    assert!(said.contains("locked"), "{said}");
    until_healthy(&kv, false).await;
    let told = kv.health().await.unwrap_err().to_string();
    assert!(told.contains("locked"), "{told}");
    is_refused_in_time(&kv).await;
    unlock(&cluster).await;
    until_healthy(&kv, true).await;
    load.goes_on(50).await;
    load.check().await;
    kv.close().await.unwrap();
}

/// `fdbcli unlock` asks back, and takes no answer from a program.
async fn unlock(cluster: &Cluster) {
    let database = Database::from_path(&cluster.cluster_file().display().to_string()).unwrap();
    let transaction = database.create_trx().unwrap();
    for option in [TransactionOption::AccessSystemKeys, TransactionOption::LockAware] {
        transaction.set_option(option).unwrap();
    }
    transaction.clear(b"\xff/dbLocked");
    transaction.commit().await.unwrap();
}

pub(crate) async fn a_lost_leader_loses_nothing(programs: Programs) {
    let cluster = cluster(programs, 1, "single ssd").await;
    let kv = open(&cluster, "leader").await;
    let load = Load::start(&kv);
    for _ in 0..3 {
        load.goes_on(50).await;
        on(&cluster, |cluster| {
            let leader = cluster.leader();
            cluster.cli(&format!("kill; kill {leader}"));
            cluster.until_available();
        })
        .await;
        load.goes_on(50).await;
    }
    load.check().await;
    kv.close().await.unwrap();
}

pub(crate) async fn one_of_three_processes_may_be_killed_under_load(programs: Programs) {
    let cluster = cluster(programs, 3, "double ssd").await;
    let kv = open(&cluster, "three").await;
    let load = Load::start(&kv);
    for at in 0..3 {
        load.goes_on(100).await;
        on(&cluster, move |cluster| cluster.kill(at)).await;
        // Without it.
        load.goes_on(100).await;
        on(&cluster, move |cluster| {
            cluster.start_again(at);
            cluster.until_available();
        })
        .await;
        sleep(Duration::from_secs(2)).await;
    }
    assert!(load.check().await >= 600);
    kv.close().await.unwrap();
}
