//! One world: regions, devices, what goes wrong, and how it ends. The seed decides everything.

mod weather;

use std::sync::Arc;

use antiphon_directory::{Dialer, domain::Command};
use antiphon_types::{Clock, ConversationId, Slot, UserId};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::sync::{mpsc, watch};

use crate::{
    client::{self, Client, Phase, Talk},
    engine::{Disk, Store, Temper},
    faults,
    host::Host,
    judge,
    ledger::Ledger,
    network::{HostId, Network},
    region::{self, EDGE_PORT, NODE_PORT, Seat},
};

/// How far the world goes at once, in microseconds.
const TICK_US: u64 = 5_000;
/// When faults begin: the deployment is founded by then.
const STORM_FROM_US: u64 = 1_500_000;
/// When everything is healed.
const STORM_TO_US: u64 = 8_500_000;
/// How long after that everybody must have been answered.
const HEALED_WITHIN_US: u64 = 20_000_000;
/// How long the last reads may take, and then the copies to become the same.
const SETTLED_WITHIN_US: u64 = 10_000_000;
/// Where the wall clocks begin.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Talks, each in a slot of its own.
const TALKS: u16 = 3;

/// How a world ended.
pub(crate) struct Outcome {
    pub(crate) trace: String,
    pub(crate) violations: Vec<String>,
    /// What happened, in numbers.
    pub(crate) summary: String,
}

/// Lets the world of `seed` happen.
pub(crate) fn run(seed: u64) -> Outcome {
    World::new(seed).run()
}

struct World {
    random: SmallRng,
    now_us: u64,
    names: Vec<String>,
    regions: Vec<Region>,
    devices: Host,
    network: Network,
    ways_us: Vec<Vec<u64>>,
    slots: Vec<Slot>,
    talks: Vec<Talk>,
    ledger: Ledger,
    phase: watch::Sender<Phase>,
    temper: Temper,
}

/// A region, up or down.
struct Region {
    host: Host,
    directory: Arc<Disk>,
    store: Arc<Disk>,
    open: Option<(Arc<Store>, Arc<Store>)>,
    commands: Option<mpsc::Sender<Command>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = if random.random_range(0..12) == 0 { 5 } else { 3 };
        let names: Vec<String> = (1..=count).map(|number| format!("r{number}")).collect();
        let mut hosts = names.clone();
        hosts.push("devices".to_owned());
        let network = Network::new(random.random(), &hosts, (500, 2_000));
        let slots: Vec<Slot> = (0..TALKS).filter_map(Slot::new).collect();
        let talks = slots.iter().enumerate().map(|(number, slot)| {
            let mut id = || random.random();
            Talk {
                number,
                conversation: ConversationId::new(*slot, EPOCH_MS, id()),
                members: [UserId::new(*slot, EPOCH_MS, id()), UserId::new(*slot, EPOCH_MS, id())],
            }
        });
        let talks = talks.collect();
        let regions = names.iter().map(|_| Region {
            host: Host::new(random.random_range(-10_000..=10_000), Clock::manual(EPOCH_MS)),
            directory: Disk::new(random.random()),
            store: Disk::new(random.random()),
            open: None,
            commands: None,
        });
        let regions = regions.collect();
        let ways_us = (0..count).map(|_| (0..count).map(|_| random.random_range(1_000..40_000)).collect());
        let ways_us = ways_us.collect();
        let slow_disks = random.random_bool(0.2);
        let temper = Temper {
            commit_us_max: random.random_range(0..if slow_disks { 60_000 } else { 8_000 }),
            unknown_permille: if random.random_bool(0.3) { 5 } else { 0 },
        };
        Self {
            now_us: 0,
            regions,
            devices: Host::new(0, Clock::manual(EPOCH_MS)),
            ledger: Ledger::new(hosts),
            names,
            network,
            ways_us,
            slots,
            talks,
            phase: watch::Sender::new(Phase::Storm),
            temper,
            random,
        }
    }

    fn run(mut self) -> Outcome {
        let planned = faults::plan(
            &mut self.random,
            self.names.len(),
            self.slots.len(),
            STORM_FROM_US,
            STORM_TO_US,
        );
        self.links(&[]);
        for region in 0..self.regions.len() {
            self.start(region);
        }
        self.start_devices();
        self.storm(&planned);
        self.heal();
        self.settle();
        let summary = self.ledger.with(|book| {
            let acknowledged: usize = book.acknowledged.values().map(std::collections::BTreeMap::len).sum();
            format!(
                "{} regions, {} faults, {acknowledged} messages, {} entries, {} s",
                self.names.len(),
                planned.len(),
                book.entries.len(),
                self.now_us / 1_000_000
            )
        });
        // Nothing may be running that still writes.
        self.regions.iter_mut().for_each(|region| region.host.kill());
        self.devices.kill();
        Outcome {
            violations: self.ledger.with(|book| std::mem::take(&mut book.violations)),
            trace: self.ledger.take_trace(),
            summary,
        }
    }

    fn start(&mut self, at: HostId) {
        let Some(region) = self.regions.get_mut(at) else { return };
        let (commands, asked) = mpsc::channel(64);
        self.network.back(at);
        let calm = Temper {
            unknown_permille: 0,
            ..self.temper
        };
        let nodes = self.network.listen(at, NODE_PORT);
        let clients = self.network.listen(at, EDGE_PORT);
        let (names, slots, clock) = (self.names.clone(), self.slots.clone(), region.host.clock.clone());
        let (dialer, ledger) = (Dialer::over(self.network.connector(at)), self.ledger.clone());
        region.host.start(|| {
            // A voter takes no commit for unknown: it would stop for good.
            let directory = Store::open(&region.directory, calm);
            let store = Store::open(&region.store, self.temper);
            region.open = Some((directory.clone(), store.clone()));
            region.commands = Some(commands);
            region::run(Seat {
                host: at,
                names,
                slots,
                directory,
                store,
                dialer,
                nodes,
                clients,
                clock,
                ledger,
                commands: asked,
            })
        });
        self.ledger.note(at, "starts");
    }

    fn start_devices(&mut self) {
        let host = self.names.len();
        let regions: Arc<[String]> = self.names.clone().into();
        let mut clients = Vec::new();
        for talk in &self.talks {
            for member in 0..talk.members.len() {
                clients.push(Client {
                    host,
                    talk: *talk,
                    member,
                    regions: regions.clone(),
                    dialer: Dialer::over(self.network.connector(host)),
                    ledger: self.ledger.clone(),
                    random: SmallRng::seed_from_u64(self.random.random()),
                    phase: self.phase.subscribe(),
                    pause_ms_max: self.random.random_range(200..2_500),
                    answered_by: None,
                });
            }
        }
        let twins = |member| {
            clients
                .iter()
                .filter(move |client| client.member == member)
                .map(Client::twin)
        };
        let (followers, readers): (Vec<Client>, Vec<Client>) = (twins(0).collect(), twins(1).collect());
        self.devices.start(|| async move {
            for client in clients {
                tokio::spawn(client.run());
            }
            for follower in followers {
                tokio::spawn(client::follow(follower));
            }
            for reader in readers {
                tokio::spawn(client::look(reader));
            }
        });
    }

    fn heal(&mut self) {
        self.links(&[]);
        for at in 0..self.regions.len() {
            self.regions[at].host.thaw();
            if !self.regions[at].host.is_up() {
                self.start(at);
            }
        }
        self.ledger.note(HostId::MAX, "everything is healed");
        self.phase.send_replace(Phase::Healed);
        let clients: usize = self.talks.iter().map(|talk| talk.members.len()).sum();
        let all_answered = |world: &Self| world.ledger.with(|book| book.healed) == clients;
        if !self.until(HEALED_WITHIN_US, all_answered) {
            let answered = self.ledger.with(|book| book.healed);
            let seconds = HEALED_WITHIN_US / 1_000_000;
            let what = format!("liveness: {answered} of {clients} clients were answered within {seconds} s");
            self.ledger.violation(what);
        }
    }

    fn settle(&mut self) {
        self.phase.send_replace(Phase::Over);
        let all_read = |world: &Self| {
            let read = world
                .ledger
                .with(|book| book.last_read.values().map(Vec::len).sum::<usize>());
            read == world.talks.iter().map(|talk| talk.members.len()).sum::<usize>()
        };
        if !self.until(SETTLED_WITHIN_US, all_read) {
            self.ledger
                .violation("liveness: not everybody could read at the end".to_owned());
        }
        let same = |world: &Self| judge::differing(&world.slots, &world.stores()).is_none();
        if !self.until(SETTLED_WITHIN_US, same)
            && let Some(what) = judge::differing(&self.slots, &self.stores())
        {
            self.ledger.violation(what);
        }
        judge::judge(&self.ledger, &self.slots, &self.stores());
    }

    fn stores(&self) -> Vec<Arc<Disk>> {
        self.regions.iter().map(|region| region.store.clone()).collect()
    }

    /// Goes on until `reached`, for `within_us` at most; whether it was reached.
    fn until(&mut self, within_us: u64, reached: impl Fn(&Self) -> bool) -> bool {
        let deadline_us = self.now_us + within_us;
        let mut ticks = 0_u32;
        while self.now_us < deadline_us {
            self.tick();
            ticks += 1;
            if ticks.is_multiple_of(20) && reached(self) {
                return true;
            }
        }
        false
    }

    fn tick(&mut self) {
        self.now_us += TICK_US;
        self.ledger.tick(self.now_us);
        self.network.step(self.now_us);
        for region in &mut self.regions {
            region.host.step(TICK_US);
        }
        self.devices.step(TICK_US);
    }
}
