//! Links that are cut, and that heal.

use super::*;

#[tokio::test]
async fn a_one_way_cut_stops_one_way() {
    let world = World::open();
    let (mut a, mut b) = world.connect().await;
    world.set("a", "b", LinkState::Blackhole);
    a.write_all(b"lost?").await.unwrap();
    b.write_all(b"heard").await.unwrap();
    assert_eq!(receive(&mut a, 5).await, b"heard");
    hears_nothing(&mut b).await;
    world.set("a", "b", LinkState::Up);
    assert_eq!(receive(&mut b, 5).await, b"lost?");
}

#[tokio::test]
async fn what_was_sent_into_a_blackhole_arrives_in_order_once_it_heals() {
    let world = World::new(delay_ms(5), delay_ms(5));
    let (mut a, mut b) = world.connect().await;
    let sent = numbered(3_000_000);
    let cuts = async {
        for _ in 0..3 {
            sleep(Duration::from_millis(20)).await;
            world.set("a", "b", LinkState::Blackhole);
            sleep(Duration::from_millis(50)).await;
            world.set("a", "b", LinkState::Up);
        }
    };
    let writes = async {
        for piece in sent.chunks(30_000) {
            a.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    };
    let (received, (), ()) = tokio::join!(receive(&mut b, sent.len()), writes, cuts);
    assert!(received == sent);
}

#[tokio::test]
async fn what_was_in_flight_at_the_cut_takes_the_delay_again() {
    let world = World::new(delay_ms(100), delay_ms(0));
    let (mut a, mut b) = world.connect().await;
    a.write_all(b"x").await.unwrap();
    sleep(Duration::from_millis(30)).await;
    world.set("a", "b", LinkState::Blackhole);
    hears_nothing(&mut b).await;
    let healed = Instant::now();
    world.set("a", "b", LinkState::Up);
    receive(&mut b, 1).await;
    assert!(healed.elapsed() >= Duration::from_millis(100), "{:?}", healed.elapsed());
}

#[tokio::test]
async fn a_connection_dialled_over_a_blackhole_gets_through_once_it_heals() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let world = World::open();
        world.set(from, to, LinkState::Blackhole);
        let mut a = TcpStream::connect(world.dial).await.unwrap();
        a.write_all(b"hello").await.unwrap();
        let accepted = timeout(SILENCE, world.b.accept()).await;
        assert!(accepted.is_err(), "{from} to {to}: {accepted:?}");
        world.set(from, to, LinkState::Up);
        assert_eq!(receive(&mut world.accept().await, 5).await, b"hello");
    }
}

#[tokio::test]
async fn those_who_dial_over_a_blackhole_again_and_again_take_nothing_of_this_process() {
    let world = World::open();
    world.set("a", "b", LinkState::Blackhole);
    for _ in 0..20 {
        drop(TcpStream::connect(world.dial).await.unwrap());
    }
    sleep(SILENCE).await;
    assert_eq!(world.links.all()[0].connections, 0);
}

#[tokio::test]
async fn a_reset_of_either_way_ends_connections_and_refuses_new_ones_until_it_is_over() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let world = World::open();
        let (mut a, mut b) = world.connect().await;
        world.set(from, to, LinkState::Reset);
        is_reset(&mut a).await;
        is_reset(&mut b).await;
        let refused = async {
            while let Ok(mut dialled) = TcpStream::connect(world.dial).await {
                let _ = dialled.read(&mut [0]).await;
            }
        };
        timeout(PATIENCE, refused).await.expect("still accepts");

        world.set(from, to, LinkState::Up);
        let accepts = async {
            while TcpStream::connect(world.dial).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, accepts).await.expect("still refuses");
    }
}

#[tokio::test]
async fn a_reset_that_is_over_at_once_has_happened() {
    let world = World::open();
    let (mut a, mut b) = world.connect().await;
    world.set("a", "b", LinkState::Reset);
    world.set("a", "b", LinkState::Up);
    is_reset(&mut a).await;
    is_reset(&mut b).await;
}

#[tokio::test]
async fn a_cut_link_takes_a_bounded_number_of_bytes_from_a_fast_writer() {
    let world = World::open();
    let (mut a, mut b) = world.connect().await;
    let reader = tokio::spawn(async move { tokio::io::copy(&mut b, &mut tokio::io::sink()).await });
    world.set("a", "b", LinkState::Blackhole);
    let taken = swallowed(&mut a).await;
    assert!(taken < buffers_bytes(), "{taken}");
    // The reader would have taken all of it.
    world.set("a", "b", LinkState::Up);
    a.shutdown().await.unwrap();
    let read = timeout(PATIENCE, reader).await.expect("bytes are missing").unwrap();
    assert_eq!(read.unwrap(), u64::try_from(taken).unwrap());
}
