//! The faults, and how each is inflicted and taken back.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use tokio::time::sleep;

use crate::{
    disk::Disks,
    operator::{act, command, link},
    support::{until, world::World},
};

/// What a region is to the conversation that a fault is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Home,
    Standby,
    /// Of the directory, and another region than the home.
    Leader,
}
use Role::{Home, Leader, Standby};

/// Which direction of a link is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    There,
    Back,
    Both,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    /// kill -9; it is started again when the fault ends.
    Kill(&'static [Role]),
    /// SIGSTOP, and SIGCONT when the fault ends.
    Sleep(Role),
    Cut(Role, Role, Way, &'static str),
    /// All links of a region.
    Isolate(Role),
    FillDisk(Role),
    Drain(Role),
    /// kill -9 of one node of the region after the other, each when the ones before are back.
    KillNodes(Role),
    /// SIGTERM and a new start of each node of the region that ends no sessions.
    RestartFurtherNodes(Role),
    /// SIGTERM and a new start of each region, one after the other.
    RollingRestart,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// How many regions the world has.
    pub(crate) regions: usize,
    /// How many nodes each region has: with more than one they share a store, which takes FoundationDB.
    pub(crate) nodes: u16,
    pub(crate) blow: Blow,
}

const fn three(name: &'static str, blow: Blow) -> Fault {
    Fault {
        name,
        regions: 3,
        nodes: 1,
        blow,
    }
}

const fn five(name: &'static str, blow: Blow) -> Fault {
    Fault {
        name,
        regions: 5,
        nodes: 1,
        blow,
    }
}

const fn two_nodes(name: &'static str, blow: Blow) -> Fault {
    Fault {
        name,
        regions: 3,
        nodes: 2,
        blow,
    }
}

pub(crate) const FAULTS: &[Fault] = &[
    three("kill-home", Blow::Kill(&[Home])),
    three("kill-standby", Blow::Kill(&[Standby])),
    three("kill-directory-leader", Blow::Kill(&[Leader])),
    three("sleep-home", Blow::Sleep(Home)),
    three("cut-home-leader", Blow::Cut(Home, Leader, Way::Both, "blackhole")),
    three("cut-home-standby", Blow::Cut(Home, Standby, Way::Both, "blackhole")),
    three("cut-home-to-standby", Blow::Cut(Home, Standby, Way::There, "blackhole")),
    three("cut-standby-to-home", Blow::Cut(Home, Standby, Way::Back, "blackhole")),
    three("reset-home-to-standby", Blow::Cut(Home, Standby, Way::There, "reset")),
    three("reset-standby-to-home", Blow::Cut(Home, Standby, Way::Back, "reset")),
    three("cut-home-to-leader", Blow::Cut(Home, Leader, Way::There, "blackhole")),
    three("cut-leader-to-home", Blow::Cut(Home, Leader, Way::Back, "blackhole")),
    three("isolate-home", Blow::Isolate(Home)),
    three("fill-disk-of-standby", Blow::FillDisk(Standby)),
    three("fill-disk-of-home", Blow::FillDisk(Home)),
    three("drain-home", Blow::Drain(Home)),
    three("rolling-restart", Blow::RollingRestart),
    two_nodes("kill-nodes-of-home", Blow::KillNodes(Home)),
    two_nodes("restart-further-node-of-home", Blow::RestartFurtherNodes(Home)),
    two_nodes("drain-home-of-two-nodes", Blow::Drain(Home)),
    two_nodes("kill-home-of-two-nodes", Blow::Kill(&[Home])),
    five("five-kill-home", Blow::Kill(&[Home])),
    five("five-isolate-home", Blow::Isolate(Home)),
    five("five-lose-home-and-leader", Blow::Kill(&[Home, Leader])),
    five("five-lose-home-and-standby", Blow::Kill(&[Home, Standby])),
];

/// The row of this name.
pub(crate) fn fault(name: &str) -> Fault {
    *FAULTS.iter().find(|fault| fault.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        panic!("there is no fault {name}; there are {}", names.join(", "))
    })
}

impl Fault {
    /// The roles that somebody has to play.
    pub(crate) fn roles(&self) -> BTreeSet<Role> {
        match self.blow {
            Blow::Kill(roles) => roles.iter().copied().collect(),
            Blow::Sleep(role)
            | Blow::Isolate(role)
            | Blow::FillDisk(role)
            | Blow::Drain(role)
            | Blow::KillNodes(role)
            | Blow::RestartFurtherNodes(role) => BTreeSet::from([role]),
            Blow::Cut(from, to, ..) => BTreeSet::from([from, to]),
            Blow::RollingRestart => BTreeSet::from([Home]),
        }
    }

    /// What has to be there for it.
    pub(crate) const fn takes(&self) -> &'static str {
        match self.nodes {
            1 => "a process that may mount",
            _ => "FoundationDB (ANTIPHON_TEST_STORE=fdb)",
        }
    }

    pub(crate) const fn fills_disks(&self) -> bool {
        matches!(self.blow, Blow::FillDisk(_))
    }

    /// Whether no send may fail.
    pub(crate) const fn is_smooth(&self) -> bool {
        matches!(self.blow, Blow::Drain(_) | Blow::RestartFurtherNodes(_))
    }

    /// Whether it leaves the home with no slot.
    pub(crate) const fn drains(&self) -> bool {
        matches!(self.blow, Blow::Drain(_))
    }

    /// Inflicts it on the regions that play the roles; it lasts for `lasting` at least.
    pub(crate) async fn inflict(&self, world: &World, disks: &Disks, cast: &Cast, lasting: Duration) {
        match self.blow {
            Blow::Kill(roles) => {
                for role in roles {
                    for at in 0..self.nodes {
                        act(world, &process(cast.region(*role), at), "kill", lasting).await;
                    }
                }
            }
            Blow::Sleep(role) => act(world, cast.region(role), "stop", lasting).await,
            Blow::Cut(from, to, way, state) => {
                let (from, to) = (cast.region(from), cast.region(to));
                if matches!(way, Way::There | Way::Both) {
                    link(world, from, to, state).await;
                }
                if matches!(way, Way::Back | Way::Both) {
                    link(world, to, from, state).await;
                }
            }
            Blow::Isolate(role) => {
                let lost = cast.region(role);
                for other in cast.regions.iter().filter(|other| *other != lost) {
                    link(world, lost, other, "blackhole").await;
                    link(world, other, lost, "blackhole").await;
                }
            }
            Blow::FillDisk(role) => disks.fill(cast.region(role)),
            Blow::Drain(role) => {
                let path = format!("/regions/{}/drain", cast.region(role));
                command(world, &cast.regions, &path, lasting).await;
            }
            Blow::KillNodes(role) => {
                let region = cast.region(role);
                for at in 0..self.nodes {
                    act(world, &process(region, at), "kill", lasting).await;
                    sleep(lasting).await;
                    until_all_run(world).await;
                }
            }
            Blow::RestartFurtherNodes(role) => {
                for at in 1..self.nodes {
                    restart(world, &process(cast.region(role), at)).await;
                }
            }
            Blow::RollingRestart => {
                for region in &cast.regions {
                    restart(world, region).await;
                }
            }
        }
    }

    /// Takes it back.
    pub(crate) async fn heal(&self, world: &World, disks: &Disks, cast: &Cast) {
        match self.blow {
            // They come back by themselves.
            Blow::Kill(_) | Blow::KillNodes(_) | Blow::RestartFurtherNodes(_) | Blow::RollingRestart => {}
            Blow::Sleep(role) => act(world, cast.region(role), "cont", Duration::ZERO).await,
            Blow::Cut(..) | Blow::Isolate(_) => {
                for from in &cast.regions {
                    for to in cast.regions.iter().filter(|to| *to != from) {
                        link(world, from, to, "up").await;
                    }
                }
            }
            Blow::FillDisk(role) => disks.empty(cast.region(role)),
            Blow::Drain(role) => {
                let path = format!("/regions/{}/undrain", cast.region(role));
                command(world, &cast.regions, &path, Duration::from_secs(20)).await;
            }
        }
    }
}

/// What the process of a region's node is called, counted from 0.
pub(crate) fn process(region: &str, node: u16) -> String {
    match node {
        0 => region.to_owned(),
        further => format!("{region}.{}", further + 1),
    }
}

/// Ends a process, and waits for the next one to be ready.
async fn restart(world: &World, process: &str) {
    let before = world.pid(process);
    act(world, process, "restart", Duration::ZERO).await;
    until(&format!("a new process of {process}"), || async {
        world.pid(process).filter(|pid| Some(*pid) != before)
    })
    .await;
    until_all_run(world).await;
}

async fn until_all_run(world: &World) {
    until("every process runs", || async {
        let (_, view) = world.admin(Method::GET, "/world", "").await;
        (view["ready"] == true).then_some(())
    })
    .await;
}

/// Who plays which role in a round.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) regions: Vec<String>,
    pub(crate) home: String,
    pub(crate) standby: String,
    pub(crate) leader: String,
}

impl Cast {
    pub(crate) fn region(&self, role: Role) -> &str {
        match role {
            Home => &self.home,
            Standby => &self.standby,
            Leader => &self.leader,
        }
    }
}
