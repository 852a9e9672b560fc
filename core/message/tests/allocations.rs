//! How often a message asks the allocator for memory on its way into the store: a count that is the same on every machine. Who makes it
//! larger finds it here, and who makes it smaller writes the new number down.

#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use antiphon_proto::rpc::send_result;
use tokio::runtime::Runtime;

use self::world::{World, message};

/// One after the other.
const MESSAGES: u64 = 500;

async fn send(world: &World, from: u64) {
    for number in from..from + MESSAGES {
        let results = world.send(vec![message(number)]).await.unwrap();
        let result = results.into_iter().next().unwrap().result.unwrap();
        assert!(matches!(result, send_result::Result::Stored(_)), "{result:?}");
    }
}

/// What the thread of the commits allocates does not count: how many commits share an fsync there is not the same twice.
#[test]
fn a_message_allocates_as_often_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::start(folder.path()));
    runtime.block_on(send(&world, 0));
    let counted = allocation_counter::measure(|| runtime.block_on(send(&world, MESSAGES)));
    let (count, bytes) = (counted.count_total / MESSAGES, counted.bytes_total / MESSAGES);
    assert!(
        (93..=97).contains(&count) && (13_000..=13_700).contains(&bytes),
        "{count} allocations, {bytes} bytes"
    );
}
