//! Figures as text.

use antiphon_bench::{Figures, Spread};
use antiphon_client::Transport;

/// What a column tells of a run.
enum Of {
    /// What it was, or a count: the same in all runs of one load, or nothing that has a median.
    Word(fn(&Figures) -> Option<String>),
    /// With so many digits.
    Figure(usize, fn(&Figures) -> Option<f64>),
    /// With two digits below ten, where it would lose what it is about, and none above.
    Rate(fn(&Figures) -> Option<f64>),
}

/// Every figure, as people call it.
const COLUMNS: [(&str, Of); 46] = [
    ("transport", Of::Word(|of| Some(of.transport.to_owned()))),
    ("run", Of::Word(|of| text(of.run))),
    ("time", Of::Word(|of| text(of.time))),
    ("codec", Of::Word(|of| text(of.codec))),
    ("offered/s", Of::Word(|of| of.offered_per_s.map(rate))),
    ("messages/s", Of::Rate(|of| of.messages_per_s)),
    (
        "kept",
        Of::Word(|of| text(of.is_kept.map(|is_kept| if is_kept { "yes" } else { "no" }))),
    ),
    ("deliveries/s", Of::Rate(|of| of.deliveries_per_s)),
    ("pages/s", Of::Rate(|of| of.pages_per_s)),
    ("p50 ms", Of::Figure(2, |of| of.p50_ms)),
    ("p99 ms", Of::Figure(2, |of| of.p99_ms)),
    ("p99.9 ms", Of::Figure(2, |of| of.p999_ms)),
    ("samples", Of::Word(|of| text(of.samples))),
    ("to all: p50 ms", Of::Figure(2, |of| of.to_all_p50_ms)),
    ("to all: p99 ms", Of::Figure(2, |of| of.to_all_p99_ms)),
    ("all back ms", Of::Figure(0, |of| of.all_back_ms)),
    ("server µs", Of::Figure(1, |of| of.server_cpu_us_per_message)),
    ("load µs", Of::Figure(1, |of| of.load_cpu_us_per_message)),
    ("written B", Of::Figure(0, |of| of.written_bytes_per_message)),
    ("fsyncs", Of::Figure(2, |of| of.fsyncs_per_message)),
    ("MiB empty", Of::Figure(1, |of| of.server_rss_bytes_empty.map(mib))),
    ("MiB before", Of::Figure(1, |of| of.server_rss_bytes_before.map(mib))),
    ("server MiB", Of::Figure(1, |of| of.server_rss_bytes.map(mib))),
    ("at most", Of::Figure(1, |of| of.server_rss_bytes_max.map(mib))),
    ("MiB after", Of::Figure(1, |of| of.server_rss_bytes_after.map(mib))),
    ("in overload/s", Of::Rate(|of| of.overload_messages_per_s)),
    ("slow above ms", Of::Figure(1, |of| of.slow_above_ms)),
    ("normal after ms", Of::Figure(0, |of| of.back_to_normal_ms)),
    ("but for the disk", Of::Figure(0, |of| of.back_to_normal_but_disk_ms)),
    ("slow seconds", Of::Figure(0, |of| whole(of.slow_seconds))),
    ("of the disk", Of::Figure(0, |of| whole(of.slow_seconds_of_disk))),
    ("connections", Of::Word(|of| text(of.connections))),
    ("conversations", Of::Word(|of| text(of.conversations))),
    (
        "stored before",
        Of::Word(|of| text(of.stored.filter(|stored| *stored > 0))),
    ),
    ("bytes each", Of::Figure(0, |of| whole(of.bytes_per_connection))),
    ("refused", Of::Word(|of| text(of.refused))),
    ("for good", Of::Word(|of| text(of.refused_for_good))),
    ("lost", Of::Word(|of| text(of.lost))),
    ("duplicated", Of::Word(|of| text(of.duplicated))),
    ("broken rules", Of::Word(|of| text(of.broken_rules))),
    ("of echo", Of::Figure(3, |of| Some(of.ratio?.echo))),
    ("of fdatasync", Of::Figure(3, |of| of.ratio?.fdatasync)),
    (
        "of codec",
        Of::Figure(3, |of| {
            let ratio = of.ratio?;
            Some(if of.codec.is_some() {
                ratio.json_codec
            } else {
                ratio.codec
            })
        }),
    ),
    ("round trips: first", Of::Figure(1, |of| of.round_trips_first)),
    ("cold", Of::Figure(1, |of| of.round_trips_cold)),
    ("resumed", Of::Figure(1, |of| of.round_trips_resumed)),
];

/// A line for each run, a column for each figure that there is.
pub(super) fn table(all: &[Figures]) -> String {
    let mut lines = vec![String::new(); all.len() + 1];
    for (name, of) in &COLUMNS {
        let cell = |figures| match of {
            Of::Word(of) => of(figures),
            Of::Figure(digits, of) => of(figures).map(|value| format!("{value:.digits$}")),
            Of::Rate(of) => of(figures).map(rate),
        };
        let cells: Vec<Option<String>> = all.iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> = cells.into_iter().map(Option::unwrap_or_default).collect();
        let width = cells.iter().map(String::len).chain([name.len()]).max().unwrap_or(0);
        for (line, cell) in lines
            .iter_mut()
            .zip(std::iter::once(*name).chain(cells.iter().map(String::as_str)))
        {
            line.push_str(&format!("{cell:<width$}  "));
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A line for each load that was run several times: of what its runs have measured, the median, the least and the most.
pub(super) fn medians(all: &[Figures]) -> String {
    let mut loads: Vec<(Load, Vec<&Figures>)> = Vec::new();
    for figures in all {
        match loads.iter_mut().find(|(of, _)| *of == load(figures)) {
            Some((_, runs)) => runs.push(figures),
            None => loads.push((load(figures), vec![figures])),
        }
    }
    let mut lines = String::new();
    for (load, runs) in loads {
        let told = COLUMNS.iter().filter_map(|(name, of)| {
            let (digits, of) = match of {
                Of::Word(_) => return None,
                Of::Figure(digits, of) => (Some(*digits), of),
                Of::Rate(of) => (None, of),
            };
            let values: Vec<f64> = runs.iter().filter_map(|figures| of(figures)).collect();
            let count = match values.len() {
                all if all == runs.len() => String::new(),
                some => format!(" in {some} of them"),
            };
            let spread = Spread::of(values)?;
            let digits = digits.unwrap_or_else(|| digits_of_rate(spread.median));
            Some(format!("{name} {}{count}", in_words(spread, digits)))
        });
        let told: Vec<String> = told.collect();
        let name = name(load);
        lines.push_str(&format!("{name}, median of {}: {}\n", runs.len(), told.join(", ")));
    }
    lines
}

fn text(of: Option<impl ToString>) -> Option<String> {
    of.map(|of| of.to_string())
}

/// A count that has a median.
fn whole(count: Option<impl TryInto<u32>>) -> Option<f64> {
    count?.try_into().ok().map(f64::from)
}

fn rate(per_s: f64) -> String {
    format!("{per_s:.digits$}", digits = digits_of_rate(per_s))
}

const fn digits_of_rate(per_s: f64) -> usize {
    if per_s < 10.0 { 2 } else { 0 }
}

/// A search for the highest rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    pub(super) transport: Transport,
    /// Which of the loads that were asked for.
    pub(super) load: usize,
    /// None: no rate was kept.
    pub(super) rate: Option<f64>,
}

/// A line for each load over each transport: the highest rate of its searches.
pub(super) fn highest(of: &[Search], p99_ms: f64) -> String {
    let is_same = |a: &Search, b: &Search| (a.transport, a.load) == (b.transport, b.load);
    let of_load = of.chunk_by(is_same).map(|searches| {
        let transport = searches.first().map_or("", |search| search.transport.name());
        let rates: Vec<f64> = searches.iter().filter_map(|search| search.rate).collect();
        let (kept, count) = (rates.len(), searches.len());
        let Some(spread) = Spread::of(rates) else {
            return format!("{transport}, no rate that was tried has p99 <= {p99_ms} ms\n");
        };
        let rate = match count {
            1 => format!(": {:.0}", spread.median),
            _ => format!(", median of {kept} searches of {count}: {}", in_words(spread, 0)),
        };
        format!("{transport}, the highest rate with p99 <= {p99_ms} ms{rate} messages/s\n")
    });
    of_load.collect()
}

/// The median, and from where to where.
fn in_words(spread: Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

#[expect(clippy::cast_precision_loss, reason = "shown in one digit")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What is the same in all runs of one load.
type Load = (
    &'static str,
    Option<u16>,
    Option<f64>,
    Option<usize>,
    Option<usize>,
    Option<u64>,
);

const fn load(of: &Figures) -> Load {
    (
        of.transport,
        of.time,
        of.offered_per_s,
        of.connections,
        of.conversations,
        of.stored,
    )
}

/// As people call a load.
fn name((transport, time, offered_per_s, connections, conversations, stored): Load) -> String {
    let parts = [
        time.map(|time| format!("time {time}")),
        offered_per_s.map(|rate| format!("{rate:.0}/s")),
        connections.map(|count| format!("{count} connections")),
        conversations.map(|count| format!("{count} conversations")),
        stored
            .filter(|count| *count > 0)
            .map(|count| format!("{count} stored before")),
    ];
    let parts = [Some(transport.to_owned())].into_iter().chain(parts).flatten();
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_have_a_median_and_a_spread() {
        let run = |p50_ms| Figures {
            transport: "quic",
            p50_ms: Some(p50_ms),
            ..Figures::default()
        };
        let other = Figures {
            p50_ms: None,
            ..run(1.0)
        };
        assert_eq!(
            medians(&[run(3.0), other, run(2.5)]),
            "quic, median of 3: p50 ms 2.75 (2.50 to 3.00) in 2 of them\n"
        );
        assert_eq!(
            medians(&[run(3.0), run(1.0), run(2.5)]),
            "quic, median of 3: p50 ms 2.50 (1.00 to 3.00)\n"
        );
        let of = |pages_per_s| Figures {
            pages_per_s: Some(pages_per_s),
            slow_seconds: Some(4),
            refused: Some(7),
            ..run(2.0)
        };
        assert_eq!(
            medians(&[of(1.25), of(9.75), of(20.0)]),
            "quic, median of 3: pages/s 9.75 (1.25 to 20.00), p50 ms 2.00 (2.00 to 2.00), slow seconds 4 (4 to 4)\n"
        );
        let of = |connections| Figures {
            connections: Some(connections),
            ..run(2.0)
        };
        assert_eq!(
            medians(&[of(2), of(2), of(3)]),
            "quic, 2 connections, median of 2: p50 ms 2.00 (2.00 to 2.00)\n\
             quic, 3 connections, median of 1: p50 ms 2.00 (2.00 to 2.00)\n"
        );
        let of = |time, p50_ms| Figures {
            time: Some(time),
            ..run(p50_ms)
        };
        assert_eq!(
            medians(&[of(1, 1.0), of(2, 5.0), of(1, 3.0), of(2, 7.0)]),
            "quic, time 1, median of 2: p50 ms 2.00 (1.00 to 3.00)\n\
             quic, time 2, median of 2: p50 ms 6.00 (5.00 to 7.00)\n"
        );
    }

    #[test]
    fn the_highest_rate_of_several_searches_has_a_spread() {
        let of = |rates: &[Option<f64>]| {
            let searches = rates.iter().map(|rate| Search {
                transport: Transport::Quic,
                load: 0,
                rate: *rate,
            });
            highest(&searches.collect::<Vec<_>>(), 10.0)
        };
        let name = "quic, the highest rate with p99 <= 10 ms";
        assert_eq!(of(&[Some(9.0)]), format!("{name}: 9 messages/s\n"));
        assert_eq!(
            of(&[Some(9.0), None, Some(5.0)]),
            format!("{name}, median of 2 searches of 3: 7 (5 to 9) messages/s\n")
        );
        assert_eq!(of(&[None]), "quic, no rate that was tried has p99 <= 10 ms\n");
    }

    #[test]
    fn a_table_has_the_columns_that_were_measured() {
        let figures = Figures {
            transport: "quic",
            p50_ms: Some(1.5),
            lost: Some(0),
            ..Figures::default()
        };
        let other = Figures {
            transport: "websocket",
            ..figures.clone()
        };
        assert_eq!(
            table(&[figures, other]),
            "transport  p50 ms  lost\nquic       1.50    0\nwebsocket  1.50    0\n"
        );
    }
}
