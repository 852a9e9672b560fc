//! What a message costs in things that can be counted and are the same on every machine. Who makes one dearer finds it here, and who makes
//! it cheaper writes the new number down.

use std::time::Duration;

use antiphon_client::Transport;
use tokio::time::{Instant, sleep};

use crate::support::{
    RawSession, Server,
    metrics::{commits_rest, metric},
    world::World,
};

/// Of one conversation, one after the other.
const MESSAGES: u16 = 200;

/// Of the store, before and after.
#[derive(Debug)]
struct Counts {
    commits: f64,
    fsyncs: f64,
    writes: f64,
    written_bytes: f64,
    reads: f64,
    read_bytes: f64,
}

impl Counts {
    /// Of the node whose operators' port this is.
    async fn of(admin_url: &str) -> Self {
        let count = async |name: &str| metric(admin_url, name).await.expect("a node that counts");
        Self {
            commits: count("antiphon_kv_commit_seconds_count").await,
            fsyncs: count("antiphon_fsync_seconds_count").await,
            writes: count("antiphon_kv_writes_total").await,
            written_bytes: count("antiphon_kv_written_bytes_total").await,
            reads: count("antiphon_kv_reads_total").await,
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
    commits_rest(&server.admin_url()).await;
    let before = Counts::of(&server.admin_url()).await;
    for at in 1..=MESSAGES {
        a.send(&talk, &format!("cold{at:04}"), &"x".repeat(64)).await;
    }
    b.messages(&talk, usize::from(MESSAGES) * 2).await;
    commits_rest(&server.admin_url()).await;
    let after = Counts::of(&server.admin_url()).await;

    let each = |of: fn(&Counts) -> f64| (of(&after) - of(&before)) / f64::from(MESSAGES);
    let told = format!("{before:?} {after:?}");
    // And now and then one that writes cursors down.
    assert!((1.0..1.05).contains(&each(|of| of.commits)), "{told}");
    assert!((1.0..1.05).contains(&each(|of| of.fsyncs)), "{told}");
    assert!((6.0..6.2).contains(&each(|of| of.writes)), "{told}");
    assert!((4.0..4.2).contains(&each(|of| of.reads)), "{told}");
    // Numbers that are random have more digits now and then.
    assert!((740.0..780.0).contains(&each(|of| of.written_bytes)), "{told}");
    assert!((80.0..86.0).contains(&each(|of| of.read_bytes)), "{told}");
}

/// How often at the most a home tells a high watermark that no message has told.
const WATERMARKS_PER_S: f64 = 10.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_costs_each_region_that_holds_it_one_commit() {
    let regions = ["us-east", "eu-central", "ap-northeast"];
    let world = World::start(&regions).await;
    let (alice, bob) = (
        world.person(regions[0], "alice").await,
        world.person(regions[0], "bob").await,
    );
    let talk = alice.direct(&bob).await;
    let mut session = RawSession::open(world.port(regions[0]), &alice, &[]).await;
    session.send(&talk, "warm", "up").await;
    let counts = async || {
        for region in regions {
            commits_rest(&world.admin_url(region)).await;
        }
        let mut counts = Vec::new();
        for region in regions {
            counts.push(Counts::of(&world.admin_url(region)).await);
        }
        counts
    };
    let before = counts().await;
    let began = Instant::now();
    for at in 1..=MESSAGES {
        session.send(&talk, &format!("m{at:04}"), &"x".repeat(64)).await;
    }
    // The next message tells the high watermark that the one before has moved; where it comes late, that is a commit of its own.
    let told = began.elapsed().as_secs_f64() * WATERMARKS_PER_S + 2.0;
    let after = counts().await;
    for ((before, after), region) in before.iter().zip(&after).zip(regions) {
        let messages = f64::from(MESSAGES);
        // Two that are acknowledged without a region may come to it in one message.
        let expected = messages * 0.95..messages * 1.05 + told;
        for (what, count) in [
            ("commits", after.commits - before.commits),
            ("fsyncs", after.fsyncs - before.fsyncs),
        ] {
            assert!(expected.contains(&count), "{region}: {count} {what}, not {expected:?}");
        }
    }
}

/// How long a node is looked at when nobody talks.
const QUIET: Duration = Duration::from_secs(2);

/// Since the node began, on all of its threads: how often it has asked for memory, and for how many bytes. Builds for debugging tell it alone.
async fn allocated(admin_url: &str) -> (f64, f64) {
    let count = async |name: &str| metric(admin_url, name).await.expect("a build that counts");
    let allocations = count("antiphon_allocations_total").await;
    (allocations, count("antiphon_allocated_bytes_total").await)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(debug_assertions),
    ignore = "builds for debugging alone count what they allocate"
)]
async fn a_message_allocates_as_often_as_it_did() {
    let server = Server::on(None, &[]).await;
    let (alice, bob) = (server.person("alice").await, server.person("bob").await);
    let talk = alice.direct(&bob).await;
    // Each transport has its own.
    let mut a = RawSession::open_over(Transport::WebSocket, server.port(), &alice).await;
    let mut b = RawSession::open_over(Transport::WebSocket, server.port(), &bob).await;
    let admin_url = server.admin_url();
    let mut each = (0.0, 0.0);
    for word in ["warm", "cold"] {
        // To tell it takes memory too, and so does what a node does when nobody talks.
        let first = allocated(&admin_url).await;
        let second = allocated(&admin_url).await;
        let quiet = Instant::now();
        sleep(QUIET).await;
        let before = allocated(&admin_url).await;
        let (quiet, began) = (quiet.elapsed().as_secs_f64(), Instant::now());
        for at in 1..=MESSAGES {
            a.send(&talk, &format!("{word}{at:04}"), &"x".repeat(64)).await;
        }
        b.messages(&talk, usize::from(MESSAGES)).await;
        let after = allocated(&admin_url).await;
        let took = began.elapsed().as_secs_f64();
        let of = |first: f64, second: f64, before: f64, after: f64| {
            let telling = second - first;
            let quiet_per_s = (before - second - telling) / quiet;
            (after - before - telling - quiet_per_s * took) / f64::from(MESSAGES)
        };
        each = (
            of(first.0, second.0, before.0, after.0),
            of(first.1, second.1, before.1, after.1),
        );
    }
    // From a device's frame to another device's frame, the threads of the edge and of the store among it.
    let (allocations, bytes) = each;
    assert!(
        (223.0..229.0).contains(&allocations) && (71_000.0..73_000.0).contains(&bytes),
        "{allocations} allocations, {bytes} bytes"
    );
}
