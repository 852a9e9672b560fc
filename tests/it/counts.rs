//! What a message costs in things that can be counted and are the same on every machine. Who makes one dearer finds it here, and who makes
//! it cheaper writes the new number down.

use crate::support::Server;

/// Of one conversation, one after the other.
const MESSAGES: u16 = 200;

/// Of the store, before and after.
#[derive(Debug)]
struct Counts {
    commits: f64,
    fsyncs: f64,
    written_bytes: f64,
    read_bytes: f64,
}

impl Counts {
    async fn of(server: &Server) -> Self {
        let count = async |name: &str| server.metric(name).await.unwrap_or_default();
        Self {
            commits: count("antiphon_kv_commit_seconds_count").await,
            fsyncs: count("antiphon_fsync_seconds_count").await,
            written_bytes: count("antiphon_kv_written_bytes_total").await,
            read_bytes: count("antiphon_kv_read_bytes_total").await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_costs_one_commit_one_fsync_and_as_many_bytes_as_it_did() {
    // These are the counts of the embedded engine.
    let server = Server::on(None, &[]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    let (mut a, mut b) = (server.session(&alice).await, server.session(&bob).await);
    // Until every cache is warm and every number has as many digits as it will have.
    for at in 1..=MESSAGES {
        a.send(&talk, &format!("warm{at:04}"), &"x".repeat(64)).await;
    }
    server.commits_rest().await;
    let before = Counts::of(&server).await;
    for at in 1..=MESSAGES {
        a.send(&talk, &format!("cold{at:04}"), &"x".repeat(64)).await;
    }
    b.messages(&talk, usize::from(MESSAGES) * 2).await;
    server.commits_rest().await;
    let after = Counts::of(&server).await;

    let each = |of: fn(&Counts) -> f64| (of(&after) - of(&before)) / f64::from(MESSAGES);
    let told = format!("{before:?} {after:?}");
    // And now and then one that writes cursors down.
    assert!((1.0..1.05).contains(&each(|of| of.commits)), "{told}");
    assert!((1.0..1.05).contains(&each(|of| of.fsyncs)), "{told}");
    // Numbers that are random have more digits now and then.
    assert!((740.0..780.0).contains(&each(|of| of.written_bytes)), "{told}");
    assert!((80.0..86.0).contains(&each(|of| of.read_bytes)), "{told}");
}
