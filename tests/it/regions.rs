//! Three regions as their users see them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Person, RawSession, number, text, until, world::World};

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
