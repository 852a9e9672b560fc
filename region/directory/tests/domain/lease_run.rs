//! A holder, a row of leaders and the network between them, in true time; each looks at a clock of its own.

use std::{cmp::Reverse, collections::BinaryHeap};

use antiphon_directory::domain::{Ask, LeaseGrantor, LeaseHolder, LeaseTerms, RegionId};

pub(crate) const REGION: RegionId = RegionId(7);

/// A clock that is `parts` of a million fast, and shows whole milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drifting {
    pub(crate) parts: i64,
    pub(crate) offset_us: u64,
}

impl Drifting {
    pub(crate) const NONE: Self = Self {
        parts: 0,
        offset_us: 10_000_000,
    };

    fn ms(self, true_us: u64) -> u64 {
        let rate = u64::try_from(1_000_000 + self.parts).unwrap();
        (self.offset_us + true_us * rate / 1_000_000) / 1_000
    }
}

/// The way of one question and its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trip {
    /// The question leaves this long after it could have.
    pub(crate) late_us: u64,
    pub(crate) there_us: u64,
    pub(crate) back_us: u64,
    pub(crate) lost: Option<Way>,
    /// Goes to the leader this many elections ago.
    pub(crate) to_leader_before: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    There,
    Back,
}

impl Trip {
    pub(crate) const PROMPT: Self = Self {
        late_us: 0,
        there_us: 0,
        back_us: 0,
        lost: None,
        to_leader_before: 0,
    };
    pub(crate) const LOST: Self = Self {
        lost: Some(Way::There),
        ..Self::PROMPT
    };
}

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) holder: Drifting,
    pub(crate) leaders: Vec<Drifting>,
    /// Time from each leader's election to the next one's.
    pub(crate) elections_us: Vec<u64>,
    /// Used in turn, again and again.
    pub(crate) trips: Vec<Trip>,
    /// From this question on all are lost.
    pub(crate) cut_off_after: u32,
    pub(crate) poll_us: u64,
    /// Time from a refused question to the region's readmission.
    pub(crate) readmission_us: Option<u64>,
}

impl Script {
    pub(crate) fn cut_off_after(questions: u32) -> Self {
        Self {
            holder: Drifting::NONE,
            leaders: vec![Drifting::NONE],
            elections_us: Vec::new(),
            trips: vec![Trip::PROMPT],
            cut_off_after: questions,
            poll_us: 1_000,
            readmission_us: None,
        }
    }
}

/// What is left out to see that it is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) holder: LeaseTerms,
    pub(crate) grantor: LeaseTerms,
    pub(crate) waits_after_election: bool,
    pub(crate) confirms: bool,
}

impl Rules {
    pub(crate) fn of(terms: LeaseTerms) -> Self {
        Self {
            holder: terms,
            grantor: terms,
            waits_after_election: true,
            confirms: true,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) violated_at: Option<u64>,
    pub(crate) declared: usize,
    pub(crate) declared_at: Option<u64>,
    pub(crate) invalid_polls_after_first_grant: usize,
    pub(crate) valid_at_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Elect(usize),
    Poll,
    Question(u32),
    Arrive { question: u32, leader: usize },
    Answer(u32),
    Readmit(usize),
}

impl Run {
    const LENGTH_US: u64 = 40_000_000;

    pub(crate) fn of(script: &Script, rules: Rules) -> Self {
        let mut run = Self::default();
        let mut events = BinaryHeap::new();
        let mut holder = LeaseHolder::new(rules.holder);
        let mut grantors: Vec<LeaseGrantor> = Vec::new();
        let mut asks: Vec<Ask> = Vec::new();
        let mut granted = false;
        // The current leader's, and in force until the region is readmitted or another leads: one who has not heard of the
        // declaration counts from its own election, and one who has it in its log lets the holder know before it grants.
        let mut declared = false;

        let elections = script.elections_us.iter().scan(0, |at, gap| {
            *at += gap;
            Some(*at)
        });
        for (number, at) in [0].into_iter().chain(elections).enumerate() {
            events.push(Reverse((at, Event::Elect(number))));
        }
        events.push(Reverse((1, Event::Question(0))));
        events.push(Reverse((2, Event::Poll)));

        while let Some(Reverse((now, event))) = events.pop() {
            if now > Self::LENGTH_US {
                break;
            }
            let leader = grantors.len().saturating_sub(1);
            let trip_of = |question: u32| script.trips[question as usize % script.trips.len()];
            match event {
                Event::Elect(number) => {
                    let elected_at = script.leaders[number].ms(now);
                    let counted = if rules.waits_after_election {
                        elected_at
                    } else {
                        elected_at.saturating_sub(rules.grantor.waited_ms())
                    };
                    grantors.push(LeaseGrantor::new(rules.grantor, counted, [REGION]));
                    declared = false;
                }
                Event::Poll => {
                    let expired = grantors[leader].expired(script.leaders[leader].ms(now));
                    if !expired.is_empty() && !declared {
                        declared = true;
                        run.declared += 1;
                        run.declared_at = Some(now);
                    }
                    run.invalid_polls_after_first_grant +=
                        usize::from(granted && !holder.is_valid(script.holder.ms(now)));
                    events.push(Reverse((now + script.poll_us, Event::Poll)));
                }
                Event::Question(question) => {
                    let trip = trip_of(question);
                    asks.push(holder.ask(script.holder.ms(now)));
                    if trip.lost != Some(Way::There) && question < script.cut_off_after {
                        let leader = leader.saturating_sub(trip.to_leader_before);
                        events.push(Reverse((now + trip.there_us, Event::Arrive { question, leader })));
                    }
                    let mut due = now;
                    while script.holder.ms(due) < holder.next_renewal_ms() {
                        due += 1_000;
                    }
                    due += trip_of(question + 1).late_us;
                    events.push(Reverse((due, Event::Question(question + 1))));
                }
                Event::Arrive {
                    question,
                    leader: asked,
                } => {
                    let trip = trip_of(question);
                    let answer = grantors[asked].asked(REGION, script.leaders[asked].ms(now));
                    // A later leader exists: nobody confirms this one any more.
                    let leads = asked == leader || !rules.confirms;
                    if answer.is_ok() && leads && trip.lost != Some(Way::Back) {
                        events.push(Reverse((now + trip.back_us, Event::Answer(question))));
                    }
                    if let (Err(_), Some(after)) = (answer, script.readmission_us) {
                        events.push(Reverse((now + after, Event::Readmit(asked))));
                    }
                }
                Event::Answer(question) => {
                    holder.granted(asks[question as usize]);
                    granted = true;
                }
                Event::Readmit(by) => {
                    if by == leader {
                        grantors[by].readmit(REGION, script.leaders[by].ms(now));
                        declared = false;
                    }
                }
            }
            run.valid_at_end = holder.is_valid(script.holder.ms(now));
            if declared && run.valid_at_end {
                run.violated_at = run.violated_at.or(Some(now));
            }
        }
        run
    }
}
