//! I7 and I8 while a fault is on: who was removed receives nothing more, and two people have one direct conversation.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Http, Person, RawSession,
    http::{Answer, PASSWORD},
    number,
    session::hello,
    text,
    world::World,
};

const TRY: Duration = Duration::from_secs(4);
/// How long something is tried that is not what the drill is about.
const TRIES: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_millis(100);
const MESSAGES_AFTER: usize = 5;

/// The same account, at another region's edge.
pub(crate) fn at(world: &World, region: &str, person: &Person) -> Person {
    Person {
        http: world.http(region),
        ..person.clone()
    }
}

/// Asks one edge after the other until the answer is one of `enough`; None when time is up.
pub(crate) async fn surely(
    edges: &[Http],
    person: &Person,
    (method, path, body): (Method, &str, Option<&Value>),
    enough: &[u16],
    deadline: Instant,
) -> Option<Answer> {
    loop {
        for edge in edges {
            if Instant::now() > deadline {
                return None;
            }
            let asked = edge.try_ask(method.clone(), path, Some(&person.token), body);
            if let Ok(Some(answer)) = timeout(TRY, asked).await
                && enough.contains(&answer.status)
            {
                return Some(answer);
            }
            sleep(TRY_AGAIN).await;
        }
    }
}

/// Registers and logs in, however often that has to be tried.
pub(crate) async fn person(world: &World, region: &str, name: &str) -> Person {
    let deadline = Instant::now() + TRIES;
    let http = world.http(region);
    let body = json!({"username": name, "password": PASSWORD});
    let nobody = Person {
        http: http.clone(),
        id: String::new(),
        name: name.to_owned(),
        device_id: format!("{name}-phone"),
        token: String::new(),
        refresh_token: String::new(),
    };
    let edge = std::slice::from_ref(&http);
    // Taken: by a try whose answer was lost.
    let registered = surely(
        edge,
        &nobody,
        (Method::POST, "/v1/accounts", Some(&body)),
        &[201, 409],
        deadline,
    )
    .await;
    registered.unwrap_or_else(|| panic!("{name} cannot register in {region}"));
    let body = json!({"username": name, "password": PASSWORD, "deviceId": nobody.device_id});
    let tokens = surely(
        edge,
        &nobody,
        (Method::POST, "/v1/tokens", Some(&body)),
        &[200],
        deadline,
    )
    .await;
    let tokens = tokens
        .unwrap_or_else(|| panic!("{name} cannot log in in {region}"))
        .body;
    Person {
        id: text(&tokens["userId"]),
        token: text(&tokens["accessToken"]),
        refresh_token: text(&tokens["refreshToken"]),
        ..nobody
    }
}

/// Creates a group at the edge of a region, however often that has to be tried.
pub(crate) async fn group(world: &World, region: &str, owner: &Person, members: &[&Person]) -> String {
    let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    let body = json!({"kind": "group", "title": "drill", "memberIds": ids});
    let edge = [world.http(region)];
    let asked = (Method::POST, "/v1/conversations", Some(&body));
    let created = surely(&edge, owner, asked, &[201], Instant::now() + TRIES).await;
    text(&created.expect("a group").body["conversationId"])
}

/// Who is removed from a group in the midst of it.
pub(crate) struct Removal {
    owner: Person,
    leaver: Person,
    group: String,
    received: Arc<Mutex<BTreeSet<String>>>,
    listening: JoinHandle<()>,
    stop: CancellationToken,
}

impl Removal {
    /// A group of two that is homed in `home`; who is to leave listens at `edge`.
    pub(crate) async fn prepare(world: &World, home: &str, edge: &str, name: &str) -> Self {
        let owner = person(world, home, &format!("owner-{name}")).await;
        let leaver = person(world, edge, &format!("leaver-{name}")).await;
        let group = group(world, home, &owner, &[&leaver]).await;
        let (received, stop) = (Arc::<Mutex<BTreeSet<String>>>::default(), CancellationToken::new());
        let listener = listen(world.port(edge), (leaver.clone(), group.clone()), received.clone());
        let listening = tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(listener).await;
            }
        });
        let removal = Self {
            owner,
            leaver,
            group,
            received,
            listening,
            stop,
        };
        let body = json!({"clientMsgId": "before", "text": "before"});
        let path = format!("/v1/conversations/{}/messages", removal.group);
        let edges = [world.http(home)];
        let asked = (Method::POST, path.as_str(), Some(&body));
        surely(&edges, &removal.owner, asked, &[200, 201], Instant::now() + TRIES).await;
        let deadline = Instant::now() + TRIES;
        while removal.received.lock().is_empty() && Instant::now() < deadline {
            sleep(TRY_AGAIN).await;
        }
        removal
    }

    /// Removes the member, and sends what it is not to see. What is wrong when it cannot be done in time.
    pub(crate) async fn remove(&self, edges: &[Http], deadline: Instant) -> Result<(), String> {
        let path = format!("/v1/conversations/{}/members/{}", self.group, self.leaver.id);
        // Not there any more: an earlier try whose answer was lost has done it.
        let removed = surely(
            edges,
            &self.owner,
            (Method::DELETE, &path, None),
            &[200, 204, 404],
            deadline,
        )
        .await;
        if removed.is_none() {
            return Err("the member could not be removed".to_owned());
        }
        for at in 0..MESSAGES_AFTER {
            let body = json!({"clientMsgId": after(at), "text": "not for all"});
            let path = format!("/v1/conversations/{}/messages", self.group);
            let sent = surely(
                edges,
                &self.owner,
                (Method::POST, &path, Some(&body)),
                &[200, 201],
                deadline,
            )
            .await;
            if sent.is_none() {
                return Err("nothing could be sent after the removal".to_owned());
            }
        }
        Ok(())
    }

    /// What the removed member saw and must not have seen, after all regions are back.
    pub(crate) async fn judge(self, world: &World, regions: &[String]) -> Vec<String> {
        let mut violations = Vec::new();
        for region in regions {
            let path = format!("/v1/conversations/{}/messages?afterSeq=0", self.group);
            let edge = [world.http(region)];
            let asked = (Method::GET, path.as_str(), None);
            let page = surely(&edge, &self.leaver, asked, &[200, 403, 404], Instant::now() + TRIES).await;
            if page.is_none_or(|page| page.status == 200) {
                violations.push(format!("I7: {region} shows {} to who was removed", self.group));
            }
        }
        self.stop.cancel();
        let _ = self.listening.await;
        let received = self.received.lock();
        if !received.contains("before") {
            violations.push(format!(
                "I7 was not tried: the member of {} never received anything",
                self.group
            ));
        }
        for id in (0..MESSAGES_AFTER).map(after).filter(|id| received.contains(id)) {
            violations.push(format!("I7: {id} of {} reached who was removed", self.group));
        }
        violations
    }
}

fn after(at: usize) -> String {
    format!("after-{at}")
}

/// Keeps all that a session is pushed or can fetch, and comes back when it ends.
async fn listen(port: u16, (person, group): (Person, String), received: Arc<Mutex<BTreeSet<String>>>) {
    loop {
        sleep(TRY_AGAIN).await;
        let Ok(Ok(mut session)) = timeout(TRY, RawSession::try_connect(port)).await else {
            continue;
        };
        let body = hello(&person.token, &person.device_id, &[(&group, 0)]);
        if session.wire.send(&json!({"id": "hello", "hello": body})).await.is_err() {
            continue;
        }
        // A refused Hello ends the connection.
        while let Some(frame) = session.any_event(Duration::from_secs(3_600)).await {
            if frame["message"]["conversationId"] == group.as_str() {
                received.lock().insert(text(&frame["message"]["clientMsgId"]));
            }
        }
    }
}

/// Two who have never talked, and all who open their direct conversation at once.
pub(crate) struct Race {
    pair: [Person; 2],
}

impl Race {
    pub(crate) async fn prepare(world: &World, regions: [&str; 2], name: &str) -> Self {
        let [left, right] = regions;
        Self {
            pair: [
                person(world, left, &format!("left-{name}")).await,
                person(world, right, &format!("right-{name}")).await,
            ],
        }
    }

    /// Both open it at each of the edges, at once. The ids they were given; too few when time is up.
    pub(crate) async fn run(&self, edges: &[Http], deadline: Instant) -> Result<BTreeSet<String>, String> {
        let mut racers = JoinSet::new();
        for edge in edges {
            for (me, peer) in [(0, 1), (1, 0)] {
                let (me, peer) = (self.pair[me].clone(), self.pair[peer].id.clone());
                // Who is nearest first, but nobody gives up because one edge does.
                let mut edges = edges.to_vec();
                edges.insert(0, edge.clone());
                racers.spawn(async move {
                    let body = json!({"kind": "direct", "memberIds": [peer]});
                    let asked = (Method::POST, "/v1/conversations", Some(&body));
                    let answer = surely(&edges, &me, asked, &[200, 201], deadline).await?;
                    Some(text(&answer.body["conversationId"]))
                });
            }
        }
        let ids: Option<BTreeSet<String>> = racers.join_all().await.into_iter().collect();
        ids.ok_or_else(|| "the direct conversation could not be opened".to_owned())
    }

    /// What is wrong with the ids, after all regions are back.
    pub(crate) async fn judge(&self, world: &World, regions: &[String], ids: &BTreeSet<String>) -> Vec<String> {
        let mut ids = ids.clone();
        for region in regions {
            let edge = [world.http(region)];
            for (me, peer) in [(0, 1), (1, 0)] {
                let body = json!({"kind": "direct", "memberIds": [self.pair[peer].id]});
                let asked = (Method::POST, "/v1/conversations", Some(&body));
                let answer = surely(&edge, &self.pair[me], asked, &[200, 201], Instant::now() + TRIES).await;
                ids.insert(answer.map_or_else(
                    || format!("none at {region}"),
                    |answer| text(&answer.body["conversationId"]),
                ));
            }
        }
        if ids.len() == 1 {
            return Vec::new();
        }
        vec![format!("I8: the two have {} direct conversations: {ids:?}", ids.len())]
    }
}

/// The seq that a send was answered with.
pub(crate) fn seq_of(answer: &Answer) -> u64 {
    number(&answer.body["seq"])
}
