//! Thousands of sessions that are sent away at once and come back as they are told.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::{
    operator::{act, command, directory},
    rules::person,
    support::{Person, RawSession, number, open_files::open_files_max, session::hello, until, world::World},
    worlds::TURN,
};

const SESSIONS: usize = 5_000;
/// Open files of the test besides: each session has two when it moves.
const SPARE: usize = 500;
const USERS: usize = 50;
/// Handshakes under way at once while the herd gathers.
const AT_ONCE: usize = 100;
/// `edge.reconnect_window_ms`.
const WINDOW_MS: u64 = 5_000;
const BINS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_millis(500);
const GATHERING: Duration = Duration::from_secs(90);

/// How one session moved: the moment that it was given, and how long after Goaway it was welcome elsewhere.
struct Move {
    given_ms: u64,
    welcome_ms: u64,
    /// Why it was not welcome at once, if it was not.
    refused: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and thousands of connections: just chaos"]
async fn a_herd_that_is_sent_away_comes_back_as_evenly_as_it_was_told() {
    let _turn = TURN.acquire().await.unwrap();
    let sessions = SESSIONS.min(open_files_max().saturating_sub(SPARE) / 2);
    let mut world = World::stopped(&["us-east", "eu-central", "ap-northeast"]);
    for flag in [
        "--set=edge.handshake_rate_per_second=0",
        "--set=edge.credential_rate_per_second=0",
        "--set=edge.user_rate_per_second=0",
        "--set=edge.sessions_per_user_max=1000",
        "--set=edge.device_policy=any",
    ] {
        world.flag(flag);
    }
    world.restart().await;
    let mut people = Vec::new();
    for number in 0..USERS.min(sessions) {
        people.push(person(&world, "us-east", &format!("user{number}")).await);
    }
    let (left, other) = (world.port("us-east"), world.port("eu-central"));
    let gathering = stream::iter(0..sessions).map(|at| welcome(left, people[at % people.len()].clone()));
    let herd: Vec<(RawSession, Person)> = gathering.buffer_unordered(AT_ONCE).collect().await;

    // As an operator does it: the homes move first, so that nobody waits for a region that is away.
    let regions = ["us-east".to_owned()];
    command(&world, &regions, "/regions/us-east/drain", PATIENCE).await;
    until("us-east is home of nothing", || async {
        let view = directory(&world, "us-east", "").await?;
        let seen = view["regions"]
            .as_array()?
            .iter()
            .find(|region| region["name"] == "us-east")?;
        (seen["homes"] == 0).then_some(())
    })
    .await;

    let mut moving = JoinSet::new();
    for (session, person) in herd {
        moving.spawn(follow(session, person, other));
    }
    act(&world, "us-east", "restart", Duration::ZERO).await;
    let moves = moving.join_all().await;
    world.ready("us-east").await;

    let given = bins(moves.iter().map(|moved| moved.given_ms));
    let came = bins(moves.iter().map(|moved| moved.welcome_ms));
    let mut late: Vec<u64> = moves.iter().map(|moved| moved.welcome_ms - moved.given_ms).collect();
    late.sort_unstable();
    eprintln!(
        "{sessions} sessions over {WINDOW_MS} ms, by tenths: told {given:?}, came {came:?}; welcome {} ms (p50), {} ms (p99) after \
         their moment",
        late[late.len() / 2],
        late[late.len() * 99 / 100]
    );
    let refused: Vec<&String> = moves.iter().filter_map(|moved| moved.refused.as_ref()).collect();
    eprintln!("{} were refused at first, such as {:?}", refused.len(), refused.first());
    let even = sessions / BINS;
    // Who says Hello in the midst of it is told in another round.
    let is_even = |bins: &[usize]| bins.iter().all(|count| count.abs_diff(even) <= even / 10);
    assert!(is_even(&given), "{given:?}");
    // When they are welcome is told and not judged: it depends on the machine that runs both ends.
    assert!(moves.iter().all(|moved| moved.welcome_ms >= moved.given_ms));
}

async fn welcome(port: u16, person: Person) -> (RawSession, Person) {
    let deadline = Instant::now() + GATHERING;
    loop {
        match try_hello(port, &person).await {
            Ok(session) => return (session, person),
            Err(why) => assert!(Instant::now() < deadline, "{} is not welcome: {why}", person.name),
        }
    }
}

/// A session, unless its Hello is refused or not answered.
async fn try_hello(port: u16, person: &Person) -> Result<RawSession, String> {
    let connecting = RawSession::try_connect(port).await;
    let mut session = connecting.map_err(|error| error.to_string())?;
    let frame = json!({"id": "h", "hello": hello(&person.token, &person.device_id, &[])});
    let sent = session.socket.send(WsMessage::text(frame.to_string())).await;
    sent.map_err(|error| error.to_string())?;
    let answer = session.read(Instant::now() + PATIENCE).await;
    let answer = answer.ok_or_else(|| "no answer to Hello".to_owned())?;
    if answer["welcome"].is_object() {
        return Ok(session);
    }
    Err(answer.to_string())
}

/// Waits for Goaway, then for its moment, and comes back at the other edge.
async fn follow(mut session: RawSession, person: Person, port: u16) -> Move {
    let goaway = session.event_within("goaway", PATIENCE).await.expect("a Goaway");
    let told = Instant::now();
    assert_eq!(goaway["reason"], "draining");
    let given_ms = number(&goaway["reconnectAfterMs"]);
    sleep_until(told + Duration::from_millis(given_ms)).await;
    drop(session);
    let mut refused = None;
    while let Err(why) = try_hello(port, &person).await {
        assert!(told.elapsed() < GATHERING, "{why}");
        refused.get_or_insert(why);
        sleep(TRY_AGAIN).await;
    }
    Move {
        given_ms,
        refused,
        welcome_ms: u64::try_from(told.elapsed().as_millis()).unwrap(),
    }
}

/// How many fall into each tenth of the window; what is later counts for the last.
fn bins(moments_ms: impl Iterator<Item = u64>) -> Vec<usize> {
    let mut bins = vec![0; BINS];
    for moment_ms in moments_ms {
        let at = usize::try_from(moment_ms * BINS as u64 / WINDOW_MS).unwrap();
        bins[at.min(BINS - 1)] += 1;
    }
    bins
}
