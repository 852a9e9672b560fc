//! kill -9 under load loses nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{
    Person, Server, Session,
    checker::{Record, check},
    number, text,
};

const PAIRS: usize = 12;
const MESSAGES_PER_CLIENT: u64 = 850;
const KILLS: u32 = 10;
const IN_FLIGHT: usize = 16;

type History = Arc<Mutex<Vec<Record>>>;

struct Talker {
    who: Person,
    conversation: String,
    port: u16,
    history: History,
    connections: Arc<AtomicU64>,
    sent: u64,
    unacknowledged: BTreeMap<u64, String>,
    held: u64,
    may_end: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn kill9_under_load_loses_nothing() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start().await;
    let history = History::default();
    let (connections, acknowledged) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let may_end = Arc::new(AtomicBool::new(false));
    let mut conversations = Vec::new();
    let mut tasks = Vec::new();
    for pair in 0..PAIRS {
        let (a, b) = (
            server.person(&format!("a-{pair}")).await,
            server.person(&format!("b-{pair}")).await,
        );
        let conversation = server.direct(&a, &b).await;
        for who in [&a, &b] {
            let talker = Talker {
                who: who.clone(),
                conversation: conversation.clone(),
                port: server.port(),
                history: history.clone(),
                connections: connections.clone(),
                sent: 0,
                unacknowledged: BTreeMap::new(),
                held: 0,
                may_end: may_end.clone(),
                acknowledged: acknowledged.clone(),
            };
            tasks.push(tokio::spawn(talker.talk()));
        }
        conversations.push((a, b, conversation));
    }
    let total = MESSAGES_PER_CLIENT * 2 * PAIRS as u64;
    let started = Instant::now();
    let mut downtime = Vec::new();
    for kill in 1..=KILLS {
        // Spread over the load, whatever the speed of the machine.
        let mark = total * u64::from(kill) / u64::from(KILLS + 2);
        while acknowledged.load(Ordering::Relaxed) < mark {
            assert!(started.elapsed() < Duration::from_secs(300), "the load does not move");
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(random.random_range(0..200))).await;
        let killed = Instant::now();
        server.kill9();
        server.launch().await;
        downtime.push(killed.elapsed());
    }
    may_end.store(true, Ordering::Relaxed);
    for task in tasks {
        timeout(Duration::from_secs(180), task)
            .await
            .expect("a client does not come to its end")
            .unwrap();
    }
    let elapsed = started.elapsed();
    for (a, b, conversation) in &conversations {
        for who in [a, b] {
            let messages = server.history(who, conversation).await;
            let messages = messages
                .iter()
                .map(|m| (number(m, "seq"), text(m, "clientMsgId"), text(m, "text")))
                .collect();
            let (reader, conversation) = (who.user_id.clone(), conversation.clone());
            history.lock().push(Record::Final {
                reader,
                conversation,
                messages,
            });
        }
    }
    let history = history.lock();
    let count = |is: fn(&Record) -> bool| history.iter().filter(|record| is(record)).count();
    println!(
        "{KILLS} kills, {} sends, {} acknowledgements, {} pushes, {} receipts in {:.1} s; back after {:.2} s at most",
        count(|record| matches!(record, Record::Send { .. })),
        count(|record| matches!(record, Record::Ack { .. })),
        count(|record| matches!(record, Record::Push { .. })),
        count(|record| matches!(record, Record::Receipt { .. })),
        elapsed.as_secs_f64(),
        downtime.iter().max().unwrap().as_secs_f64(),
    );
    let keys: HashMap<_, _> = history
        .iter()
        .filter_map(|record| match record {
            Record::Ack { conversation, key, seq } => Some(((conversation, key), seq)),
            _ => None,
        })
        .collect();
    assert_eq!(keys.len() as u64, total, "not everything was acknowledged");
    assert_eq!(check(&history), [], "seed {seed}");
}

impl Talker {
    async fn talk(mut self) {
        loop {
            if self.talk_on_one_connection().await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// True when everything is said and acknowledged.
    async fn talk_on_one_connection(&mut self) -> bool {
        let cursors = [(self.conversation.as_str(), self.held)];
        let Ok((mut session, _)) = Session::open_to(self.port, &self.who, &cursors).await else {
            return false;
        };
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut requests: HashMap<String, u64> = HashMap::new();
        let resend: Vec<u64> = self.unacknowledged.keys().copied().collect();
        for number in resend {
            if self.transmit(&mut session, &mut requests, number).await.is_err() {
                return false;
            }
        }
        loop {
            while self.sent < MESSAGES_PER_CLIENT && self.unacknowledged.len() < IN_FLIGHT {
                self.sent += 1;
                self.unacknowledged
                    .insert(self.sent, format!("{} says {}", self.who.device_id, self.sent));
                if self.transmit(&mut session, &mut requests, self.sent).await.is_err() {
                    return false;
                }
            }
            if self.sent == MESSAGES_PER_CLIENT
                && self.unacknowledged.is_empty()
                && self.may_end.load(Ordering::Relaxed)
            {
                return true;
            }
            let Ok(frame) = timeout(Duration::from_millis(500), session.frame()).await else {
                continue;
            };
            let Ok(frame) = frame else { return false };
            if self
                .take(&mut session, connection, &mut requests, &frame)
                .await
                .is_err()
            {
                return false;
            }
        }
    }

    fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.who.device_id)
    }

    async fn transmit(
        &mut self,
        session: &mut Session,
        requests: &mut HashMap<String, u64>,
        number: u64,
    ) -> Result<(), String> {
        let (key, words) = (self.key(number), self.unacknowledged[&number].clone());
        let conversation = self.conversation.clone();
        self.note(Record::Send {
            conversation: conversation.clone(),
            key: key.clone(),
            text: words.clone(),
        });
        let body = json!({ "conversationId": conversation, "clientMsgId": key, "text": words });
        let id = session.post("send", body).await?;
        requests.insert(id, number);
        Ok(())
    }

    async fn take(
        &mut self,
        session: &mut Session,
        connection: u64,
        requests: &mut HashMap<String, u64>,
        frame: &serde_json::Value,
    ) -> Result<(), String> {
        let conversation = self.conversation.clone();
        let asked = frame["id"].as_str().and_then(|id| requests.remove(id));
        if let (Some(asked), false) = (asked, frame["sent"].is_null()) {
            let seq = number(&frame["sent"], "seq");
            self.note(Record::Ack {
                conversation,
                key: self.key(asked),
                seq,
            });
            self.unacknowledged.remove(&asked);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else if let Some(asked) = asked {
            // Refused for now: again on this connection.
            assert!(
                frame["error"]["retryAfterMs"].is_string() || text(&frame["error"], "code") != "INTERNAL",
                "{frame}"
            );
            sleep(Duration::from_millis(20)).await;
            self.transmit(session, requests, asked).await?;
        } else if !frame["message"].is_null() {
            let message = &frame["message"];
            let seq = number(message, "seq");
            let (key, words) = (text(message, "clientMsgId"), text(message, "text"));
            self.note(Record::Push {
                connection,
                conversation: conversation.clone(),
                key,
                seq,
                text: words,
            });
            if seq == self.held + 1 {
                self.held = seq;
            }
            if seq.is_multiple_of(25) {
                let verb = if seq.is_multiple_of(50) { "read" } else { "ack" };
                let field = if verb == "read" { "seq" } else { "deliveredSeq" };
                session
                    .post(verb, json!({ "conversationId": conversation, field: seq.to_string() }))
                    .await?;
            }
        } else if !frame["receipt"].is_null() {
            let receipt = &frame["receipt"];
            let (delivered, read) = (number(receipt, "deliveredSeq"), number(receipt, "readSeq"));
            self.note(Record::Receipt {
                connection,
                conversation,
                user: text(receipt, "userId"),
                delivered,
                read,
            });
        }
        Ok(())
    }

    fn note(&self, record: Record) {
        self.history.lock().push(record);
    }
}
