//! An entry between a feed that loses things and a home that knows.

use std::collections::BTreeMap;

use antiphon_types::{Seq, Slot, UserId};
use proptest::{collection::vec, prelude::*};

use super::entry::{Entry, FillRound, GoLive, Next};

const USERS: u64 = 4;

fn user(number: u64) -> UserId {
    UserId::new(Slot::DEPLOYMENT, 1, number)
}

/// What the home's log says, in order.
#[derive(Debug, Clone, Copy)]
enum Logged {
    Message(Seq),
    Removed(u64, u64),
    Added,
}

#[derive(Debug, Clone)]
enum Step {
    Send,
    Remove(u64),
    Add(u64),
    /// The feed brings the next item.
    Feed,
    /// The feed drops its queue and tells the tail.
    Overflow,
    /// The feed drops one item without a word.
    Lose,
    Disconnect,
    /// The feed follows again; it tells a tail that was read now, later.
    Connect,
    TellTail,
    /// A device of the user opens a session, or closes it.
    Join(u64),
    Leave(u64),
    /// A waiting session reads history up to this many messages.
    CatchUp(u64, usize),
    /// The running fill does one round, reading up to this many messages.
    Fill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..USERS;
    prop_oneof![
        6 => Just(Step::Send),
        2 => who.clone().prop_map(Step::Remove),
        2 => who.clone().prop_map(Step::Add),
        8 => Just(Step::Feed),
        1 => Just(Step::Overflow),
        1 => Just(Step::Lose),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
        3 => Just(Step::TellTail),
        3 => who.clone().prop_map(Step::Join),
        1 => who.clone().prop_map(Step::Leave),
        6 => (who, 1_usize..4).prop_map(|(who, pages)| Step::CatchUp(who, pages)),
        4 => (1_usize..4).prop_map(Step::Fill),
    ]
}

/// A session as its device sees it.
#[derive(Debug, Default)]
struct Device {
    /// First seq that it was to get: what it held when it came.
    after: Seq,
    got: Vec<Seq>,
    /// It has read up to here, by a check that began in this epoch, and has not said so yet.
    read: Option<(Seq, u64)>,
    live: bool,
}

#[derive(Default)]
struct World {
    log: Vec<Logged>,
    /// What the feed has not brought yet; `None`: not connected.
    queue: Option<usize>,
    /// Read from the home and not told yet.
    untold_tail: Option<Seq>,
    tail: Seq,
    version: u64,
    members: BTreeMap<u64, u64>,
    entry: Entry<u64>,
    devices: BTreeMap<u64, Device>,
    filling: bool,
    /// What the running fill has read and found to be gone, and has not passed on yet.
    round: Option<(FillRound, Vec<u64>, Seq)>,
    /// The feed has lost something without a word.
    has_lost: bool,
    /// For each user the tails at which they were removed and added again.
    removed_at: BTreeMap<u64, Seq>,
}

impl World {
    fn push(devices: &mut BTreeMap<u64, Device>, who: u64, seq: Seq) {
        devices
            .get_mut(&who)
            .expect("only sessions that are here are pushed to")
            .got
            .push(seq);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send => {
                self.tail += 1;
                self.log.push(Logged::Message(self.tail));
            }
            Step::Remove(who) => {
                if self.members.remove(&who).is_some() {
                    self.version += 1;
                    self.log.push(Logged::Removed(who, self.version));
                    self.removed_at.insert(who, self.tail);
                }
            }
            Step::Add(who) => {
                if !self.members.contains_key(&who) {
                    self.version += 1;
                    self.members.insert(who, self.version);
                    self.log.push(Logged::Added);
                    self.removed_at.remove(&who);
                }
            }
            Step::Feed => self.feed(),
            Step::Overflow => self.overflow(),
            Step::Lose => {
                if let Some(next) = self.queue
                    && matches!(self.log.get(next), Some(Logged::Message(_)))
                {
                    self.queue = Some(next + 1);
                    self.has_lost = true;
                }
            }
            Step::Disconnect => {
                self.queue = None;
                self.untold_tail = None;
                self.entry.lost();
            }
            Step::Connect => {
                if self.queue.is_none() {
                    self.queue = Some(self.log.len());
                    self.untold_tail = Some(self.tail);
                }
            }
            Step::TellTail => {
                if let Some(tail) = self.untold_tail.take() {
                    self.filling |= self.entry.tail(tail) == Next::StartFill;
                }
            }
            Step::Join(who) => {
                if let Some(version) = self.members.get(&who)
                    && self.entry.join(who, who, user(who), *version)
                {
                    self.devices.insert(
                        who,
                        Device {
                            after: self.tail,
                            ..Device::default()
                        },
                    );
                }
            }
            Step::Leave(who) => {
                self.entry.leave(who);
                self.devices.remove(&who);
            }
            Step::CatchUp(who, pages) => self.catch_up(who, pages),
            Step::Fill(pages) => self.fill(pages),
        }
    }

    fn feed(&mut self) {
        let Some(next) = self.queue else { return };
        let Some(item) = self.log.get(next).copied() else {
            return;
        };
        self.queue = Some(next + 1);
        match item {
            Logged::Message(seq) => {
                let devices = &mut self.devices;
                let next = self.entry.message(seq, |who| Self::push(devices, *who, seq));
                self.filling |= next == Next::StartFill;
            }
            Logged::Removed(who, version) => {
                for who in self.entry.remove(user(who), version) {
                    self.devices.remove(&who);
                }
            }
            Logged::Added => {}
        }
    }

    fn overflow(&mut self) {
        if self.queue.is_some() && self.untold_tail.is_none() {
            self.queue = Some(self.log.len());
            self.filling |= self.entry.tail(self.tail) == Next::StartFill;
        }
    }

    /// Reads a page, or says that it has: everything may happen in between.
    fn catch_up(&mut self, who: u64, pages: usize) {
        let Some(device) = self.devices.get_mut(&who) else {
            return;
        };
        if device.live {
            return;
        }
        if let Some((upto, epoch)) = device.read.take() {
            device.live = self.entry.go_live(who, upto, epoch) == GoLive::Live;
            return;
        }
        let Some(epoch) = self.entry.epoch() else { return };
        if !self.members.contains_key(&who) {
            self.entry.leave(who);
            self.devices.remove(&who);
            return;
        }
        let held = device.got.last().copied().unwrap_or(device.after);
        let upto = (held + pages as Seq).min(self.tail);
        device.got.extend(held + 1..=upto);
        if upto == self.tail {
            device.read = Some((upto, epoch));
        }
    }

    /// Reads and checks, or passes on what was read: everything may happen in between.
    fn fill(&mut self, pages: usize) {
        if !self.filling {
            return;
        }
        let Some((round, gone, upto)) = self.round.take() else {
            let Some(round) = self.entry.fill_round() else {
                self.filling = false;
                return;
            };
            let users = round.checked.iter().map(|(key, _)| *key);
            let gone = users.filter(|who| !self.members.contains_key(who)).collect();
            let upto = (round.after + pages as Seq).min(self.tail);
            self.round = Some((round, gone, upto));
            return;
        };
        for who in self.entry.fill_removes(&gone) {
            self.devices.remove(&who);
        }
        for seq in round.after + 1..=upto {
            let devices = &mut self.devices;
            self.entry.fill_message(seq, |who| Self::push(devices, *who, seq));
        }
        self.filling = !self.entry.fill_ends_round(round.epoch);
    }

    /// No hole, no repeat, nothing from after a removal.
    fn check(&self) {
        for (who, device) in &self.devices {
            let expected: Vec<Seq> = (device.after + 1..).take(device.got.len()).collect();
            assert_eq!(device.got, expected, "user {who}");
            if let Some(removed_at) = self.removed_at.get(who) {
                let last = device.got.last().copied().unwrap_or(0);
                assert!(
                    last <= *removed_at,
                    "user {who} was removed at {removed_at} and got {last}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_session_gets_every_message_once_in_order_and_none_after_its_removal(steps in vec(step(), 0..120)) {
        let mut world = World::default();
        for who in 0..USERS {
            world.run(&Step::Add(who));
        }
        world.run(&Step::Connect);
        world.run(&Step::TellTail);
        for step in &steps {
            world.run(step);
            world.check();
        }
        // Once the feed has brought everything, every session holds the tail. What was lost without a word shows at the next message.
        world.run(&Step::Connect);
        if world.has_lost {
            world.run(&Step::Send);
        }
        for _ in 0..300 {
            world.run(&Step::Feed);
        }
        world.run(&Step::TellTail);
        for _ in 0..600 {
            world.run(&Step::Fill(3));
            for who in 0..USERS {
                world.run(&Step::CatchUp(who, 3));
            }
        }
        world.check();
        prop_assert!(!world.filling);
        for (who, device) in &world.devices {
            prop_assert!(device.live, "user {who} is not live");
            prop_assert_eq!(device.got.last().copied().unwrap_or(device.after), world.tail, "user {}", who);
        }
    }
}

fn live_entry() -> Entry<u64> {
    let mut entry = Entry::default();
    entry.join(1, 1, user(1), 1);
    assert_eq!(entry.tail(5), Next::Nothing);
    assert_eq!(entry.go_live(1, 5, entry.epoch().unwrap()), GoLive::Live);
    entry
}

#[test]
fn a_hole_is_filled_before_what_comes_after_it() {
    let mut entry = live_entry();
    let mut got = Vec::new();
    assert_eq!(entry.message(8, |_| got.push(8)), Next::StartFill);
    assert_eq!(entry.message(9, |_| got.push(9)), Next::Nothing);
    let round = entry.fill_round().unwrap();
    assert_eq!((round.after, round.target), (5, 9));
    for seq in 6..=9 {
        entry.fill_message(seq, |_| got.push(seq));
    }
    assert!(entry.fill_ends_round(round.epoch));
    assert_eq!(entry.message(10, |_| got.push(10)), Next::Nothing);
    assert_eq!(got, [6, 7, 8, 9, 10]);
}

#[test]
fn a_session_that_was_checked_before_the_feed_broke_is_checked_again() {
    let mut entry = live_entry();
    entry.join(2, 2, user(2), 1);
    let epoch = entry.epoch().unwrap();
    entry.lost();
    assert_eq!(entry.go_live(2, 5, epoch), GoLive::CheckAgain);
    assert_eq!(entry.tail(5), Next::StartFill);
    assert_eq!(entry.go_live(2, 5, epoch), GoLive::CheckAgain);
    assert_eq!(entry.go_live(2, 5, entry.epoch().unwrap()), GoLive::Live);
}

#[test]
fn a_removal_that_is_older_than_the_membership_is_not_obeyed() {
    let mut entry = live_entry();
    assert_eq!(entry.remove(user(1), 1), Vec::<u64>::new());
    assert_eq!(entry.remove(user(1), 2), [1]);
    assert!(entry.is_empty());
}

#[test]
fn signals_are_held_back_while_it_is_not_certain_who_is_a_member() {
    let mut entry = live_entry();
    let count = |entry: &Entry<u64>| {
        let mut count = 0;
        entry.signal(|_| count += 1);
        count
    };
    assert_eq!(count(&entry), 1);
    assert_eq!(entry.tail(5), Next::StartFill);
    assert_eq!(count(&entry), 0);
}

#[test]
fn a_fill_that_the_feed_interrupted_checks_its_members_again() {
    let mut entry = live_entry();
    assert_eq!(entry.tail(5), Next::StartFill);
    let checked_before = entry.fill_round().unwrap();
    entry.lost();
    assert_eq!(entry.tail(5), Next::Nothing);
    assert!(!entry.fill_ends_round(checked_before.epoch));
    let mut got = Vec::new();
    assert_eq!(entry.message(6, |_| got.push(6)), Next::Nothing);
    let round = entry.fill_round().unwrap();
    assert_eq!(entry.fill_removes(&[1]), [1]);
    entry.fill_message(6, |_| got.push(6));
    assert!(entry.fill_ends_round(round.epoch));
    assert_eq!(got, Vec::<Seq>::new());
}
