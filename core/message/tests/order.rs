//! The order of what one request sends, while its slot comes and goes.

#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use std::{sync::Arc, thread};

use antiphon_proto::{
    refusal,
    rpc::{SendResult, send_result::Result::Stored},
};
use antiphon_slot::protocol::InSync;

use self::world::{World, message};

const REQUESTS: u64 = 300;
const AT_ONCE: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_request_keep_their_order_while_the_slot_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::start(folder.path()).await);
    let mut refused = 0;
    let mut epoch = 1;
    for from in (0..REQUESTS).map(|at| at * AT_ONCE) {
        // It is elsewhere, and comes back while they are asked for.
        world.slots.withdraw(world.slot, epoch + 1);
        epoch += 2;
        let granting = {
            let (world, until_asked) = (world.clone(), u32::try_from(from % 1_000).unwrap());
            thread::spawn(move || {
                for _ in 0..until_asked {
                    std::hint::spin_loop();
                }
                world.slots.grant(world.slot, epoch, InSync::alone());
            })
        };
        // All again, as whoever finds the home does.
        let results: Vec<SendResult> = loop {
            match world.send((from..from + AT_ONCE).map(message).collect()).await {
                Ok(results) => break results,
                Err(status) => assert_eq!(refusal::of(&status).code, "NOT_HOME", "{status}"),
            }
            refused += 1;
        };
        granting.join().unwrap();
        let seq = |result: SendResult| match result.result {
            Some(Stored(stored)) => stored.seq,
            other => panic!("{other:?}"),
        };
        let seqs: Vec<u64> = results.into_iter().map(seq).collect();
        assert_eq!(seqs, (from + 1..=from + AT_ONCE).collect::<Vec<_>>());
    }
    assert!(refused > 0, "it was never elsewhere");
}
