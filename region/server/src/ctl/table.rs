//! Tables for people.

use std::fmt::Write as _;

use super::{
    api::Done,
    view::{SlotView, View},
};
use crate::world::{LinkView, WorldView, in_words};

/// Refused slots that are named.
const NAMED_MAX: usize = 10;

pub(crate) fn status(view: &View) -> String {
    let leader = view.leader.as_deref().unwrap_or("nobody");
    let mut text = format!(
        "directory   led by {leader}, term {}, version {}; voters {}\nanswered by {} ({})\npolicy      {} durability, {} in-sync copies, writes with {} or more\n",
        view.term,
        view.version,
        view.voters.join(", "),
        view.region,
        view.role,
        view.durability,
        view.in_sync_copies,
        view.min_in_sync,
    );
    let _ = writeln!(
        text,
        "slots       {} moving, {} short of in-sync copies, {} that refuse writes",
        view.moving, view.short, view.refusing
    );
    format!("{text}\n{}", regions(view))
}

pub(crate) fn regions(view: &View) -> String {
    let head = ["region", "id", "status", "homes", "in sync", "observes", "edge"];
    let rows = view.regions.iter().map(|region| {
        [
            region.name.clone(),
            region.id.to_string(),
            region.status.clone(),
            region.homes.to_string(),
            region.in_sync.to_string(),
            region.observes.to_string(),
            region.edge.clone(),
        ]
    });
    table(head, rows)
}

pub(crate) fn slots(slots: &[SlotView]) -> String {
    let head = ["slot", "home", "in sync", "observers", "epoch", "version", "moving to"];
    let rows = slots.iter().map(|slot| {
        [
            slot.slot.to_string(),
            slot.home.clone(),
            slot.in_sync.join(","),
            slot.observers.join(","),
            slot.epoch.to_string(),
            slot.version.to_string(),
            slot.moving_to.clone().unwrap_or_default(),
        ]
    });
    table(head, rows)
}

pub(crate) fn done(what: &str, done: &Done) -> String {
    let mut text = format!("{} {what}\n", done.slots);
    if !done.refused.is_empty() {
        let _ = writeln!(text, "{} were refused:", done.refused.len());
    }
    for line in refused(done) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// On one line, for a command that has come to nothing.
pub(crate) fn nothing_done(what: &str, done: &Done) -> String {
    let why = refused(done).join("; ");
    if why.is_empty() {
        return format!("{what}: there was nothing to do");
    }
    format!("{what}: {why}")
}

fn refused(done: &Done) -> Vec<String> {
    let named = done.refused.iter().take(NAMED_MAX);
    let mut lines: Vec<String> = named.map(|(slot, why)| format!("slot {slot}: {why}")).collect();
    if done.refused.len() > NAMED_MAX {
        lines.push(format!("and {} more", done.refused.len() - NAMED_MAX));
    }
    lines
}

pub(crate) fn links(links: &[LinkView]) -> String {
    let head = [
        "from",
        "to",
        "state",
        "delay ms",
        "jitter ms",
        "bits/s",
        "carried bytes",
    ];
    let rows = links.iter().map(|link| {
        let settings = &link.settings;
        [
            link.from.clone(),
            link.to.clone(),
            settings.state.name().to_owned(),
            settings.delay_ms.to_string(),
            settings.jitter_ms.to_string(),
            match settings.bits_per_s {
                0 => "no limit".to_owned(),
                limit => limit.to_string(),
            },
            link.carried_bytes.to_string(),
        ]
    });
    table(head, rows)
}

pub(crate) fn processes(world: &WorldView) -> String {
    let head = ["region", "process", "port", "state", "starts", "last end", "data"];
    let rows = world.processes().map(|region| {
        [
            region.name.clone(),
            region.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            region.http_port.to_string(),
            in_words(region.state).to_owned(),
            region.starts.to_string(),
            region.last_end.clone().unwrap_or_else(|| "-".to_owned()),
            region.data.display().to_string(),
        ]
    });
    table(head, rows)
}

pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "12345".to_owned()],
            ["long-name".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            table(["name", "no"], rows.into_iter()),
            "name       no\na          12345\nlong-name  1\n"
        );
    }

    #[test]
    fn what_was_refused_is_counted_and_the_first_of_it_named() {
        let refused: Vec<(u16, String)> = (0..12).map(|slot| (slot, "nobody is in sync".to_owned())).collect();
        let some = Done { slots: 3, refused };
        let said = done("slots have another home", &some);
        assert!(
            said.starts_with("3 slots have another home\n12 were refused:\nslot 0: nobody is in sync\n"),
            "{said}"
        );
        assert!(said.ends_with("slot 9: nobody is in sync\nand 2 more\n"), "{said}");

        let nothing = Done { slots: 0, ..some };
        let said = nothing_done("no slot has another home", &nothing);
        assert!(
            said.starts_with("no slot has another home: slot 0: nobody is in sync; slot 1"),
            "{said}"
        );
        assert!(!said.contains('\n'), "{said}");
    }
}
