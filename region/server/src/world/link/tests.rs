use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use super::*;

mod cuts;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test waits for what must not come.
const SILENCE: Duration = Duration::from_millis(250);

/// No less than all buffers of a way together: what may be in flight, and the kernel's four, which it lets grow to limits of its own.
fn buffers_bytes() -> usize {
    let limit = |name: &str| -> Option<usize> {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
        limits.split_whitespace().last()?.parse().ok()
    };
    // Where it does not tell them.
    let limit = |name| limit(name).unwrap_or(8 * 1024 * 1024);
    wire::FLIGHT_BYTES_MAX + 2 * (limit("tcp_rmem") + limit("tcp_wmem"))
}

/// Regions `a` and `b`, of which `b` listens.
struct World {
    network: Network,
    links: Links,
    dial: SocketAddr,
    b: TcpListener,
}

impl World {
    fn new(out: LinkSettings, back: LinkSettings) -> Self {
        let b = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        b.set_nonblocking(true).unwrap();
        let b = TcpListener::from_std(b).unwrap();
        let plan = |from: &str, to: &str, target, settings| LinkPlan {
            from: from.to_owned(),
            to: to.to_owned(),
            listen: free_address(),
            target,
            settings,
        };
        let plans = vec![
            plan("a", "b", b.local_addr().unwrap(), out),
            plan("b", "a", free_address(), back),
        ];
        let dial = plans[0].listen;
        let network = Network::start(plans).unwrap();
        let links = network.links();
        Self {
            network,
            links,
            dial,
            b,
        }
    }

    fn open() -> Self {
        Self::new(LinkSettings::default(), LinkSettings::default())
    }

    /// A connection that `a` dialled, and its other end.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let a = TcpStream::connect(self.dial).await.unwrap();
        a.set_nodelay(true).unwrap();
        (a, self.accept().await)
    }

    async fn accept(&self) -> TcpStream {
        let (b, _) = timeout(PATIENCE, self.b.accept()).await.expect("nobody dials").unwrap();
        b.set_nodelay(true).unwrap();
        b
    }

    fn change(&self, from: &str, to: &str, change: LinkChange) {
        self.links.change(from, to, change).unwrap();
    }

    fn set(&self, from: &str, to: &str, state: LinkState) {
        let change = LinkChange {
            state: Some(state),
            ..LinkChange::default()
        };
        self.change(from, to, change);
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn delay_ms(delay_ms: u32) -> LinkSettings {
    LinkSettings {
        delay_ms,
        ..LinkSettings::default()
    }
}

async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, stream.read_exact(&mut bytes))
        .await
        .expect("bytes are missing")
        .unwrap();
    bytes
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(SILENCE, stream.read(&mut byte)).await;
    assert!(read.is_err(), "heard {read:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0])).await.expect("no reset");
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Bytes that tell their place, so that a lost, doubled or moved one is seen.
fn numbered(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(length).collect()
}

/// Bytes taken from a writer that never waits, until nothing more is taken.
async fn swallowed(stream: &mut TcpStream) -> usize {
    let piece = vec![7; 64 * 1024];
    let mut taken = 0;
    while taken < 2 * buffers_bytes() {
        match timeout(SILENCE * 2, stream.write(&piece)).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    taken
}

#[tokio::test]
async fn bytes_arrive_no_earlier_than_the_delay_of_their_way() {
    let world = World::new(delay_ms(70), delay_ms(40));
    let (mut a, mut b) = world.connect().await;
    for _ in 0..3 {
        let asked = Instant::now();
        a.write_all(b"ask").await.unwrap();
        receive(&mut b, 3).await;
        assert!(asked.elapsed() >= Duration::from_millis(70), "{:?}", asked.elapsed());
        let answered = Instant::now();
        b.write_all(b"answer").await.unwrap();
        receive(&mut a, 6).await;
        assert!(
            answered.elapsed() >= Duration::from_millis(40),
            "{:?}",
            answered.elapsed()
        );
    }
}

#[tokio::test]
async fn the_first_byte_waits_for_a_handshake() {
    let world = World::new(delay_ms(60), delay_ms(60));
    let dialled = Instant::now();
    let (mut a, mut b) = world.connect().await;
    a.write_all(b"x").await.unwrap();
    receive(&mut b, 1).await;
    assert!(
        dialled.elapsed() >= Duration::from_millis(180),
        "{:?}",
        dialled.elapsed()
    );
}

#[tokio::test]
async fn pieces_sent_one_after_the_other_are_in_flight_together() {
    let world = World::new(delay_ms(300), delay_ms(0));
    let (mut a, mut b) = world.connect().await;
    let begun = Instant::now();
    for _ in 0..50 {
        a.write_all(b"piece").await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    receive(&mut b, 250).await;
    // One at a time they would take 15 s.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn jitter_keeps_the_order_of_a_connection() {
    let jitter = LinkSettings {
        delay_ms: 1,
        jitter_ms: 30,
        ..LinkSettings::default()
    };
    let world = World::new(jitter, jitter);
    let (mut a, mut b) = world.connect().await;
    let sent = numbered(4_000);
    let writes = async {
        for piece in sent.chunks(20) {
            a.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let (received, ()) = tokio::join!(receive(&mut b, sent.len()), writes);
    assert!(received == sent);
}

#[tokio::test]
async fn all_connections_together_get_no_more_than_the_bandwidth() {
    let narrow = LinkSettings {
        bits_per_s: 400_000,
        ..LinkSettings::default()
    };
    let world = World::new(narrow, LinkSettings::default());
    let (mut a1, mut b1) = world.connect().await;
    let (mut a2, mut b2) = world.connect().await;
    let begun = Instant::now();
    let bytes = numbered(20_000);
    a1.write_all(&bytes).await.unwrap();
    a2.write_all(&bytes).await.unwrap();
    let (one, two) = tokio::join!(receive(&mut b1, bytes.len()), receive(&mut b2, bytes.len()));
    // 40,000 bytes at 50,000 a second.
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    assert!(one == bytes && two == bytes);
    // The way back is as wide as before.
    let begun = Instant::now();
    b1.write_all(&numbered(2_000_000)).await.unwrap();
    receive(&mut a1, 2_000_000).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_receiver_that_does_not_read_slows_its_own_sender_and_nobody_else() {
    let world = World::new(delay_ms(1), delay_ms(1));
    let (mut a, b) = world.connect().await;
    let taken = swallowed(&mut a).await;
    assert!(taken < buffers_bytes(), "{taken}");

    let (mut other, mut reads) = world.connect().await;
    other.write_all(b"hello").await.unwrap();
    assert_eq!(receive(&mut reads, 5).await, b"hello");
    drop(b);
}

#[tokio::test]
async fn a_link_that_is_slow_takes_no_more_than_a_cut_one() {
    let narrow = LinkSettings {
        bits_per_s: 800,
        ..LinkSettings::default()
    };
    let world = World::new(narrow, LinkSettings::default());
    let (mut a, mut b) = world.connect().await;
    let taken = swallowed(&mut a).await;
    assert!(taken < buffers_bytes(), "{taken}");
    // Widened, it does not first wait out what it would have taken before.
    world.change(
        "a",
        "b",
        LinkChange {
            bits_per_s: Some(0),
            ..LinkChange::default()
        },
    );
    receive(&mut b, taken).await;
}

#[tokio::test]
async fn settings_change_under_a_running_connection() {
    let world = World::open();
    let (mut a, mut b) = world.connect().await;
    for delay_ms in [120, 0, 80] {
        let change = LinkChange {
            delay_ms: Some(delay_ms),
            ..LinkChange::default()
        };
        world.change("a", "b", change);
        // The delay may be drawn before the change has reached the connection's task.
        sleep(Duration::from_millis(20)).await;
        let asked = Instant::now();
        a.write_all(b"x").await.unwrap();
        receive(&mut b, 1).await;
        assert!(asked.elapsed() >= Duration::from_millis(delay_ms.into()), "{delay_ms}");
    }
    let view = &world.links.all()[0];
    assert_eq!(
        (view.settings.delay_ms, view.carried_bytes, view.connections),
        (80, 3, 1)
    );
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let world = World::new(delay_ms(10), delay_ms(10));
    let (mut a, mut b) = world.connect().await;
    a.write_all(b"question").await.unwrap();
    a.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, b.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"question");
    b.write_all(b"answer").await.unwrap();
    drop(b);
    heard.clear();
    timeout(PATIENCE, a.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"answer");
}

#[tokio::test]
async fn a_sender_that_is_gone_is_gone_for_the_receiver() {
    let world = World::open();
    let (a, mut b) = world.connect().await;
    a.set_zero_linger().unwrap();
    drop(a);
    is_reset(&mut b).await;
    let (mut a, b) = world.connect().await;
    b.set_zero_linger().unwrap();
    drop(b);
    is_reset(&mut a).await;
}

#[tokio::test]
async fn a_region_that_does_not_run_resets_its_diallers() {
    let mut world = World::open();
    world.b = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut a = TcpStream::connect(world.dial).await.unwrap();
    is_reset(&mut a).await;
}

#[tokio::test]
async fn a_stopped_network_ends_connections_and_frees_its_ports() {
    let world = World::open();
    let (mut a, _b) = world.connect().await;
    world.network.stop().await;
    let read = timeout(PATIENCE, a.read(&mut [0])).await.expect("still connected");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(TcpStream::connect(world.dial).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = LinkPlan {
        from: "a".to_owned(),
        to: "b".to_owned(),
        listen: taken.local_addr().unwrap(),
        target: free_address(),
        settings: LinkSettings::default(),
    };
    let error = Network::start(vec![plan]).err().unwrap().to_string();
    let port = taken.local_addr().unwrap().port();
    assert!(error.contains(&format!("port {port} of 127.0.0.1")), "{error}");
}

#[tokio::test]
async fn a_change_that_names_no_link_or_no_sense_is_refused() {
    let world = World::open();
    let error = world
        .links
        .change("a", "c", LinkChange::default())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "there is no link from a to c; the links are a/b, b/a");
    let change = LinkChange {
        jitter_ms: Some(60_001),
        delay_ms: Some(1),
        ..LinkChange::default()
    };
    let error = world.links.change("a", "b", change).unwrap_err().to_string();
    assert!(error.contains("jitterMs is 60001"), "{error}");
    assert_eq!(world.links.all()[0].settings, LinkSettings::default());
}
