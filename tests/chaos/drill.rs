//! A world under load, and faults that strike it one after the other.

mod judging;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_probe::{Event, Recorder};
use antiphon_types::ConversationId;
use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Counts, Load},
    disk::Disks,
    faults::{Cast, Fault, Role, process},
    homes,
    operator::{Kept, command, directory_of_any, kept, missing, picture},
    rules::{Race, Removal, group, person, seq_of, surely},
    support::{Http, Person, store, world::World},
};

const NAMES: [&str; 5] = ["us-east", "eu-central", "ap-northeast", "eu-west", "us-west"];
/// How long a fault lasts at least: past a lease, and past the time in which another home is found.
const LASTS: Duration = Duration::from_secs(6);
/// By then each conversation has to be writable, and by then after a fault all has to be as before.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE_MS: std::ops::Range<u64> = 100..300;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Sessions of probes in the history: not those of clients.
const PROBES: u64 = u64::MAX - 1;

/// A world, its load, and what was seen of it.
pub(crate) struct Drill {
    /// Before the world, whose folder goes with it.
    disks: Disks,
    world: World,
    regions: Vec<String>,
    /// Of each region.
    nodes: u16,
    talks: Vec<Talk>,
    recorder: Recorder,
    counts: Arc<Counts>,
    clients: JoinSet<()>,
    stop: CancellationToken,
    rounds: u64,
    /// A line for each round.
    pub(crate) lines: Vec<String>,
    /// What was wrong.
    pub(crate) failures: Vec<String>,
}

/// A conversation with a member in each region.
struct Talk {
    id: String,
    slot: u16,
    members: Vec<Person>,
}

impl Drill {
    /// Starts a world of so many regions, of so many nodes each, and its load; None when it needs disks that this process may not
    /// mount, or FoundationDB.
    pub(crate) async fn start(
        (regions, nodes): (usize, u16),
        talks_of_each: usize,
        disks: bool,
        seed: u64,
    ) -> Option<Self> {
        let names = &NAMES[..regions];
        let mut world = World::stopped(names);
        if nodes > 1 {
            store::cluster()?;
            world.flag(&format!("--nodes={nodes}"));
        }
        for flag in [
            "--wan",
            "--set=edge.credential_rate_per_second=0",
            "--set=edge.address_rate_per_second=0",
            "--set=edge.handshake_rate_per_second=0",
        ]
        .into_iter()
        .chain(homes::FLAGS)
        {
            world.flag(flag);
        }
        let regions: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let disks = match disks {
            true => Disks::mount(&world.data(), &regions)?,
            false => Disks::default(),
        };
        world.restart().await;
        let mut drill = Self {
            disks,
            world,
            regions,
            nodes,
            talks: Vec::new(),
            recorder: Recorder::new(),
            counts: Arc::default(),
            clients: JoinSet::new(),
            stop: CancellationToken::new(),
            rounds: 0,
            lines: Vec::new(),
            failures: Vec::new(),
        };
        drill.load(talks_of_each, seed).await;
        Some(drill)
    }

    /// Conversations that are homed in each region, and a client in each region for each of them.
    async fn load(&mut self, talks_of_each: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let deadline = Instant::now() + Duration::from_secs(3_600);
        for (index, home) in self.regions.iter().enumerate() {
            for number in 0..talks_of_each {
                let joining = self.regions.iter().map(|region| {
                    let name = format!("{region}-{index}-{number}");
                    let world = &self.world;
                    async move { person(world, region, &name).await }
                });
                let members = join_all(joining).await;
                let others: Vec<&Person> = members.iter().filter(|member| member.id != members[index].id).collect();
                let id = group(&self.world, home, &members[index], &others).await;
                let slot = id.parse::<ConversationId>().unwrap().slot().number();
                self.talks.push(Talk { id, slot, members });
            }
        }
        for talk in &self.talks {
            for (index, member) in talk.members.iter().enumerate() {
                let mut edges: Vec<u16> = self.regions.iter().map(|region| self.world.port(region)).collect();
                edges.rotate_left(index);
                let load = Load::Paced {
                    pause_ms: PAUSE_MS,
                    stop: self.stop.clone(),
                };
                let shared = (self.recorder.clone(), self.counts.clone());
                let client = Client::new(member.clone(), talk.id.clone(), &edges, load, random.random(), shared);
                self.clients.spawn(client.run(deadline));
            }
        }
    }

    /// One round of a fault, from a whole deployment to a whole deployment. Whether it became whole again.
    pub(crate) async fn round(&mut self, fault: &Fault) -> bool {
        self.rounds += 1;
        let failures_before = self.failures.len();
        if let Err(why) = self.whole(PATIENCE).await {
            return self.give_up(fault, "before the fault", why).await;
        }
        let Some(cast) = self.cast(fault).await else {
            return self
                .give_up(fault, "before the fault", "nobody plays the roles".to_owned())
                .await;
        };
        let name = format!("{}", self.rounds);
        let other = cast.regions.iter().find(|region| **region != cast.home).unwrap();
        let (removal, race) = tokio::join!(
            Removal::prepare(&self.world, &cast.home, other, &name),
            Race::prepare(&self.world, [&cast.home, other], &name)
        );
        let before = Counted::of(&self.counts);

        let began = Instant::now();
        let deadline = began + PATIENCE;
        let edges: Vec<Http> = self.regions.iter().map(|region| self.world.http(region)).collect();
        let inflicting = async {
            fault.inflict(&self.world, &self.disks, &cast, LASTS).await;
            match fault.drains() {
                true => self.drained(&cast, deadline).await,
                false => Ok(()),
            }
        };
        // What is asked for after the fault has struck proves something.
        let asking = async {
            sleep(LOOK_AGAIN).await;
            let probing = self.writable(&edges, "probe", deadline);
            tokio::join!(probing, removal.remove(&edges, deadline), race.run(&edges, deadline))
        };
        let (drained, (writable, removed, ids)) = tokio::join!(inflicting, asking);
        sleep_until(began + LASTS).await;
        let smooth = Counted::of(&self.counts).since(&before);
        fault.heal(&self.world, &self.disks, &cast).await;

        let healed = Instant::now();
        let whole = self.whole(PATIENCE).await;
        let writable_again = match &whole {
            Ok(_) => self.writable_everywhere(healed + PATIENCE).await,
            Err(_) => Err("the deployment is not whole".to_owned()),
        };
        let counted = Counted::of(&self.counts).since(&before);
        if fault.is_smooth() && smooth.refused + smooth.resent > 0 {
            self.failures.push(format!(
                "{}: {} sends were refused and {} resent",
                fault.name, smooth.refused, smooth.resent
            ));
        }
        if whole.is_ok() && writable_again.is_ok() {
            self.failures.extend(removal.judge(&self.world, &self.regions).await);
            match &ids {
                Ok(ids) => self.failures.extend(race.judge(&self.world, &self.regions, ids).await),
                Err(why) => self.failures.push(format!("I8 was not tried: {why}")),
            }
        }
        for (what, result) in [
            ("draining", drained.err()),
            ("I7", removed.err()),
            ("writing", writable.as_ref().err().cloned()),
        ] {
            self.failures
                .extend(result.map(|why| format!("{}: {what}: {why}", fault.name)));
        }
        while let Some(ended) = self.clients.try_join_next() {
            self.failures
                .push(format!("{}: a client ended: {:?}", fault.name, ended.err()));
        }
        self.tell(
            fault,
            &cast,
            [&writable, &whole, &writable_again],
            counted,
            failures_before,
        );
        match whole.and(writable_again) {
            Ok(_) => true,
            Err(why) => self.give_up(fault, "after the fault", why).await,
        }
    }

    /// Keeps the logs of the regions where they can be read after the end.
    pub(crate) fn keep_logs(&self, name: &str) {
        let folder = kept_in().join(name);
        fs::create_dir_all(&folder).unwrap();
        for region in &self.regions {
            for process in (0..self.nodes).map(|at| process(region, at)) {
                let _ = fs::copy(self.world.data().join(&process).join("log"), folder.join(process));
            }
        }
        fs::write(folder.join("world"), self.world.log()).unwrap();
        eprintln!("the logs are in {}", folder.display());
    }

    /// Says what is wrong, and that nothing more can be tried here.
    async fn give_up(&mut self, fault: &Fault, when: &str, why: String) -> bool {
        let picture = picture(&self.world, &self.regions).await;
        eprintln!("{} {when}: {why}\n{picture}", fault.name);
        self.failures.push(format!("{} {when}: {why}", fault.name));
        false
    }

    /// Waits until the deployment is whole; how long it took.
    async fn whole(&self, patience: Duration) -> Result<u128, String> {
        let began = Instant::now();
        loop {
            let Some(why) = missing(&self.world, &self.regions).await else {
                return Ok(began.elapsed().as_millis());
            };
            if began.elapsed() > patience {
                return Err(why);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Finds a conversation whose regions play the roles of the fault; when there is none, homes are spread anew.
    async fn cast(&self, fault: &Fault) -> Option<Cast> {
        let slots: Vec<u16> = self.talks.iter().map(|talk| talk.slot).collect();
        for _ in 0..20 {
            let view = directory_of_any(&self.world, &self.regions, "").await?;
            let leader = view["leader"].as_str().unwrap_or_default().to_owned();
            let first = usize::try_from(self.rounds).unwrap() % slots.len();
            let mut kept = kept(&self.world, &self.regions, &slots).await.unwrap_or_default();
            let first = first.min(kept.len());
            kept.rotate_left(first);
            let roles = fault.roles();
            let fits = |kept: &&Kept| {
                let standby_fits = !roles.contains(&Role::Standby) || kept.standby.is_some();
                standby_fits && (!roles.contains(&Role::Leader) || kept.home != leader)
            };
            if let Some(found) = kept.iter().find(fits) {
                return Some(Cast {
                    regions: self.regions.clone(),
                    home: found.home.clone(),
                    standby: found.standby.clone().unwrap_or_default(),
                    leader,
                });
            }
            command(&self.world, &self.regions, "/rebalance", Duration::from_secs(5)).await;
            sleep(Duration::from_secs(1)).await;
        }
        None
    }

    /// Waits until the home that drains is home of nothing.
    async fn drained(&self, cast: &Cast, deadline: Instant) -> Result<(), String> {
        let mut left = "the directory does not answer".to_owned();
        while Instant::now() < deadline {
            let view = directory_of_any(&self.world, &self.regions, "")
                .await
                .unwrap_or_default();
            let regions = view["regions"].as_array().into_iter().flatten();
            let mut drained = regions.filter(|region| region["name"] == cast.home.as_str());
            if let Some(region) = drained.next() {
                if region["homes"] == 0 {
                    return Ok(());
                }
                left = format!("{} is still home of {} slots", cast.home, region["homes"]);
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(left)
    }

    /// Has every conversation written to by one edge or another; how long the last of them took.
    async fn writable(&self, edges: &[Http], name: &str, deadline: Instant) -> Result<u128, String> {
        let began = Instant::now();
        let probes = self.talks.iter().map(|talk| async move {
            let member = &talk.members[0];
            let id = format!("{name}-{}", self.rounds);
            self.recorder.note(sent(member, talk, &id));
            // At all edges at once: each of them may be the one that cannot.
            let asked = edges.iter().map(|edge| {
                let id = id.clone();
                Box::pin(async move {
                    let body = json!({"clientMsgId": id, "text": id});
                    let path = format!("/v1/conversations/{}/messages", talk.id);
                    let edge = std::slice::from_ref(edge);
                    let asked = (Method::POST, path.as_str(), Some(&body));
                    match surely(edge, member, asked, &[200, 201], deadline).await {
                        Some(answer) => Ok(seq_of(&answer)),
                        None => Err(()),
                    }
                })
            });
            let (seq, _) = futures_util::future::select_ok(asked)
                .await
                .map_err(|()| talk.id.clone())?;
            self.recorder.note(acknowledged(member, talk, &id, seq));
            Ok::<(), String>(())
        });
        let not_written: Vec<String> = join_all(probes).await.into_iter().filter_map(Result::err).collect();
        if not_written.is_empty() {
            return Ok(began.elapsed().as_millis());
        }
        Err(format!("nobody can write to {}", not_written.join(", ")))
    }

    /// Has every conversation written to by every edge; how long the last of them took.
    async fn writable_everywhere(&self, deadline: Instant) -> Result<u128, String> {
        let began = Instant::now();
        let probes = self.regions.iter().map(|region| async move {
            let edge = [self.world.http(region)];
            let written = self.writable(&edge, &format!("again-{region}"), deadline).await;
            written.map_err(|why| format!("{region}: {why}"))
        });
        for written in join_all(probes).await {
            written?;
        }
        Ok(began.elapsed().as_millis())
    }

    fn tell(
        &mut self,
        fault: &Fault,
        cast: &Cast,
        [writable, whole, again]: [&Result<u128, String>; 3],
        counted: Counted,
        failures_before: usize,
    ) {
        let ms = |result: &Result<u128, String>| match result {
            Ok(ms) => ms.to_string(),
            Err(_) => "never".to_owned(),
        };
        let mut line = format!(
            "{:26} writable {:>6} ms, whole {:>6} ms, everywhere {:>5} ms, {:>5} sent, {:>4} refused, {:>4} resent, p99 {:>6} ms, {} violations",
            fault.name,
            ms(writable),
            ms(whole),
            ms(again),
            counted.acknowledged,
            counted.refused,
            counted.resent,
            counted.p99_ms,
            self.failures.len() - failures_before
        );
        let _ = write!(
            line,
            " (home {}, standby {}, leader {})",
            cast.home, cast.standby, cast.leader
        );
        eprintln!("{line}");
        self.lines.push(line);
        for failure in &self.failures[failures_before..] {
            eprintln!("    {failure}");
        }
    }
}

/// Where a run leaves what somebody may want to read.
fn kept_in() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos")
}

fn sent(member: &Person, talk: &Talk, id: &str) -> Event {
    Event::Send {
        session: PROBES,
        user: member.id.clone(),
        conversation: talk.id.clone(),
        client_msg_id: id.to_owned(),
        text: id.to_owned(),
    }
}

fn acknowledged(member: &Person, talk: &Talk, id: &str, seq: u64) -> Event {
    Event::Ack {
        session: PROBES,
        user: member.id.clone(),
        conversation: talk.id.clone(),
        client_msg_id: id.to_owned(),
        seq,
    }
}

/// What the clients have counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    acknowledged: u64,
    refused: u64,
    resent: u64,
    p99_ms: u64,
}

impl Counted {
    /// Up to now; latencies since the last time.
    fn of(counts: &Counts) -> Self {
        let mut took_ms = std::mem::take(&mut *counts.took_ms.lock());
        took_ms.sort_unstable();
        Self {
            acknowledged: counts.acknowledged.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            resent: counts.resent.load(Ordering::Relaxed),
            p99_ms: took_ms.get(took_ms.len() * 99 / 100).copied().unwrap_or_default(),
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged - before.acknowledged,
            refused: self.refused - before.refused,
            resent: self.resent - before.resent,
            p99_ms: self.p99_ms,
        }
    }
}
