use std::{
    env,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_probe::{Event, Recorder, Seen, check};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    client::{Client, Counts, Load},
    support::{Person, Server, number, seen},
};

const PAIRS: usize = 12;
const MESSAGES_OF_EACH: usize = 840;
const KILLS: u32 = 10;
/// Between two kills at least so much has to be acknowledged, so that they fall into the load and not after it.
const ACKNOWLEDGED_BETWEEN: std::ops::Range<u64> = 900..1_700;
const PATIENCE: Duration = Duration::from_secs(300);

/// I1, I2, I5 and I6 under load while the process is killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_and_doubles_nothing() {
    let seed = env::var("ANTIPHON_CHAOS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("seed {seed} (set ANTIPHON_CHAOS_SEED to repeat the choices of this run)");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start().await;
    let pairs = pairs(&server).await;
    let (recorder, counts) = (Recorder::new(), Arc::new(Counts::default()));
    let (began, deadline) = (Instant::now(), Instant::now() + PATIENCE);

    let mut clients = JoinSet::new();
    for (first, second, conversation) in &pairs {
        for person in [first, second] {
            let shared = (recorder.clone(), counts.clone());
            let client = Client::new(
                person.clone(),
                conversation.clone(),
                &[server.port()],
                Load::Amount {
                    messages: MESSAGES_OF_EACH,
                    in_all: 2 * MESSAGES_OF_EACH as u64,
                },
                random.random(),
                shared,
            );
            clients.spawn(client.run(deadline));
        }
    }
    for _ in 0..KILLS {
        let goal = counts.acknowledged.load(Ordering::Relaxed) + random.random_range(ACKNOWLEDGED_BETWEEN);
        while counts.acknowledged.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "the load has come to a stand before {goal}");
            // A client that failed says why.
            if let Some(ended) = clients.try_join_next() {
                ended.unwrap();
            }
            sleep(Duration::from_millis(random.random_range(1..20))).await;
        }
        assert!(!clients.is_empty(), "the load has ended before the kills");
        server.kill9().await;
        sleep(Duration::from_millis(random.random_range(0..200))).await;
        server.restart().await;
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let took = began.elapsed();

    // Once more from the store alone.
    server.kill9().await;
    server.restart().await;
    for (first, second, conversation) in &pairs {
        for reader in [first, second] {
            read_all(reader, &reader.id, conversation, &recorder).await;
        }
    }
    let history = recorder.history();
    let total = counts.acknowledged.load(Ordering::Relaxed);
    eprintln!(
        "{} kills, {} clients, {} sessions; {total} acknowledgements of {} messages, {} resent, {} refusals; {} records in {:.1} s",
        KILLS + 1,
        2 * PAIRS,
        counts.sessions.load(Ordering::Relaxed),
        2 * PAIRS * MESSAGES_OF_EACH,
        counts.resent.load(Ordering::Relaxed),
        counts.refused.load(Ordering::Relaxed),
        history.records.len(),
        took.as_secs_f64()
    );
    assert!(total >= 20_000);
    let violations = check(&history);
    for violation in violations.iter().take(50) {
        eprintln!("{violation}");
    }
    assert!(
        violations.is_empty(),
        "{} violations with seed {seed}",
        violations.len()
    );
}

/// Pairs of people and the conversation of each.
async fn pairs(server: &Server) -> Vec<(Person, Person, String)> {
    let mut pairs = Vec::new();
    for at in 0..PAIRS {
        let (first, second) = (
            server.person(&format!("left{at}")).await,
            server.person(&format!("right{at}")).await,
        );
        let conversation = first.direct(&second).await;
        pairs.push((first, second, conversation));
    }
    pairs
}

/// Records the whole history as a member reads it, and how far the member has got; `name` is what the reader is called.
pub(crate) async fn read_all(reader: &Person, name: &str, conversation: &str, recorder: &Recorder) {
    let mut after = 0;
    loop {
        let page = reader.page(conversation, &format!("afterSeq={after}&limit=100")).await;
        let messages: Vec<Seen> = page.iter().map(seen).collect();
        let Some(last) = messages.last() else { break };
        after = last.seq;
        recorder.note(Event::Page {
            reader: name.to_owned(),
            conversation: conversation.to_owned(),
            messages,
        });
    }
    let entry = reader.listed(conversation).await.expect("a listed conversation");
    recorder.note(Event::Receipt {
        session: u64::MAX,
        conversation: conversation.to_owned(),
        user: reader.id.clone(),
        delivered_seq: number(&entry["deliveredSeq"]),
        read_seq: number(&entry["readSeq"]),
    });
}
