//! Worlds of three and five regions, and every fault of the table.

use std::{collections::BTreeMap, env};

use tokio::sync::Semaphore;

use crate::{
    drill::Drill,
    faults::{FAULTS, Fault, fault},
};

/// One world at a time: a machine that runs two of them proves less of each.
pub(crate) static TURN: Semaphore = Semaphore::const_new(1);
/// What is tried where nobody asked for more; together it takes about a minute.
const SHORT: [&str; 4] = [
    "kill-home",
    "sleep-home",
    "cut-home-to-standby",
    "kill-directory-leader",
];

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_keep_their_word_while_homes_die_sleep_and_are_cut_off() {
    let _turn = TURN.acquire().await.unwrap();
    let mut drill = Drill::start((3, 1), 1, false, seed()).await.unwrap();
    for name in SHORT {
        if !drill.round(&fault(name)).await {
            break;
        }
    }
    drill.judge().await;
    if !drill.failures.is_empty() {
        drill.keep_logs("short");
    }
    assert!(drill.failures.is_empty(), "{:#?}", drill.failures);
}

/// `ANTIPHON_CHAOS_ROUNDS` rounds of each fault, or of those that `ANTIPHON_CHAOS_FAULTS` names.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes: just chaos"]
async fn every_fault() {
    let _turn = TURN.acquire().await.unwrap();
    let rounds: u32 = env::var("ANTIPHON_CHAOS_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number of rounds"));
    let faults: Vec<Fault> = match env::var("ANTIPHON_CHAOS_FAULTS") {
        Ok(names) => names.split(',').map(fault).collect(),
        Err(_) => FAULTS.to_vec(),
    };
    let (mut lines, mut failures, mut skipped) = (Vec::new(), BTreeMap::new(), 0);
    let asked = faults.len();
    for fault in faults {
        // In a task of its own: what goes wrong with one fault keeps nobody from trying the next.
        let (mut said, wrong) = match tokio::spawn(drill(fault, rounds)).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                skipped += 1;
                (
                    vec![format!("{}: skipped, as it takes {}", fault.name, fault.takes())],
                    Vec::new(),
                )
            }
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        lines.append(&mut said);
        if !wrong.is_empty() {
            failures.insert(fault.name, wrong);
        }
    }
    eprintln!(
        "\n{}\n{asked} faults: {} failed, {skipped} skipped",
        lines.join("\n"),
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The rounds of one fault in a world of its own: a line for each, and what was wrong. None where it cannot be inflicted.
async fn drill(fault: Fault, rounds: u32) -> Option<(Vec<String>, Vec<String>)> {
    // Where there are five, each talk has a client in each of them.
    let talks_of_each = if fault.regions > 3 { 1 } else { 2 };
    let size = (fault.regions, fault.nodes);
    let mut drill = Drill::start(size, talks_of_each, fault.fills_disks(), seed()).await?;
    let mut is_whole = true;
    for _ in 0..rounds {
        is_whole = is_whole && drill.round(&fault).await;
    }
    if is_whole {
        drill.judge().await;
    }
    if !drill.failures.is_empty() {
        drill.keep_logs(fault.name);
    }
    Some((drill.lines, drill.failures))
}

fn seed() -> u64 {
    let seed = env::var("ANTIPHON_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(rand::random)
}
