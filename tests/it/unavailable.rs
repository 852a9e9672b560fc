//! One region down hides no conversation, and neither do two: those that cannot be reached are said to be.

use std::time::Duration;

use antiphon_types::ConversationId;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::members::ctl;
use crate::support::{Person, RawSession, number, until, world::World};

const FIVE: [&str; 5] = ["us-east", "eu-central", "ap-northeast", "eu-west", "us-west"];
/// Hello asks a slot that does not answer for 2 s; machines that run tests are busy.
const WELCOME: Duration = Duration::from_secs(8);
const AWAY_MS: u64 = 20_000;
const BACK: Duration = Duration::from_secs(120);

/// Home and standby of a conversation.
async fn copies(world: &World, talk: &str) -> Vec<String> {
    let slot = talk.parse::<ConversationId>().unwrap().slot().number();
    let slots: Value = serde_json::from_str(&ctl(world, FIVE[0], &["slots", "--json"]).await).unwrap();
    let placement = slots
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["slot"] == slot)
        .unwrap();
    serde_json::from_value(placement["inSync"].clone()).unwrap()
}

#[tokio::test]
async fn a_conversation_whose_home_and_standby_are_lost_hides_no_other_and_resumes_when_they_are_back() {
    let world = World::start(&FIVE).await;
    let mut people = Vec::new();
    for region in FIVE {
        people.push((region, world.person(region, &format!("of-{region}")).await));
    }
    let others: Vec<&Person> = people[1..].iter().map(|(_, person)| person).collect();
    let lost = people[0].1.group("lost", &others).await;
    let down = copies(&world, &lost).await;
    assert_eq!((down[0].as_str(), down.len()), (FIVE[0], 2));
    let mut up = people
        .iter()
        .filter(|(region, _)| down.iter().all(|lost| lost != region));
    let ((edge, alice), (_, bob)) = (up.next().unwrap(), up.next().unwrap());
    // What alice cannot do without is her own list, which lives where she registered.
    let talk = alice.group("talk", &[bob]).await;
    until("alice has both conversations", || async {
        (alice.listed(&lost).await.is_some() && alice.listed(&talk).await.is_some()).then_some(())
    })
    .await;
    for text in ["one", "two"] {
        people[0].1.send(&lost, text).await;
    }

    for region in &down {
        let path = format!("/regions/{region}/kill");
        let killed = world
            .admin(Method::POST, &path, &format!(r#"{{"downMs":{AWAY_MS}}}"#))
            .await;
        assert_eq!(killed.0, 200, "{}", killed.1);
    }
    let began = Instant::now();
    let mut session = RawSession::open(world.port(edge), alice, &[(&lost, 1)]).await;
    assert!(began.elapsed() < WELCOME, "{:?}", began.elapsed());
    let unavailable = session.welcome["unavailable"].as_array().unwrap();
    assert!(
        unavailable.iter().any(|it| it["conversationId"] == lost.as_str()),
        "{}",
        session.welcome
    );
    let listed = alice.listed(&lost).await.unwrap();
    assert_eq!(
        (listed["unavailable"].as_bool(), listed.get("lastSeq")),
        (Some(true), None),
        "{listed}"
    );

    // The other conversation is used meanwhile, as soon as it has another copy if it had one there.
    until("the other conversation is written to", || async {
        let sent = alice.send_as(&talk, "meanwhile", "meanwhile").await;
        [200, 201].contains(&sent.status).then_some(())
    })
    .await;
    let listed = alice.listed(&talk).await.unwrap();
    assert_eq!(number(&listed["lastSeq"]), 1, "{listed}");

    let deadline = Instant::now() + BACK;
    let (mut resumed, mut seqs) = (Value::Null, Vec::new());
    while seqs.last() != Some(&2) {
        assert!(Instant::now() < deadline, "it is not resumed: {resumed} {seqs:?}");
        // Whoever says nothing for a minute is taken for dead.
        session.request("ping", &json!({})).await;
        let Some(frame) = session.any_event(Duration::from_secs(1)).await else {
            continue;
        };
        if frame["resumed"]["conversationId"] == lost.as_str() {
            resumed = frame["resumed"].clone();
        } else if frame["message"]["conversationId"] == lost.as_str() {
            assert_eq!(number(&resumed["tailSeq"]), 2, "before what it missed: {frame}");
            seqs.push(number(&frame["message"]["seq"]));
        }
    }
    assert_eq!(seqs, [2]);
    until("alice's list knows it again", || async {
        alice
            .listed(&lost)
            .await
            .filter(|listed| number(&listed["lastSeq"]) == 2)
    })
    .await;
}
