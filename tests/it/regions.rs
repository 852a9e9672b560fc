//! Three regions as their users see them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Person, RawSession, http::get, number, text, until, world::World};

const THREE: [&str; 3] = ["us-east", "eu-central", "ap-northeast"];

/// One user in each region.
async fn trio(world: &World) -> Vec<Person> {
    let mut people = Vec::new();
    for (region, name) in THREE.into_iter().zip(["alice", "bob", "carol"]) {
        people.push(world.person(region, name).await);
    }
    people
}

async fn live(world: &World, people: &[Person]) -> Vec<RawSession> {
    let mut sessions = Vec::new();
    for (region, person) in THREE.into_iter().zip(people) {
        sessions.push(RawSession::open(world.port(region), person, &[]).await);
    }
    sessions
}

/// Sends until it is acknowledged, whatever happens meanwhile; its seq.
async fn send_surely(person: &Person, talk: &str, id: &str) -> u64 {
    until(&format!("{id} is acknowledged"), || async {
        let path = format!("/v1/conversations/{talk}/messages");
        let body = json!({"clientMsgId": id, "text": id});
        let sent = person
            .http
            .try_ask(Method::POST, &path, Some(&person.token), Some(&body))
            .await;
        let answer = sent?;
        if [200, 201].contains(&answer.status) {
            return Some(number(&answer.body["seq"]));
        }
        assert!([503, 504].contains(&answer.status), "{answer:?}");
        sleep(Duration::from_millis(100)).await;
        None
    })
    .await
}

/// The same account, at another region's edge.
fn at(world: &World, region: &str, person: &Person) -> Person {
    Person {
        http: world.http(region),
        ..person.clone()
    }
}

/// The whole history as a region shows it.
async fn history(world: &World, region: &str, person: &Person, talk: &str) -> Vec<Value> {
    at(world, region, person).page(talk, "afterSeq=0&limit=500").await
}

#[tokio::test]
async fn three_users_in_three_regions_see_one_order_and_one_history() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    let talk = people[0].group("trio", &[&people[1], &people[2]]).await;
    let mut sessions = live(&world, &people).await;

    let senders = people.iter().map(|person| {
        let talk = talk.clone();
        async move {
            for number in 0..30 {
                send_surely(person, &talk, &format!("{}-{number}", person.name)).await;
            }
        }
    });
    futures_util::future::join_all(senders).await;

    for session in &mut sessions {
        assert_eq!(session.messages(&talk, 90).await, (1..=90).collect::<Vec<_>>());
    }
    let from_home = history(&world, THREE[0], &people[0], &talk).await;
    assert_eq!(from_home.len(), 90);
    for (region, person) in THREE.into_iter().zip(&people) {
        assert_eq!(history(&world, region, person, &talk).await, from_home, "{region}");
    }
}

#[tokio::test]
async fn a_traveller_talks_from_another_region_as_from_home() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    let talk = people[0].direct(&people[1]).await;
    // Alice, homed in the first region, is in the third; so is nobody else.
    let abroad = Person::log_in(&world.http(THREE[2]), "alice", "alice-tablet").await;
    assert_eq!(abroad.id, people[0].id);
    let mut session = RawSession::open(world.port(THREE[2]), &abroad, &[]).await;
    let mut bob = RawSession::open(world.port(THREE[1]), &people[1], &[]).await;
    let seq = session.send(&talk, "from-abroad", "hello").await;
    assert_eq!(number(&bob.event("message").await["seq"]), seq);
    bob.send(&talk, "back", "hello to you").await;
    let answer = session
        .event_where("message", |message| message["senderId"] == people[1].id.as_str())
        .await;
    assert_eq!(text(&answer["text"]), "hello to you");
    let listed = at(&world, THREE[1], &people[0]).listed(&talk).await.unwrap();
    assert_eq!(number(&listed["lastSeq"]), seq + 1);
}

#[tokio::test]
async fn losing_the_home_loses_nothing_and_strands_nobody() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    // Created in the first region, so it is homed there.
    let talk = people[0].group("trio", &[&people[1], &people[2]]).await;
    for number in 0..20 {
        send_surely(&people[1], &talk, &format!("before-{number}")).await;
    }
    let mut sessions = live(&world, &people).await;
    let before = history(&world, THREE[1], &people[1], &talk).await;

    let (status, answer) = world
        .admin(Method::POST, "/regions/us-east/kill", r#"{"downMs":15000}"#)
        .await;
    assert_eq!(status, 200, "{answer}");
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push(send_surely(&people[2], &talk, &format!("after-{number}")).await);
    }
    assert_eq!(acknowledged, (21..=40).collect::<Vec<_>>());
    // Sent again, at another edge: the same answer as before the fall.
    let again = send_surely(&at(&world, THREE[2], &people[1]), &talk, "before-7").await;
    assert_eq!(again, 8);

    // Those who are connected elsewhere go on without a word.
    for session in &mut sessions[1..] {
        assert_eq!(session.messages(&talk, 20).await, (21..=40).collect::<Vec<_>>());
    }
    let after = history(&world, THREE[2], &people[2], &talk).await;
    assert_eq!(after[..20], before[..]);
    assert_eq!(after.len(), 40);

    // The region returns, catches up, and shows the same.
    until("us-east is back", || async {
        let view = world.admin(Method::GET, "/world", "").await.1;
        let regions = view["regions"].as_array().unwrap();
        regions
            .iter()
            .any(|region| region["name"] == "us-east" && region["state"] == "ready")
            .then_some(())
    })
    .await;
    assert_eq!(history(&world, THREE[0], &people[0], &talk).await, after);
    send_surely(&people[0], &talk, "home-again").await;
}

/// What the directory says, by the admin port of a region.
async fn directory(world: &World, region: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:{}/directory", world.port(region) + 1);
    get(url).await.ok()?.json().await.ok()
}

async fn command(world: &World, region: &str, path: &str, body: &Value) -> Value {
    let url = format!("http://127.0.0.1:{}/directory{path}", world.port(region) + 1);
    let answer = antiphon_client::http_client(None)
        .post(url)
        .json(body)
        .send()
        .await
        .unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    serde_json::from_str(&body).unwrap()
}

async fn homes(world: &World, asked: &str, region: &str) -> Option<u64> {
    let view = directory(world, asked).await?;
    let regions = view["regions"].as_array()?;
    regions.iter().find(|seen| seen["name"] == region)?["homes"].as_u64()
}

#[tokio::test]
async fn a_region_is_drained_without_a_failed_send() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    let talk = people[0].group("trio", &[&people[1], &people[2]]).await;
    assert!(homes(&world, THREE[1], THREE[0]).await.unwrap() > 1_000);

    let sending = async {
        let mut sent = 0_u64;
        // Each send is made once: one that is refused fails the test.
        while homes(&world, THREE[1], THREE[0]).await != Some(0) {
            for (person, number) in people.iter().zip(1..) {
                let answer = person
                    .send_as(&talk, &format!("m-{sent}-{number}"), "while it moves")
                    .await;
                assert_eq!(answer.status, 201, "{answer:?}");
            }
            sent += 1;
        }
        sent
    };
    let draining = command(&world, THREE[2], "/regions/us-east/drain", &Value::Null);
    let (sent, _) = tokio::join!(sending, draining);
    let listed = at(&world, THREE[0], &people[0]).listed(&talk).await.unwrap();
    assert_eq!(number(&listed["lastSeq"]), 3 * sent);
    // Who is there registers and talks as before.
    let dave = world.person(THREE[0], "dave").await;
    dave.send(&dave.group("from a drained region", &[&people[1]]).await, "hello")
        .await;
    let from_old = history(&world, THREE[0], &people[0], &talk).await;
    assert_eq!(history(&world, THREE[2], &people[2], &talk).await, from_old);
}

#[tokio::test]
async fn a_home_that_sleeps_past_its_lease_acknowledges_nothing_when_it_wakes() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    let talk = people[0].group("trio", &[&people[1], &people[2]]).await;
    send_surely(&people[1], &talk, "before").await;
    world.signal_region("STOP", THREE[0]).await;
    // What reaches the sleeping home is answered by it or by nobody, and never twice.
    let asleep = {
        let (person, talk) = (people[0].clone(), talk.clone());
        tokio::spawn(async move { send_surely(&person, &talk, "to-the-sleeping-home").await })
    };
    assert_eq!(send_surely(&people[1], &talk, "while-it-sleeps").await, 2);
    world.signal_region("CONT", THREE[0]).await;
    assert_eq!(asleep.await.unwrap(), 3);
    assert_eq!(send_surely(&people[2], &talk, "after").await, 4);
    let seen = history(&world, THREE[1], &people[1], &talk).await;
    let texts: Vec<&str> = seen.iter().filter_map(|message| message["text"].as_str()).collect();
    assert_eq!(texts, ["before", "while-it-sleeps", "to-the-sleeping-home", "after"]);
    assert_eq!(history(&world, THREE[0], &people[0], &talk).await, seen);
}

#[tokio::test]
async fn sends_that_are_pipelined_to_a_far_home_keep_their_order_while_it_moves() {
    let world = World::start(&THREE).await;
    let people = trio(&world).await;
    let talk = people[0].group("trio", &[&people[1], &people[2]]).await;
    let mut far = RawSession::open(world.port(THREE[2]), &people[2], &[]).await;
    let draining = command(&world, THREE[2], "/regions/us-east/drain", &Value::Null);
    let sending = async {
        let mut seq = 0;
        while homes(&world, THREE[1], THREE[0]).await != Some(0) || seq < 200 {
            let mut asked = Vec::new();
            for number in seq..seq + 50 {
                let body = json!({"conversationId": talk, "clientMsgId": format!("m-{number}"), "text": "in a pipe"});
                asked.push(far.ask("send", &body).await);
            }
            for id in &asked {
                let reply = far.reply(id).await;
                seq += 1;
                assert_eq!(number(&reply["sent"]["seq"]), seq, "{reply}");
            }
            // Below the rate that a session is allowed.
            sleep(Duration::from_millis(60)).await;
        }
    };
    tokio::join!(sending, draining);
}
