use antiphon_directory::domain::{LeaseGrantor, LeaseHolder, LeaseTerms, LeaseTermsError};
use proptest::{collection::vec, prelude::*};

use crate::lease_run::{Drifting, REGION, Rules, Run, Script, Trip, Way};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_holder_never_believes_in_a_lease_that_is_declared_expired(script in scripts(), tight: bool) {
        let terms = if tight { tightest() } else { LeaseTerms::default() };
        let run = Run::of(&script, Rules::of(terms));
        prop_assert_eq!(run.violated_at, None);
    }
}

#[test]
fn without_margins_a_slow_holder_outlives_a_fast_directory() {
    let script = Script {
        holder: Drifting {
            parts: -10_000,
            offset_us: 0,
        },
        leaders: vec![Drifting {
            parts: 10_000,
            offset_us: 0,
        }],
        ..Script::cut_off_after(2)
    };
    let kept = Rules::of(tightest());
    let run = Run::of(&script, kept);
    assert_eq!((run.violated_at, run.declared), (None, 1));

    // Both count the same span: 3,959 ms.
    let none = Rules {
        grantor: LeaseTerms::new(3_900, 59, 1_000).unwrap(),
        ..kept
    };
    assert_eq!(none.grantor.waited_ms(), none.holder.held_ms());
    assert!(Run::of(&script, none).violated_at.is_some());
}

#[test]
fn the_least_margin_allows_for_clocks_that_show_whole_milliseconds() {
    let offsets = || (0..4).map(|quarter| 10_000_000 + quarter * 250);
    for (of_holder, of_leader) in offsets().flat_map(|one| offsets().map(move |other| (one, other))) {
        let script = Script {
            holder: Drifting {
                parts: -10_000,
                offset_us: of_holder,
            },
            leaders: vec![Drifting {
                parts: 10_000,
                offset_us: of_leader,
            }],
            poll_us: 250,
            ..Script::cut_off_after(2)
        };
        let run = Run::of(&script, Rules::of(tightest()));
        assert_eq!((run.violated_at, run.declared), (None, 1), "{of_holder} {of_leader}");
    }
}

#[test]
fn without_the_wait_after_its_election_a_leader_declares_down_who_holds_a_lease() {
    let script = Script {
        elections_us: vec![1_500_000],
        leaders: vec![Drifting::NONE; 2],
        ..Script::cut_off_after(2)
    };
    let kept = Rules::of(LeaseTerms::default());
    let run = Run::of(&script, kept);
    assert_eq!((run.violated_at, run.declared), (None, 1));
    let hasty = Rules {
        waits_after_election: false,
        ..kept
    };
    assert!(Run::of(&script, hasty).violated_at.is_some());
}

#[test]
fn without_confirming_its_leadership_a_deposed_leader_revives_a_lease() {
    let to_the_old = Trip {
        to_leader_before: 1,
        ..Trip::PROMPT
    };
    let script = Script {
        elections_us: vec![500_000],
        leaders: vec![Drifting::NONE; 2],
        trips: vec![to_the_old],
        ..Script::cut_off_after(u32::MAX)
    };
    let kept = Rules::of(LeaseTerms::default());
    let run = Run::of(&script, kept);
    assert_eq!((run.violated_at, run.declared), (None, 1));
    let unconfirmed = Rules {
        confirms: false,
        ..kept
    };
    assert!(Run::of(&script, unconfirmed).violated_at.is_some());
}

#[test]
fn a_region_that_renews_in_time_is_never_declared_down_and_always_valid() {
    let script = Script {
        // Each answer comes 1.4 s late and each third not at all; the directory changes its leader now and then.
        trips: vec![
            Trip {
                there_us: 700_000,
                back_us: 700_000,
                ..Trip::PROMPT
            },
            Trip {
                there_us: 700_000,
                back_us: 700_000,
                ..Trip::PROMPT
            },
            Trip {
                lost: Some(Way::Back),
                ..Trip::PROMPT
            },
        ],
        elections_us: vec![7_000_000, 9_000_000],
        leaders: vec![Drifting::NONE; 3],
        ..Script::cut_off_after(u32::MAX)
    };
    let run = Run::of(&script, Rules::of(LeaseTerms::default()));
    assert_eq!(run.declared, 0);
    assert_eq!(run.invalid_polls_after_first_grant, 0);
}

#[test]
fn a_silent_region_is_declared_down_as_soon_as_it_is_safe_and_let_in_again() {
    let script = Script::cut_off_after(2);
    let run = Run::of(&script, Rules::of(LeaseTerms::default()));
    // Asked at 0 and 1 s; 4.5 s after that.
    assert!((5_500_000..5_600_000).contains(&run.declared_at.unwrap()), "{run:?}");

    let script = Script {
        trips: [vec![Trip::PROMPT; 2], vec![Trip::LOST; 6], vec![Trip::PROMPT; 40]].concat(),
        readmission_us: Some(200_000),
        ..Script::cut_off_after(u32::MAX)
    };
    let run = Run::of(&script, Rules::of(LeaseTerms::default()));
    assert_eq!((run.declared, run.violated_at), (1, None));
    assert!(run.valid_at_end, "{run:?}");
}

#[test]
fn terms_that_cannot_be_kept_are_refused() {
    assert_eq!(LeaseTerms::new(4_000, 500, 1_000), Ok(LeaseTerms::default()));
    assert_eq!(LeaseTerms::default().held_ms(), 3_500);
    assert_eq!(LeaseTerms::default().waited_ms(), 4_500);
    let margin = LeaseTerms::new(4_000, 40, 1_000);
    assert!(
        matches!(margin, Err(LeaseTermsError::Margin { least_ms: 41, .. })),
        "{margin:?}"
    );
    let renewal = LeaseTerms::new(4_000, 500, 1_751);
    assert!(
        matches!(renewal, Err(LeaseTermsError::Renewal { held_ms: 3_500, .. })),
        "{renewal:?}"
    );
    assert!(LeaseTerms::new(4_000, 500, 0).is_err());
    assert!(LeaseTerms::new(4_000, 5_000, 1_000).is_err());
}

#[test]
fn answers_may_come_in_any_order_and_count_from_when_they_were_asked_for() {
    let mut holder = LeaseHolder::new(LeaseTerms::default());
    assert_eq!((holder.next_renewal_ms(), holder.valid_until_ms()), (0, None));
    assert!(!holder.is_valid(10_000));
    let first = holder.ask(10_000);
    let second = holder.ask(11_000);
    assert_eq!(holder.next_renewal_ms(), 12_000);
    holder.granted(second);
    holder.granted(first);
    assert_eq!(holder.valid_until_ms(), Some(14_500));
    assert!(holder.is_valid(14_499) && !holder.is_valid(14_500));
}

#[test]
fn an_expired_region_is_told_until_it_is_forgotten_and_refused_until_it_is_readmitted() {
    let mut grantor = LeaseGrantor::new(LeaseTerms::default(), 1_000, [REGION]);
    assert_eq!(grantor.next_expiry_ms(), Some(5_500));
    assert_eq!(grantor.expired(5_499), []);
    assert_eq!(grantor.expired(5_500), [REGION]);
    assert_eq!(grantor.expired(5_501), [REGION], "the declaration may have failed");
    assert!(grantor.asked(REGION, 5_502).is_err());
    grantor.forget(REGION);
    assert_eq!(grantor.expired(5_503), []);
    assert!(grantor.asked(REGION, 5_504).is_err());
    grantor.readmit(REGION, 6_000);
    assert_eq!(grantor.next_expiry_ms(), Some(10_500));
    assert!(grantor.asked(REGION, 6_500).is_ok());
    assert_eq!(grantor.next_expiry_ms(), Some(11_000));
}

/// A lease of 4 s with the least margin that is allowed.
fn tightest() -> LeaseTerms {
    let Err(LeaseTermsError::Margin { least_ms, .. }) = LeaseTerms::new(4_000, 0, 1_000) else {
        panic!("no margin was enough");
    };
    LeaseTerms::new(4_000, least_ms, 1_000).unwrap()
}

fn scripts() -> impl Strategy<Value = Script> {
    let offset = 0_u64..10_000_000;
    // Mostly at an extreme: that is where it breaks.
    let parts = prop_oneof![Just(-10_000_i64), Just(10_000_i64), -10_000_i64..=10_000];
    let clock = || (parts.clone(), offset.clone()).prop_map(|(parts, offset_us)| Drifting { parts, offset_us });
    let delay = || prop_oneof![3 => 0_u64..100_000, 1 => 0_u64..6_000_000];
    let lost = prop_oneof![6 => Just(None), 1 => Just(Some(Way::There)), 1 => Just(Some(Way::Back))];
    let to = prop_oneof![5 => Just(0_usize), 1 => 1_usize..3];
    let trip =
        (delay(), delay(), delay(), lost, to).prop_map(|(late_us, there_us, back_us, lost, to_leader_before)| Trip {
            late_us,
            there_us,
            back_us,
            lost,
            to_leader_before,
        });
    let elections = vec(100_000_u64..15_000_000, 0..4);
    let cut = prop_oneof![Just(u32::MAX), 0_u32..20];
    let readmission = prop::option::of(0_u64..2_000_000);
    (
        clock(),
        vec(clock(), 4),
        elections,
        vec(trip, 1..12),
        cut,
        500_u64..50_000,
        readmission,
    )
        .prop_map(
            |(holder, leaders, elections_us, trips, cut_off_after, poll_us, readmission_us)| Script {
                holder,
                leaders,
                elections_us,
                trips,
                cut_off_after,
                poll_us,
                readmission_us,
            },
        )
}
