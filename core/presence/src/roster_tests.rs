use antiphon_types::Slot;
use proptest::prelude::*;

use super::*;

const GRACE_MS: u64 = 30;
const LEASE_MS: u64 = 90;
const RESTORED_MS: u64 = 60;
const PAUSE_MS: u64 = 5;

fn options() -> PresenceOptions {
    PresenceOptions {
        grace_ms: GRACE_MS,
        lease_ms: LEASE_MS,
        restored_ms: RESTORED_MS,
        write_pause_ms: PAUSE_MS,
        rewrite_ms: 200,
        sessions_max: 4,
        ..PresenceOptions::default()
    }
}

fn user(number: usize) -> UserId {
    UserId::new(Slot::DEPLOYMENT, 1, number as u64)
}

fn here(session: u8) -> Report {
    Report::online(format!("s{session}"), "edge".to_owned(), "device".to_owned()).unwrap()
}

fn gone(session: u8) -> Report {
    Report::gone(format!("s{session}")).unwrap()
}

fn is_online(roster: &Roster, number: usize) -> bool {
    roster.shown(user(number)).is_some_and(|shown| shown.online)
}

/// A roster with its clock and its store.
struct World {
    roster: Roster,
    now_ms: TimestampMs,
    changes: Vec<(TimestampMs, Change)>,
    stored: HashMap<UserId, StoredPresence>,
    written_at_ms: HashMap<UserId, Vec<TimestampMs>>,
}

impl World {
    fn new() -> Self {
        Self {
            roster: Roster::new(options(), 1_000),
            now_ms: 1_000,
            changes: Vec::new(),
            stored: HashMap::new(),
            written_at_ms: HashMap::new(),
        }
    }

    fn report(&mut self, number: usize, report: Report) {
        let change = self.roster.report(user(number), report, self.now_ms);
        self.changes.extend(change.map(|change| (self.now_ms, change)));
    }

    /// Lets time pass; a write takes no time, and `fails` says whether it is lost.
    fn pass(&mut self, ms: u64, fails: bool) {
        for _ in 0..ms {
            self.now_ms += 1;
            while !self.roster.is_settled(self.now_ms) {
                let changes = self.roster.settle(self.now_ms, 1);
                self.changes
                    .extend(changes.into_iter().map(|change| (self.now_ms, change)));
            }
            for (user, record) in self.roster.take_writes(self.now_ms, 10) {
                self.written_at_ms.entry(user).or_default().push(self.now_ms);
                assert_eq!(self.roster.written(user, !fails, self.now_ms), None);
                if !fails {
                    self.stored.insert(user, record);
                }
            }
        }
    }

    fn changes_of(&self, number: usize) -> Vec<(TimestampMs, bool)> {
        let of_user = self.changes.iter().filter(|(_, change)| change.user == user(number));
        of_user.map(|(at_ms, change)| (*at_ms, change.shown.online)).collect()
    }

    /// The node starts anew `down_ms` later and takes up what was written.
    fn restart(&mut self, down_ms: u64) {
        self.now_ms += down_ms;
        self.roster = Roster::new(options(), self.now_ms);
    }

    fn restore(&mut self, number: usize) {
        let stored = self.stored[&user(number)].clone();
        let change = self.roster.restore(user(number), stored, self.now_ms);
        self.changes.extend(change.map(|change| (self.now_ms, change)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Here(usize, u8),
    Gone(usize, u8),
    Pass(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..3_u8).prop_map(|(user, session)| Step::Here(user, session)),
        3 => (0..2_usize, 0..3_u8).prop_map(|(user, session)| Step::Gone(user, session)),
        4 => (1..50_u64, prop::bool::weighted(0.2)).prop_map(|(ms, fails)| Step::Pass(ms, fails)),
    ]
}

proptest! {
    #[test]
    fn who_has_a_session_is_online_and_nobody_stays_online_without(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let mut reported_at_ms: [HashMap<u8, TimestampMs>; 2] = Default::default();
        let mut last_seen_ms = [0; 2];
        for step in steps {
            match step {
                Step::Here(number, session) => {
                    world.report(number, here(session));
                    reported_at_ms[number].insert(session, world.now_ms);
                    last_seen_ms[number] = world.now_ms;
                }
                Step::Gone(number, session) => {
                    world.report(number, gone(session));
                    if reported_at_ms[number].remove(&session).is_some() {
                        last_seen_ms[number] = world.now_ms;
                    }
                }
                Step::Pass(ms, fails) => world.pass(ms, fails),
            }
            for (number, reported_at_ms) in reported_at_ms.iter_mut().enumerate() {
                reported_at_ms.retain(|_, at_ms| *at_ms + LEASE_MS > world.now_ms);
                let in_grace = world.now_ms < last_seen_ms[number] + GRACE_MS;
                prop_assert_eq!(is_online(&world.roster, number), !reported_at_ms.is_empty() || in_grace);
            }
        }

        world.pass(1_000, false);
        prop_assert_eq!(world.roster.len(), 0, "who is offline and written is held no more");
        prop_assert!(world.roster.settles.is_empty() && world.roster.writes.is_empty());
        for (number, last_seen_ms) in last_seen_ms.into_iter().enumerate() {
            let changes = world.changes_of(number);
            prop_assert!(changes.iter().enumerate().all(|(at, (_, online))| *online == (at % 2 == 0)), "{changes:?}");
            prop_assert_eq!(changes.len() % 2, 0, "everyone has gone");
            let stored = world.stored.get(&user(number)).cloned().unwrap_or_default();
            prop_assert_eq!(stored, StoredPresence { last_seen_ms, ..StoredPresence::default() });
            let written_at_ms = world.written_at_ms.remove(&user(number)).unwrap_or_default();
            prop_assert!(written_at_ms.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE_MS), "{written_at_ms:?}");
        }
    }

    #[test]
    fn a_session_that_comes_back_within_the_grace_period_is_no_change(away_ms in 0..GRACE_MS, stayed_ms in 0..LEASE_MS) {
        let mut world = World::new();
        world.report(0, here(1));
        world.pass(stayed_ms, false);
        world.report(0, gone(1));
        world.pass(away_ms, false);
        world.report(0, here(2));
        world.pass(LEASE_MS - 1, false);
        prop_assert_eq!(world.changes_of(0), [(1_000, true)]);
    }

    #[test]
    fn a_restart_is_no_change_for_who_is_reported_again(down_ms in 0..10_000_u64, until_reported_ms in 0..RESTORED_MS) {
        let mut world = World::new();
        world.report(0, here(1));
        world.pass(PAUSE_MS, false);
        world.restart(down_ms);
        world.restore(0);
        world.pass(until_reported_ms, false);
        world.report(0, here(1));
        world.pass(LEASE_MS - 1, false);
        prop_assert_eq!(world.changes_of(0), [(1_000, true)]);
    }
}

#[test]
fn a_restart_lets_go_of_who_is_not_reported_again() {
    let mut world = World::new();
    world.report(0, here(1));
    world.pass(PAUSE_MS, false);
    world.restart(500);
    let started_at_ms = world.now_ms;
    world.restore(0);
    assert!(is_online(&world.roster, 0));
    world.pass(RESTORED_MS, false);
    let expected = [(1_000, true), (started_at_ms + RESTORED_MS, false)];
    assert_eq!(world.changes_of(0), expected);
    assert_eq!(world.roster.shown(user(0)).unwrap().last_seen_ms, 1_000);
}

#[test]
fn what_is_taken_up_long_after_a_restart_has_expired() {
    let mut world = World::new();
    world.report(0, here(1));
    world.pass(PAUSE_MS, false);
    world.restart(0);
    world.pass(RESTORED_MS, false);
    world.restore(0);
    assert!(!is_online(&world.roster, 0));
    assert_eq!(world.changes_of(0).last(), Some(&(world.now_ms, false)));
}

#[test]
fn an_edge_that_reports_in_time_keeps_the_session() {
    let mut world = World::new();
    for _ in 0..20 {
        world.report(0, here(1));
        world.pass(LEASE_MS / 2, false);
    }
    assert_eq!(world.changes_of(0), [(1_000, true)]);
    let last_seen_ms = world.stored[&user(0)].last_seen_ms;
    assert!(
        world.now_ms - last_seen_ms < 200 + LEASE_MS,
        "the record of a long session grows old"
    );
}

#[test]
fn a_burst_of_changes_is_one_write() {
    let mut world = World::new();
    for session in 0..4 {
        world.report(0, here(session));
    }
    world.pass(PAUSE_MS, false);
    assert_eq!(world.written_at_ms[&user(0)].len(), 1);
    assert_eq!(world.stored[&user(0)].sessions.len(), 4);
}

#[test]
fn what_changes_during_a_write_is_written_after_it() {
    let mut roster = Roster::new(options(), 0);
    roster.report(user(0), here(1), 0);
    let taken = roster.take_writes(PAUSE_MS, 10);
    assert_eq!(taken[0].1.sessions.len(), 1);
    roster.report(user(0), here(2), PAUSE_MS);
    assert!(
        roster.take_writes(10 * PAUSE_MS, 10).is_empty(),
        "a user has one write at a time"
    );
    roster.written(user(0), true, 10 * PAUSE_MS);
    let taken = roster.take_writes(10 * PAUSE_MS, 10);
    assert_eq!(taken[0].1.sessions.len(), 2);
}

#[test]
fn sessions_of_a_user_are_bounded() {
    let mut world = World::new();
    for session in 0..6 {
        world.report(0, here(session));
        world.pass(1, false);
    }
    world.pass(PAUSE_MS, false);
    let stored = world.stored[&user(0)].sessions.iter();
    let mut ids: Vec<_> = stored.map(|session| session.session_id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["s2", "s3", "s4", "s5"]);
}

#[test]
fn a_goodbye_of_nobody_leaves_nothing_behind() {
    let mut world = World::new();
    world.report(0, gone(1));
    assert_eq!((world.roster.len(), world.changes.len()), (0, 0));
}

#[test]
fn a_report_without_a_name_or_with_a_long_one_is_refused() {
    let long = "a".repeat(129);
    for (session, edge) in [("", "edge"), ("s", ""), (long.as_str(), "edge")] {
        let refused = Report::online(session.to_owned(), edge.to_owned(), "device".to_owned());
        assert!(refused.is_err(), "{session:?} {edge:?}");
    }
}
