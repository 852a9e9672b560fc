//! What a world's links alone take of a message's time, and what is left for the regions.

use std::{collections::BTreeMap, time::Duration};

use antiphon_probe::{Delay, percentile};
use serde::Serialize;

use crate::{
    ctl::table::table,
    world::{LinkSettings, LinkView, WorldView},
};

/// How many messages the links alone are asked to carry: enough that drawing them again changes no tenth of a millisecond by much.
const DRAWN: usize = 20_000;

/// How long messages took along one way, and how much of that the links take by their settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathDelay {
    from: String,
    home: String,
    to: String,
    messages: usize,
    /// To the home, from there to whichever region has answered first (the in-sync copy), and to the receiver: half were faster.
    links_p50_ms: f64,
    /// As `links_p50_ms`: one in a hundred was slower.
    links_p99_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// What `p99_ms` is above `links_p99_ms`.
    over_links_p99_ms: f64,
}

/// Names the regions of `delays`, and sets against each what the links of its way take: their delays, with a jitter drawn for each
/// message and link.
pub(super) fn paths(delays: &[Delay], world: &WorldView, links: &[LinkView]) -> Vec<PathDelay> {
    let settings: BTreeMap<(&str, &str), LinkSettings> = links
        .iter()
        .map(|link| ((link.from.as_str(), link.to.as_str()), link.settings))
        .collect();
    let one_way = |from: &str, to: &str| {
        settings
            .get(&(from, to))
            .map(LinkSettings::drawn_delay)
            .unwrap_or_default()
    };
    let to_copy = |home: &str| {
        let others = world.regions.iter().filter(|region| region.name != home);
        let round_trips = others.map(|region| one_way(home, &region.name) + one_way(&region.name, home));
        round_trips.min().unwrap_or_default()
    };
    let path = |delay: &Delay| {
        let [from, home, to] = [&delay.from, &delay.home, &delay.to].map(|edge| name(world, edge));
        let mut drawn: Vec<Duration> = (0..DRAWN)
            .map(|_| one_way(from, home) + to_copy(home) + one_way(home, to))
            .collect();
        drawn.sort_unstable();
        let links_ms = |of_hundred| percentile(&drawn, of_hundred).as_secs_f64() * 1e3;
        PathDelay {
            from: from.to_owned(),
            home: home.to_owned(),
            to: to.to_owned(),
            messages: delay.messages,
            links_p50_ms: links_ms(50),
            links_p99_ms: links_ms(99),
            p50_ms: delay.p50_ms,
            p99_ms: delay.p99_ms,
            over_links_p99_ms: delay.p99_ms - links_ms(99),
        }
    };
    delays.iter().map(path).collect()
}

/// The region whose edge this is.
fn name<'a>(world: &'a WorldView, edge: &'a str) -> &'a str {
    let port = edge.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let region = world.regions.iter().find(|region| Some(region.http_port) == port);
    let further = || world.nodes.iter().find(|node| Some(node.process.http_port) == port);
    let found = region.map(|region| &region.name).or_else(|| Some(&further()?.region));
    found.map_or(edge, String::as_str)
}

pub(super) fn in_words(paths: &[PathDelay]) -> String {
    let head = [
        "from",
        "home",
        "to",
        "messages",
        "links p50 ms",
        "links p99 ms",
        "p50 ms",
        "p99 ms",
        "over the links ms",
    ];
    let rows = paths.iter().map(|path| {
        [
            path.from.clone(),
            path.home.clone(),
            path.to.clone(),
            path.messages.to_string(),
            format!("{:.1}", path.links_p50_ms),
            format!("{:.1}", path.links_p99_ms),
            format!("{:.1}", path.p50_ms),
            format!("{:.1}", path.p99_ms),
            format!("{:+.1}", path.over_links_p99_ms),
        ]
    });
    table(head, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn region(name: &str, index: u16) -> Value {
        let port = 7400 + 100 * index;
        json!({"name": name, "index": index, "state": "ready", "pid": 1, "starts": 1, "lastEnd": null, "httpPort": port,
            "adminPort": port + 1, "rpcPort": port + 4, "data": "x"})
    }

    fn link(from: &str, to: &str, delay_ms: u32, jitter_ms: u32) -> Value {
        json!({"from": from, "to": to, "listen": "127.0.0.1:1", "delayMs": delay_ms, "jitterMs": jitter_ms, "bitsPerS": 0, "state": "up",
            "carriedBytes": 0, "connections": 0})
    }

    /// From `c` to `b` in a conversation whose home is `a`.
    fn found(jitter_ms: u32) -> PathDelay {
        let regions = [region("a", 0), region("b", 1), region("c", 2)];
        let world = json!({"basePort": 7400, "ready": true, "regions": regions});
        let world: WorldView = serde_json::from_value(world).unwrap();
        let links = [
            ("a", "b", 10),
            ("b", "a", 11),
            ("a", "c", 50),
            ("c", "a", 50),
            ("b", "c", 70),
            ("c", "b", 70),
        ];
        let view = |(from, to, delay_ms)| serde_json::from_value(link(from, to, delay_ms, jitter_ms)).unwrap();
        let delay = Delay {
            from: "http://127.0.0.1:7600".to_owned(),
            home: "http://127.0.0.1:7400".to_owned(),
            to: "http://127.0.0.1:7500".to_owned(),
            messages: 7,
            p50_ms: 82.0,
            p99_ms: 85.0,
        };
        paths(&[delay], &world, &links.map(view)).remove(0)
    }

    #[test]
    fn a_path_is_to_the_home_its_nearest_copy_and_back_and_to_the_receiver() {
        let found = found(0);
        assert_eq!(
            (found.from.as_str(), found.home.as_str(), found.to.as_str()),
            ("c", "a", "b")
        );
        let links_ms = 50.0 + 21.0 + 10.0;
        assert_eq!((found.links_p50_ms, found.links_p99_ms), (links_ms, links_ms));
        assert_eq!(found.over_links_p99_ms, 4.0);
    }

    #[test]
    fn the_jitter_of_each_link_is_in_what_the_links_take() {
        let found = found(9);
        // Four links: half of their jitter is 18 ms, and of 99 in 100 it is below 30.
        assert!((98.0..100.0).contains(&found.links_p50_ms), "{found:?}");
        assert!((110.0..112.5).contains(&found.links_p99_ms), "{found:?}");
    }
}
