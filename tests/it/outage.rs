//! What users see while the cluster below a node does not answer. Needs FoundationDB: `cargo test --features antiphon/fdb -- --ignored outage`.

use std::time::Duration;

use antiphon_directory::DevelopmentCa;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    RawSession, Server,
    fdb::{Cluster, Tls},
    http::get,
    number,
    store::programs,
    until,
};

/// A send is refused within this, however busy the machine is.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

async fn cluster() -> Cluster {
    tokio::task::spawn_blocking(|| Cluster::start(programs(), 1, "single ssd"))
        .await
        .unwrap()
}

async fn readiness(server: &Server) -> (u16, String) {
    let answer = get(format!("{}/readyz", server.admin_url())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Sends, and returns the answer.
async fn answer(session: &mut RawSession, talk: &str, id: &str) -> Value {
    let body = json!({ "conversationId": talk, "clientMsgId": id, "text": "hello" });
    let asked = session.ask("send", &body).await;
    timeout(REFUSED_WITHIN, session.reply(&asked))
        .await
        .expect("no answer to a send")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes fdbserver and a binary built with the feature fdb"]
async fn an_outage_of_the_cluster_is_told_and_ends_no_session() {
    let cluster = cluster().await;
    let server = Server::on(Some(&cluster), &[]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    assert_eq!(a.send(&talk, "before", "hello").await, 1);
    for (signal, name) in [("STOP", "stopped"), ("KILL", "killed")] {
        let last = number(&alice.page(&talk, "afterSeq=0").await.last().unwrap()["seq"]);
        if signal == "KILL" {
            cluster.kill(0);
        } else {
            cluster.signal(0, signal);
        }
        let began = Instant::now();
        let mut tries = 0;
        let refused = loop {
            tries += 1;
            // One that was under way may have been taken, or its outcome is not known.
            let answer = answer(&mut a, &talk, &format!("{name}-{tries}")).await;
            if answer["error"]["code"] == "UNAVAILABLE" {
                break answer["error"].clone();
            }
            assert!(
                began.elapsed() < REFUSED_WITHIN * 3,
                "{name}: no send is refused: {answer}"
            );
        };
        assert!(number(&refused["retryAfterMs"]) > 0, "{name}: {refused}");
        until("the node says that it is not ready", || async {
            let (status, reasons) = readiness(&server).await;
            (status == 503 && reasons.contains("FoundationDB")).then_some(())
        })
        .await;
        // Longer than any wait of a retry.
        sleep(Duration::from_secs(3)).await;

        if signal == "KILL" {
            cluster.start_again(0);
        } else {
            cluster.signal(0, "CONT");
        }
        until("the node is ready again", || async {
            (readiness(&server).await.0 == 200).then_some(())
        })
        .await;
        // The same sessions go on, and whatever was tried meanwhile is there at most once.
        let resumed = until_sent(&mut a, &talk, name).await;
        assert!(resumed > last, "{name}: {resumed} after {last}");
        let pushed = b
            .event_where("message", |event| {
                event["clientMsgId"] == format!("{name}-after").as_str()
            })
            .await;
        assert_eq!(number(&pushed["seq"]), resumed, "{name}: {pushed}");
        let page = bob.page(&talk, "afterSeq=0&limit=100").await;
        let seqs: Vec<u64> = page.iter().map(|message| number(&message["seq"])).collect();
        assert_eq!(seqs, (1..=resumed).collect::<Vec<_>>(), "{name}");
    }
}

/// Sends the same message until it is taken.
async fn until_sent(session: &mut RawSession, talk: &str, name: &str) -> u64 {
    let body = json!({ "conversationId": talk, "clientMsgId": format!("{name}-after"), "text": "hello" });
    let deadline = Instant::now() + REFUSED_WITHIN * 2;
    loop {
        let asked = session.ask("send", &body).await;
        let reply = session.reply(&asked).await;
        if reply["sent"].is_object() {
            return number(&reply["sent"]["seq"]);
        }
        assert!(Instant::now() < deadline, "{name}: {reply}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes fdbserver and a binary built with the feature fdb"]
async fn a_cluster_that_speaks_tls_is_reached_with_a_certificate_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    DevelopmentCa::create(folder.path(), ["cluster", "node"]).unwrap();
    let file = |name: &str| folder.path().join(name);
    let tls = Tls {
        certificate: file("cluster.pem"),
        key: file("cluster.key"),
        ca: file("ca.pem"),
    };
    let cluster = tokio::task::spawn_blocking(|| Cluster::start_with(programs(), 1, "single memory", Some(tls)));
    let cluster = cluster.await.unwrap();
    let [certificate, key, ca] = ["node.pem", "node.key", "ca.pem"].map(|name| file(name).display().to_string());
    let shown = [
        ("store.fdb_tls_certificate_file", certificate.as_str()),
        ("store.fdb_tls_key_file", key.as_str()),
        ("store.fdb_tls_ca_file", ca.as_str()),
    ];
    let began = Instant::now();
    let server = Server::on(Some(&cluster), &shown).await;
    let took = began.elapsed();
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    assert_eq!(server.session(&alice).await.send(&talk, "first", "hello").await, 1);

    let mut bare = Server::stopped_on(Some(&cluster), &[]);
    bare.spawn();
    // In half that time the one with a certificate was there.
    sleep(Duration::from_secs(3).max(took * 2)).await;
    let (status, reasons) = readiness(&bare).await;
    assert_eq!(status, 503, "{reasons}");
    assert!(reasons.contains("the store is not open yet"), "{reasons}");
}
