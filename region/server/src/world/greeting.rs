//! What a world says of itself once every region is ready.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    api::{RegionView, WorldView},
    link::LinkView,
    plan::loopback,
    reached::Reached,
};

/// `program` is the command as it was typed, so that what is to be tried next can be copied. Ends with `ready` on a line of its own.
pub(crate) fn greeting(
    view: &WorldView,
    links: &[LinkView],
    reached: Reached,
    admin_port: u16,
    program: &str,
) -> String {
    let mut text = String::from("\n");
    let tls = if reached.https { "s" } else { "" };
    let edge = |region: &RegionView| SocketAddr::new(reached.edge, region.http_port);
    let http = |region: &RegionView| format!("http{tls}://{}", edge(region));
    let mut rows = vec![["region", "HTTP", "WebSocket", "admin", "data", "pid"].map(str::to_owned)];
    rows.extend(view.processes().map(|region| {
        [
            region.name.clone(),
            format!("{}/v1", http(region)),
            format!("ws{tls}://{}/v1/connect", edge(region)),
            format!("http://{}", SocketAddr::new(reached.admin, region.admin_port)),
            region.data.display().to_string(),
            region.pid.unwrap_or_default().to_string(),
        ]
    }));
    table(&mut text, &rows);

    text.push('\n');
    for link in links
        .iter()
        .filter(|link| link.settings.delay_ms > 0 && link.from < link.to)
    {
        let back = links.iter().find(|back| back.from == link.to && back.to == link.from);
        let rtt_ms = link.settings.delay_ms + back.map_or(0, |back| back.settings.delay_ms);
        let _ = writeln!(text, "  {} and {}: a round trip takes {rtt_ms} ms", link.from, link.to);
    }
    let admin = format!("http://{}", loopback(admin_port));
    let _ = writeln!(text, "  the world and its links: {admin}/world {admin}/links");

    text.push_str("\n  Next, in other terminals:\n");
    let ends = [view.regions.first(), view.regions.last()];
    if let [Some(one), Some(other)] = ends {
        for (region, own, peer) in [(one, "alice", "bob"), (other, "bob", "alice")] {
            let server = http(region);
            let _ = writeln!(
                text,
                "    {program} chat --server {server} --username {own} --with {peer}"
            );
        }
        let _ = writeln!(
            text,
            "    curl -X PUT {admin}/links/{}/{} -d '{{\"state\":\"blackhole\"}}'",
            one.name, other.name
        );
        let _ = writeln!(text, "    kill -9 $(cat {}/pid)", one.data.display());
    }
    text.push_str("\nready\n");
    text
}

/// Columns as wide as their widest cell.
fn table<const COLUMNS: usize>(text: &mut String, rows: &[[String; COLUMNS]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells = row
            .iter()
            .enumerate()
            .map(|(at, cell)| format!("{cell:<width$}", width = width(at)));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        world::{
            link::{LinkSettings, LinkState},
            region::RegionState,
        },
    };

    fn view() -> WorldView {
        let region = |name: &str, index: u16| RegionView {
            name: name.to_owned(),
            index,
            state: RegionState::Ready,
            pid: Some(100 + u32::from(index)),
            starts: 1,
            last_end: None,
            http_port: 9000 + 100 * index,
            admin_port: 9001 + 100 * index,
            rpc_port: 9004 + 100 * index,
            data: ["data", name].iter().collect(),
        };
        WorldView {
            base_port: 9000,
            ready: true,
            regions: vec![region("us-east", 0), region("eu-central", 1)],
            nodes: Vec::new(),
        }
    }

    fn link(from: &str, to: &str) -> LinkView {
        LinkView {
            from: from.to_owned(),
            to: to.to_owned(),
            listen: loopback(1),
            settings: LinkSettings {
                delay_ms: 45,
                jitter_ms: 2,
                bits_per_s: 0,
                state: LinkState::Up,
            },
            carried_bytes: 0,
            connections: 0,
        }
    }

    #[test]
    fn the_greeting_says_what_there_is_what_to_try_and_ready_on_a_line_of_its_own() {
        let links = [link("us-east", "eu-central"), link("eu-central", "us-east")];
        let greeting = greeting(&view(), &links, Reached::of(&Config::default()), 9099, "./antiphon");
        let expected = "
  region      HTTP                      WebSocket                       admin                  data             pid
  us-east     http://127.0.0.1:9000/v1  ws://127.0.0.1:9000/v1/connect  http://127.0.0.1:9001  data/us-east     100
  eu-central  http://127.0.0.1:9100/v1  ws://127.0.0.1:9100/v1/connect  http://127.0.0.1:9101  data/eu-central  101

  eu-central and us-east: a round trip takes 90 ms
  the world and its links: http://127.0.0.1:9099/world http://127.0.0.1:9099/links

  Next, in other terminals:
    ./antiphon chat --server http://127.0.0.1:9000 --username alice --with bob
    ./antiphon chat --server http://127.0.0.1:9100 --username bob --with alice
    curl -X PUT http://127.0.0.1:9099/links/us-east/eu-central -d '{\"state\":\"blackhole\"}'
    kill -9 $(cat data/us-east/pid)

ready
";
        assert_eq!(greeting, expected, "{greeting}");
    }
}
