//! I4, from the logs of all regions: who has acknowledged what, in which leader epoch.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::Path,
};

use serde_json::Value;

/// The log lines that are read: one for each entry whose commands are answered, written right before that.
const TARGET: &str = "antiphon_slot::acknowledges";

/// Has the regions of a world log what is judged here, for machines.
pub(crate) const FLAGS: [&str; 2] = [
    "--set=telemetry.log_format=json",
    "--set=telemetry.log_filter=warn,antiphon=info,antiphon_slot::acknowledges=debug",
];

/// A region has answered the commands of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    /// By the clock that all regions of a test share.
    at: String,
    region: String,
    slot: u64,
    epoch: u64,
    index: u64,
}

/// What the logs in the folder of a process of a region tell, the one that was put aside too.
pub(crate) fn acknowledged_by(region: &str, folder: &Path) -> Vec<Acknowledged> {
    let logs = ["log.1", "log"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
    let lines = logs.iter().flat_map(|log| log.lines());
    lines.filter_map(|line| told(region, line)).collect()
}

fn told(region: &str, line: &str) -> Option<Acknowledged> {
    // Cheaper than to parse them all; and the last line of a process that was killed may be half a line.
    let line: Value = line.contains(TARGET).then(|| serde_json::from_str(line).ok())??;
    let number = |name: &str| line["fields"][name].as_u64();
    Some(Acknowledged {
        at: line["timestamp"].as_str()?.to_owned(),
        region: region.to_owned(),
        slot: number("slot")?,
        epoch: number("epoch")?,
        index: number("index")?,
    })
}

/// Where two regions acknowledge in one epoch, or one does in an epoch below one that has been acknowledged in.
pub(crate) fn violations(mut acknowledged: Vec<Acknowledged>) -> Vec<String> {
    acknowledged.sort();
    let mut homes: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for Acknowledged {
        at,
        region,
        slot,
        epoch,
        index,
    } in acknowledged
    {
        match homes.entry((slot, epoch)) {
            Entry::Vacant(home) => _ = home.insert(region.clone()),
            Entry::Occupied(home) if *home.get() == region => {}
            Entry::Occupied(home) => found.push(format!(
                "I4: {} and {region} acknowledge slot {slot} in epoch {epoch} (entry {index} at {at})",
                home.get()
            )),
        }
        let highest = highest.entry(slot).or_default();
        if *highest > epoch {
            found.push(format!(
                "I4: {region} acknowledges entry {index} of slot {slot} in epoch {epoch} at {at}, after epoch {highest}"
            ));
        }
        *highest = epoch.max(*highest);
    }
    found
}

/// A line as a region writes it.
fn line(at: &str, slot: u64, epoch: u64, index: u64) -> String {
    format!(
        r#"{{"timestamp":"2026-01-01T00:00:{at}Z","level":"DEBUG","fields":{{"slot":{slot},"epoch":{epoch},"index":{index}}},"target":"{TARGET}"}}"#
    )
}

fn judged(lines: &[(&str, String)]) -> Vec<String> {
    violations(lines.iter().filter_map(|(region, line)| told(region, line)).collect())
}

#[test]
fn a_slot_that_goes_from_home_to_home_is_acknowledged_by_one_after_the_other() {
    let fine = [
        ("a", line("01", 1, 5, 1)),
        ("b", line("03", 1, 6, 2)),
        ("b", line("02", 2, 5, 1)),
        ("a", line("04", 1, 7, 3)),
    ];
    assert_eq!(judged(&fine), Vec::<String>::new());
}

#[test]
fn two_homes_of_one_epoch_are_found_and_so_is_one_that_is_late() {
    let two = judged(&[("a", line("01", 1, 5, 1)), ("b", line("02", 1, 5, 2))]);
    assert!(
        matches!(&two[..], [one] if one.contains("a and b acknowledge slot 1 in epoch 5")),
        "{two:?}"
    );
    let late = judged(&[("b", line("01", 1, 6, 2)), ("a", line("02", 1, 5, 2))]);
    assert!(
        matches!(&late[..], [one] if one.contains("a acknowledges entry 2") && one.contains("after epoch 6")),
        "{late:?}"
    );
}
