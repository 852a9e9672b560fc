//! What an operator sees and does.

use std::net::TcpStream;

use antiphon_types::ConversationId;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{Server, forget_what_steers_tests, http::get, number, store, until};

async fn status(server: &Server, path: &str) -> u16 {
    get(format!("{}{path}", server.admin_url()))
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn metrics_follow_a_message_from_the_write_to_the_push() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let mut b = server.session(&bob).await;
    for _ in 0..3 {
        alice.send(&talk, "hello").await;
    }
    b.messages(&talk, 3).await;
    alice.http.get("/v1/nothing").await.expect_problem(404, "NOT_FOUND");
    // A cluster syncs for itself.
    let synced = store::cluster().is_none().then_some([
        ("antiphon_fsync_seconds_count", 1.0),
        ("antiphon_kv_buffer_bytes", 1.0),
        ("antiphon_kv_cache_bytes", 0.0),
    ]);
    for (name, least) in synced.into_iter().flatten().chain([
        ("antiphon_messages_total", 3.0),
        ("antiphon_write_seconds_count", 3.0),
        ("antiphon_commit_batch_messages_count", 1.0),
        ("antiphon_kv_commit_seconds_count", 1.0),
        ("antiphon_kv_reads_total", 1.0),
        ("antiphon_kv_read_bytes_total", 1.0),
        ("antiphon_kv_writes_total", 1.0),
        ("antiphon_kv_written_bytes_total", 1.0),
        ("antiphon_delivery_lag_seconds_count", 1.0),
        ("antiphon_push_total", 3.0),
        ("antiphon_sessions", 1.0),
        ("antiphon_rejections_total", 1.0),
    ]) {
        until(&format!("{name} of at least {least}"), || async {
            server.metric(name).await.filter(|value| *value >= least)
        })
        .await;
    }
}

#[tokio::test]
async fn a_running_node_is_healthy_and_ready() {
    let server = Server::start().await;
    assert_eq!(
        (status(&server, "/healthz").await, status(&server, "/readyz").await),
        (200, 200)
    );
    assert!(server.log().lines().any(|line| line == "ready"), "{}", server.log());
}

#[tokio::test]
async fn an_edge_for_everybody_leaves_the_operators_port_to_this_machine() {
    let server = Server::with(&[("node.host", "0.0.0.0")]).await;
    // Another address of this machine than the one that operators use.
    let is_open = |port: u16| TcpStream::connect(("127.0.0.2", port)).is_ok();
    assert!(is_open(server.port()) && !is_open(server.port() + 1));
    assert_eq!(status(&server, "/readyz").await, 200);
}

#[tokio::test]
async fn sigterm_sends_sessions_away_and_ends_cleanly() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, b) = (server.session(&alice).await, server.session(&bob).await);
    a.send(&talk, "m1", "hello").await;
    server.signal("TERM").await;
    let goaway = a.event("goaway").await;
    assert_eq!(goaway["reason"], "draining", "{goaway}");
    assert!(number(&goaway["reconnectAfterMs"]) <= 60_000, "{goaway}");
    a.closed().await;
    let events = b.closed().await;
    assert!(events.iter().any(|event| event["goaway"].is_object()), "{events:?}");
    let ended = server.ended().await;
    assert_eq!(ended.code(), Some(0), "{ended}");

    server.restart().await;
    assert_eq!(alice.page(&talk, "afterSeq=0").await.len(), 1);
    assert_eq!(bob.send(&talk, "after").await, 2);
}

#[tokio::test]
async fn sessions_are_told_different_moments_to_come_back() {
    let mut server = Server::start().await;
    let mut sessions = Vec::new();
    for at in 0..12 {
        let person = server.person(&format!("person{at}")).await;
        sessions.push(server.session(&person).await);
    }
    server.signal("TERM").await;
    let mut moments = Vec::new();
    for session in &mut sessions {
        moments.push(number(&session.event("goaway").await["reconnectAfterMs"]));
    }
    drop(sessions);
    let spread = moments.iter().max().unwrap() - moments.iter().min().unwrap();
    assert!(spread >= 500, "all come back at once: {moments:?}");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigint_ends_it_as_well() {
    let mut server = Server::start().await;
    server.signal("INT").await;
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_node_that_was_ended_or_killed_starts_again_on_its_data() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    for round in 1..=4 {
        assert_eq!(alice.send(&talk, "hello").await, round);
        if round % 2 == 0 {
            assert_eq!(server.terminate().await.code(), Some(0));
        } else {
            server.kill9().await;
        }
        server.restart().await;
        assert_eq!(bob.page(&talk, "afterSeq=0").await.len() as u64, round);
    }
}

#[tokio::test]
async fn ctl_shows_the_store_its_commits_and_the_size_of_each_slot() {
    let server = Server::start().await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let ask = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        forget_what_steers_tests(&mut command);
        let asked = command.args(["ctl", "--admin", &server.admin_url()]).args(arguments);
        asked.output().await.unwrap()
    };
    let size_of = async |slot: &str| {
        let shown = ask(&["store", "--json"]).await;
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert!(
            shown["commits"].as_u64() > Some(0) && shown["commitP99Ms"].as_f64() > Some(0.0),
            "{shown}"
        );
        shown["slots"][slot].as_u64().unwrap_or_default()
    };
    let slot = talk.parse::<ConversationId>().unwrap().slot().number().to_string();
    let before = size_of(&slot).await;
    alice.send(&talk, &"long".repeat(1_000)).await;
    let after = size_of(&slot).await;
    // A cluster estimates, and takes small ranges for empty ones.
    if store::cluster().is_none() {
        assert!(before > 0 && after >= before + 4_000, "{before} and then {after}");
    }

    let table = ask(&["store"]).await.stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.contains("99 of 100 within") && (after == 0 || table.contains(&after.to_string())),
        "{table}"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let copied = ask(&["store", "copy", "--region", "local", "--folder", path, "--yes"]).await;
    let said = String::from_utf8(copied.stderr).unwrap();
    let why = if cfg!(feature = "fdb") {
        "there is no store in"
    } else {
        "--features antiphon/fdb"
    };
    assert!(!copied.status.success() && said.contains(why), "{said}");
}
