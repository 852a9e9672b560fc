//! What a world's links alone take of a message's time, and what is left for the regions.

use std::collections::BTreeMap;

use antiphon_probe::Delay;
use serde::Serialize;

use crate::{
    ctl::table::table,
    world::{LinkView, WorldView},
};

/// How long messages took along one way, and how much of that the links take by their settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathDelay {
    from: String,
    home: String,
    to: String,
    messages: usize,
    /// To the home, from there to its nearest region and back (the in-sync copy), and to the receiver.
    links_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// What `p99_ms` is above `links_ms`.
    over_links_p99_ms: f64,
}

/// Names the regions of `delays`, and sets against each what the links of its way take without their jitter.
pub(super) fn paths(delays: &[Delay], world: &WorldView, links: &[LinkView]) -> Vec<PathDelay> {
    let delay_ms: BTreeMap<(&str, &str), f64> = links
        .iter()
        .map(|link| {
            (
                (link.from.as_str(), link.to.as_str()),
                f64::from(link.settings.delay_ms),
            )
        })
        .collect();
    let one_way = |from: &str, to: &str| delay_ms.get(&(from, to)).copied().unwrap_or_default();
    let to_copy = |home: &str| {
        let others = world.regions.iter().filter(|region| region.name != home);
        let round_trips = others.map(|region| one_way(home, &region.name) + one_way(&region.name, home));
        round_trips.reduce(f64::min).unwrap_or_default()
    };
    let path = |delay: &Delay| {
        let [from, home, to] = [&delay.from, &delay.home, &delay.to].map(|edge| name(world, edge));
        let links_ms = one_way(from, home) + to_copy(home) + one_way(home, to);
        PathDelay {
            from: from.to_owned(),
            home: home.to_owned(),
            to: to.to_owned(),
            messages: delay.messages,
            links_ms,
            p50_ms: delay.p50_ms,
            p99_ms: delay.p99_ms,
            over_links_p99_ms: delay.p99_ms - links_ms,
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
        "links ms",
        "half ms",
        "99 of 100 ms",
        "over the links ms",
    ];
    let rows = paths.iter().map(|path| {
        [
            path.from.clone(),
            path.home.clone(),
            path.to.clone(),
            path.messages.to_string(),
            format!("{:.1}", path.links_ms),
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

    fn link(from: &str, to: &str, delay_ms: u32) -> Value {
        json!({"from": from, "to": to, "listen": "127.0.0.1:1", "delayMs": delay_ms, "jitterMs": 9, "bitsPerS": 0, "state": "up",
            "carriedBytes": 0, "connections": 0})
    }

    #[test]
    fn a_path_is_to_the_home_its_nearest_copy_and_back_and_to_the_receiver() {
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
        let links = links.map(|(from, to, delay_ms)| serde_json::from_value(link(from, to, delay_ms)).unwrap());
        let delay = Delay {
            from: "http://127.0.0.1:7600".to_owned(),
            home: "http://127.0.0.1:7400".to_owned(),
            to: "http://127.0.0.1:7500".to_owned(),
            messages: 7,
            p50_ms: 82.0,
            p99_ms: 85.0,
        };
        let found = paths(&[delay], &world, &links);
        assert_eq!(
            (found[0].from.as_str(), found[0].home.as_str(), found[0].to.as_str()),
            ("c", "a", "b")
        );
        assert_eq!(
            (found[0].links_ms, found[0].over_links_p99_ms),
            (50.0 + 21.0 + 10.0, 4.0)
        );
    }
}
