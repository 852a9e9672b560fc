use antiphon_directory::{
    Table,
    domain::{Command, Policy, RegionId, RegionStatus, State, plan, plan_rebalance, wanted_in_sync},
};
use antiphon_types::{Epoch, SLOT_COUNT, Slot};
use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{
    invariants::{allowed, check},
    world::{add, addresses, change, found, policy, set_nodes, slot},
};

/// What somebody does next. Numbers pick among what there is when it is their turn.
#[derive(Debug, Clone)]
enum Step {
    Status(u64, RegionStatus),
    /// A home changes the sets of some slots; `off` makes it decide on another version, epoch or home.
    InSync {
        span: Span,
        set: Vec<u64>,
        home_first: bool,
        off: Off,
    },
    /// Homes aim at what they ought to.
    Wanted(Vec<u64>),
    Move(Span, u64, Off),
    /// Homes hand over what they are asked to.
    HandOver,
    FailOver(Span, Option<u64>),
    Force(Span, u64),
    Wish(Span, Option<u64>, Off),
    Plan,
    Rebalance(usize),
    Add(u8),
    Remove(u64),
    Addresses(u64, u8),
    Nodes(u64, Vec<u8>),
    Policy(Policy),
    Found(u64),
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u16,
    slots: u16,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Off {
    Nothing,
    Version,
    Epoch,
    Home,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_commanded_every_placement_stays_whole(
        regions in 1_u64..=5,
        first in policies(),
        steps in vec(steps(), 1..40),
    ) {
        let mut state = State::default();
        let founding = found(regions, first);
        step(&mut state, &founding);
        if state.deployment.is_empty() {
            step(&mut state, &found(regions, Policy::default()));
        }
        for next in steps {
            for command in commands(&state, &next) {
                step(&mut state, &command);
            }
            check_wanted(&state);
            check_planned(&state);
        }
        let table = Table::from_state(&state).unwrap();
        for (slot, placement) in state.slots() {
            prop_assert_eq!(table.placement(slot).home_region.id, placement.home);
            prop_assert_eq!(table.placement(slot).in_sync.len(), placement.in_sync.len());
        }
    }

    #[test]
    fn voters_that_apply_the_same_come_to_the_same(steps in vec(steps(), 1..15)) {
        let mut one = State::default();
        step(&mut one, &found(3, Policy::default()));
        let mut log = vec![found(3, Policy::default())];
        for next in steps {
            for command in commands(&one, &next) {
                step(&mut one, &command);
                log.push(command);
            }
        }
        // The other has been away and got a snapshot half-way.
        let (early, late) = log.split_at(log.len() / 2);
        let mut other = State::default();
        for command in early {
            let _ = other.apply(command);
        }
        let mut other: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&other).unwrap()).unwrap();
        for command in late {
            let _ = other.apply(command);
        }
        prop_assert_eq!(one, other);
    }
}

fn step(state: &mut State, command: &Command) {
    let before = state.clone();
    let result = state.apply(command);
    check(&before, command, &result, state);
    if let Ok(applied) = &result {
        for (slot, rejection) in &applied.refused {
            assert_eq!(
                before.placement(*slot),
                state.placement(*slot),
                "{slot:?} was refused: {rejection}"
            );
        }
    }
}

/// What a home is to aim at, it may have.
fn check_wanted(state: &State) {
    let regions: Vec<RegionId> = state.regions.keys().rev().copied().collect();
    let copies = usize::from(state.policy.in_sync_copies);
    for (home, slots) in by_home(state, ALL, Off::Nothing) {
        let mut changes = Vec::new();
        for (number, (slot, _, epoch, version)) in slots.into_iter().enumerate().step_by(97) {
            let nearest: Vec<RegionId> = regions.iter().copied().skip(number % 3).collect();
            let wanted = wanted_in_sync(state, slot, &nearest);
            assert_eq!(wanted.first(), Some(&home));
            let may = |other: &RegionId| allowed(state, home, *other) && !state.is(*other, RegionStatus::Down);
            assert!(wanted.iter().skip(1).all(may), "{wanted:?} for {slot:?} of {home:?}");
            let could = regions.iter().filter(|other| **other != home && may(other)).count();
            let moves = state.placements[usize::from(slot.number())].moving_to;
            let copies = match moves.filter(may) {
                // In the place of a home that the next one's rule does not allow there is another.
                Some(to) => copies.max(2) + usize::from(!allowed(state, to, home)),
                None => copies,
            };
            assert_eq!(wanted.len(), (could + 1).min(copies));
            changes.push(change(slot, epoch, version, wanted));
        }
        if !state.is(home, RegionStatus::Down) {
            let applied = state.clone().apply(&Command::ChangeInSync { home, changes }).unwrap();
            assert_eq!(applied.refused, []);
        }
    }
}

/// What is planned is accepted, leaves nothing more to plan, and no wish that cannot be carried out.
fn check_planned(state: &State) {
    let mut planned = state.clone();
    for command in plan(state) {
        let applied = planned.apply(&command).unwrap();
        assert_eq!(applied.refused, []);
        assert!(applied.changed);
    }
    assert_eq!(plan(&planned), [], "planned twice");
    for (slot, placement) in planned.slots() {
        if let Some(to) = placement.moving_to {
            assert!(planned.is(to, RegionStatus::Active), "{slot:?}: {placement:?}");
            assert!(allowed(&planned, placement.home, to), "{slot:?}: {placement:?}");
        } else if planned.is(placement.home, RegionStatus::Draining) {
            let could = |to: &RegionId| planned.is(*to, RegionStatus::Active) && allowed(&planned, placement.home, *to);
            assert!(
                !planned.regions.keys().any(could),
                "{slot:?} is forgotten: {placement:?}"
            );
        }
    }
    for command in plan_rebalance(&planned, 4096) {
        assert_eq!(planned.apply(&command).unwrap().refused, []);
    }
    assert_eq!(plan_rebalance(&planned, 4096), [], "rebalanced twice");
}

fn commands(state: &State, step: &Step) -> Vec<Command> {
    match step {
        Step::Status(region, status) => vec![Command::SetStatus {
            region: pick(state, *region),
            status: *status,
        }],
        Step::InSync {
            span,
            set,
            home_first,
            off,
        } => {
            let set: Vec<RegionId> = set.iter().map(|region| pick(state, *region)).collect();
            let by_home = by_home(state, *span, *off);
            let asked = |(slot, home, epoch, version): (Slot, RegionId, Epoch, u64)| {
                let others = set.iter().copied().filter(|member| !home_first || *member != home);
                let first = home_first.then_some(home);
                change(slot, epoch, version, first.into_iter().chain(others).collect())
            };
            by_home
                .into_iter()
                .map(|(home, slots)| Command::ChangeInSync {
                    home,
                    changes: slots.into_iter().map(asked).collect(),
                })
                .collect()
        }
        Step::Wanted(nearest) => {
            let nearest: Vec<RegionId> = nearest.iter().map(|region| pick(state, *region)).collect();
            let all = by_home(state, ALL, Off::Nothing);
            let asked = |(slot, _, epoch, version)| change(slot, epoch, version, wanted_in_sync(state, slot, &nearest));
            all.into_iter()
                .map(|(home, slots)| Command::ChangeInSync {
                    home,
                    changes: slots.into_iter().map(asked).collect(),
                })
                .collect()
        }
        Step::Move(span, to, off) => {
            let to = pick(state, *to);
            by_home(state, *span, *off)
                .into_iter()
                .map(|(home, slots)| Command::MoveHome {
                    home,
                    moves: slots.into_iter().map(|(slot, _, epoch, _)| (slot, epoch, to)).collect(),
                })
                .collect()
        }
        Step::HandOver => {
            let wish = |(slot, _, epoch, _)| Some((slot, epoch, state.placement(slot)?.moving_to?));
            by_home(state, ALL, Off::Nothing)
                .into_iter()
                .map(|(home, slots)| Command::MoveHome {
                    home,
                    moves: slots.into_iter().filter_map(wish).collect(),
                })
                .collect()
        }
        Step::FailOver(span, to) => vec![Command::FailOver {
            slots: span.slots().collect(),
            to: to.map(|to| pick(state, to)),
        }],
        Step::Force(span, to) => vec![Command::ForceHome {
            slots: span.slots().collect(),
            to: pick(state, *to),
        }],
        Step::Wish(span, to, off) => {
            let to = to.map(|to| pick(state, to));
            let moves = by_home(state, *span, *off).into_iter().flat_map(|(_, slots)| slots);
            vec![Command::Plan {
                moves: moves.map(|(slot, _, epoch, _)| (slot, epoch, to)).collect(),
            }]
        }
        Step::Plan => plan(state),
        Step::Rebalance(slots) => plan_rebalance(state, *slots),
        Step::Add(name) => vec![add(&format!("r{name}"))],
        Step::Remove(region) => vec![Command::RemoveRegion {
            region: pick(state, *region),
        }],
        Step::Addresses(region, name) => vec![Command::SetAddresses {
            region: pick(state, *region),
            addresses: addresses(&format!("r{name}")),
        }],
        Step::Nodes(region, nodes) => vec![set_nodes(pick(state, *region).0, nodes)],
        Step::Policy(policy) => vec![Command::SetPolicy { policy: policy.clone() }],
        Step::Found(regions) => vec![found(*regions, Policy::default())],
    }
}

type Decided = (Slot, RegionId, Epoch, u64);

/// The slots of the span by who is home, or by another when `off` says so.
fn by_home(state: &State, span: Span, off: Off) -> Vec<(RegionId, Vec<Decided>)> {
    let mut homes: std::collections::BTreeMap<RegionId, Vec<Decided>> = std::collections::BTreeMap::new();
    for slot in span.slots() {
        let Some(placement) = state.placement(slot) else {
            continue;
        };
        let home = match off {
            Off::Home => pick(state, placement.home.0),
            Off::Nothing | Off::Version | Off::Epoch => placement.home,
        };
        let epoch = placement.epoch - u64::from(off == Off::Epoch);
        let version = placement.version + u64::from(off == Off::Version);
        homes
            .entry(home)
            .or_default()
            .push((slot, placement.home, epoch, version));
    }
    homes.into_iter().collect()
}

/// Most often a region that is there; now and then one that never was or is no more.
fn pick(state: &State, number: u64) -> RegionId {
    let there: Vec<RegionId> = state.regions.keys().copied().collect();
    let index = usize::try_from(number).unwrap() % (there.len() + 1);
    there.get(index).copied().unwrap_or(RegionId(number))
}

const ALL: Span = Span {
    start: 0,
    slots: SLOT_COUNT,
};

impl Span {
    fn slots(self) -> impl Iterator<Item = Slot> {
        (0..self.slots).map(move |offset| slot((self.start + offset) % SLOT_COUNT))
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let region = || 0_u64..40;
    let regions = || vec(region(), 0..5);
    prop_oneof![
        4 => (region(), statuses()).prop_map(|(region, status)| Step::Status(region, status)),
        4 => (spans(), regions(), prop::bool::weighted(0.9), offs())
            .prop_map(|(span, set, home_first, off)| Step::InSync { span, set, home_first, off }),
        4 => regions().prop_map(Step::Wanted),
        3 => (spans(), region(), offs()).prop_map(|(span, to, off)| Step::Move(span, to, off)),
        4 => Just(Step::HandOver),
        2 => (spans(), prop::option::of(region())).prop_map(|(span, to)| Step::FailOver(span, to)),
        2 => (spans(), region()).prop_map(|(span, to)| Step::Force(span, to)),
        2 => (spans(), prop::option::of(region()), offs()).prop_map(|(span, to, off)| Step::Wish(span, to, off)),
        4 => Just(Step::Plan),
        3 => (1_usize..5000).prop_map(Step::Rebalance),
        2 => (1_u8..7).prop_map(Step::Add),
        2 => region().prop_map(Step::Remove),
        1 => (region(), 1_u8..7).prop_map(|(region, name)| Step::Addresses(region, name)),
        1 => (region(), vec(0_u8..4, 0..4)).prop_map(|(region, nodes)| Step::Nodes(region, nodes)),
        2 => policies().prop_map(Step::Policy),
        1 => (1_u64..5).prop_map(Step::Found),
    ]
}

fn statuses() -> impl Strategy<Value = RegionStatus> {
    prop_oneof![
        2 => Just(RegionStatus::Active),
        1 => Just(RegionStatus::Draining),
        2 => Just(RegionStatus::Down),
    ]
}

fn offs() -> impl Strategy<Value = Off> {
    prop_oneof![
        8 => Just(Off::Nothing),
        1 => Just(Off::Version),
        1 => Just(Off::Epoch),
        1 => Just(Off::Home),
    ]
}

fn spans() -> impl Strategy<Value = Span> {
    prop_oneof![
        Just(ALL),
        (0_u16..SLOT_COUNT, 1_u16..2000).prop_map(|(start, slots)| Span { start, slots })
    ]
}

/// Open ones, groups that keep to themselves, a group that takes in the rest, and sets that are mostly refused.
fn policies() -> impl Strategy<Value = Policy> {
    const GROUPS: &[(&str, &[&str])] = &[
        ("r1", &["r2"]),
        ("r2", &["r1"]),
        ("r3", &["r4", "r5"]),
        ("r4", &["r3", "r5"]),
        ("r5", &["r3", "r4"]),
    ];
    const ONE_WAY: &[(&str, &[&str])] = &[("r2", &["r3"]), ("r3", &["r2"])];
    let groups = |rules: &'static [(&str, &[&str])]| move |(copies, min): (u8, u8)| policy(copies, min, rules);
    let counts = || (0_u8..5, 0_u8..4);
    let names = || subsequence(vec!["r1", "r2", "r3", "r4", "r5"], 0..=5);
    let any = (counts(), vec((1_u8..6, names()), 0..4)).prop_map(|((copies, min), rules)| {
        let mut policy = policy(copies, min, &[]);
        for (home, rule) in rules {
            let rule = rule.into_iter().map(str::to_owned).collect();
            policy.allowed.insert(format!("r{home}"), rule);
        }
        policy
    });
    prop_oneof![
        3 => Just(Policy::default()),
        3 => (1_u8..5, 1_u8..4).prop_map(groups(&[])),
        2 => (1_u8..4, 1_u8..3).prop_map(groups(GROUPS)),
        2 => (1_u8..4, 1_u8..3).prop_map(groups(ONE_WAY)),
        1 => any,
    ]
}
