//! Figures as text.

use antiphon_bench::Figures;

/// A line for each run, a column for each figure that there is.
pub(super) fn table(all: &[Figures]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown in three digits")]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    type Cell = Box<dyn Fn(&Figures) -> Option<String>>;
    fn with(digits: usize, of: impl Fn(&Figures) -> Option<f64> + 'static) -> Cell {
        Box::new(move |figures| of(figures).map(|value| format!("{value:.digits$}")))
    }
    // A rate below ten would lose what it is about.
    fn rate(of: impl Fn(&Figures) -> Option<f64> + 'static) -> Cell {
        Box::new(move |figures| {
            of(figures).map(|value| format!("{value:.digits$}", digits = if value < 10.0 { 2 } else { 0 }))
        })
    }
    fn count<T: ToString>(of: impl Fn(&Figures) -> Option<T> + 'static) -> Cell {
        Box::new(move |figures| of(figures).map(|value| value.to_string()))
    }
    let columns: [(&str, Cell); 37] = [
        ("transport", count(|of| Some(of.transport))),
        ("codec", count(|of| of.codec)),
        ("offered/s", rate(|of| of.offered_per_s)),
        ("messages/s", rate(|of| of.messages_per_s)),
        ("deliveries/s", rate(|of| of.deliveries_per_s)),
        ("pages/s", rate(|of| of.pages_per_s)),
        ("p50 ms", with(2, |of| of.p50_ms)),
        ("p99 ms", with(2, |of| of.p99_ms)),
        ("p99.9 ms", with(2, |of| of.p999_ms)),
        ("to all: p50 ms", with(2, |of| of.to_all_p50_ms)),
        ("to all: p99 ms", with(2, |of| of.to_all_p99_ms)),
        ("all back ms", with(0, |of| of.all_back_ms)),
        ("server µs", with(1, |of| of.server_cpu_us_per_message)),
        ("load µs", with(1, |of| of.load_cpu_us_per_message)),
        ("written B", with(0, |of| of.written_bytes_per_message)),
        ("fsyncs", with(2, |of| of.fsyncs_per_message)),
        ("MiB before", with(1, move |of| of.server_rss_bytes_before.map(mib))),
        ("server MiB", with(1, move |of| of.server_rss_bytes.map(mib))),
        ("at most", with(1, move |of| of.server_rss_bytes_max.map(mib))),
        ("in overload/s", rate(|of| of.overload_messages_per_s)),
        ("slow above ms", with(1, |of| of.slow_above_ms)),
        ("normal after ms", with(0, |of| of.back_to_normal_ms)),
        ("slow seconds", count(|of| of.slow_seconds)),
        ("connections", count(|of| of.connections)),
        ("conversations", count(|of| of.conversations)),
        ("stored before", count(|of| of.stored.filter(|stored| *stored > 0))),
        ("bytes each", count(|of| of.bytes_per_connection)),
        ("refused", count(|of| of.refused)),
        ("for good", count(|of| of.refused_for_good)),
        ("lost", count(|of| of.lost)),
        ("duplicated", count(|of| of.duplicated)),
        ("broken rules", count(|of| of.broken_rules)),
        ("of echo", with(3, |of| Some(of.ratio?.echo))),
        ("of fdatasync", with(3, |of| of.ratio?.fdatasync)),
        (
            "of codec",
            with(3, |of| {
                let ratio = of.ratio?;
                Some(if of.codec.is_some() {
                    ratio.json_codec
                } else {
                    ratio.codec
                })
            }),
        ),
        ("round trips: first", with(1, |of| of.round_trips_first)),
        (
            "cold, resumed",
            count(|of| Some(format!("{:.1}, {:.1}", of.round_trips_cold?, of.round_trips_resumed?))),
        ),
    ];
    let mut lines = vec![String::new(); all.len() + 1];
    for (name, of) in columns {
        let cells: Vec<Option<String>> = all.iter().map(&of).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> = cells.into_iter().map(Option::unwrap_or_default).collect();
        let width = cells.iter().map(String::len).chain([name.len()]).max().unwrap_or(0);
        for (line, cell) in lines
            .iter_mut()
            .zip(std::iter::once(name).chain(cells.iter().map(String::as_str)))
        {
            line.push_str(&format!("{cell:<width$}  "));
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A line for each load that was run several times: of what its runs have measured, the median, the least and the most.
pub(super) fn medians(all: &[Figures]) -> String {
    type Of = fn(&Figures) -> Option<f64>;
    let columns: [(&str, usize, Of); 6] = [
        ("messages/s", 0, |of| of.messages_per_s),
        ("deliveries/s", 0, |of| of.deliveries_per_s),
        ("p50 ms", 2, |of| of.p50_ms),
        ("p99 ms", 2, |of| of.p99_ms),
        ("server µs", 1, |of| of.server_cpu_us_per_message),
        ("bytes each", 0, |of| {
            of.bytes_per_connection
                .and_then(|bytes| u32::try_from(bytes).ok())
                .map(f64::from)
        }),
    ];
    let mut lines = String::new();
    for runs in all.chunk_by(|a, b| load(a) == load(b)) {
        let told = columns.iter().filter_map(|(name, digits, of)| {
            let mut values: Vec<f64> = runs.iter().filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values.first()?, values.last()?);
            let median = values.get(values.len() / 2)?;
            Some(format!(
                "{name} {median:.digits$} ({least:.digits$} to {most:.digits$})"
            ))
        });
        let told: Vec<String> = told.collect();
        let name = runs.first().map_or_else(String::new, name);
        lines.push_str(&format!("{name}, median of {}: {}\n", runs.len(), told.join(", ")));
    }
    lines
}

/// What is the same in all runs of one load.
type Load = (&'static str, Option<f64>, Option<usize>, Option<usize>, Option<u64>);

const fn load(of: &Figures) -> Load {
    (
        of.transport,
        of.offered_per_s,
        of.connections,
        of.conversations,
        of.stored,
    )
}

/// As people call a load.
fn name(of: &Figures) -> String {
    let (transport, offered_per_s, connections, conversations, stored) = load(of);
    let parts = [
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
        assert_eq!(
            medians(&[run(3.0), run(1.0), run(2.5)]),
            "quic, median of 3: p50 ms 2.50 (1.00 to 3.00)\n"
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
