//! What `antiphon bench` is asked for.

use std::{path::PathBuf, time::Duration};

use antiphon_bench::{Shape, Size, TalkOptions};
use antiphon_client::{Codec, Transport};
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::TransportName;

/// Of a load that does not say how long it takes.
const SECONDS: u64 = 10;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(super) scenario: Scenario,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What every scenario takes.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// What devices are connected over; may be repeated [default: each, one after the other]
    #[arg(long, global = true, value_enum, value_name = "NAME")]
    pub(super) transport: Vec<TransportName>,
    /// How often each is run, every time with a server of its own; of --find-max, how often it looks
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) runs: u16,
    /// How many regions the server has; devices come to one after the other
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(super) regions: u16,
    /// WebSocket over TLS; the others are never without it
    #[arg(long, global = true)]
    pub(super) tls: bool,
    /// How devices write frames over WebSocket; over the others it is always protobuf
    #[arg(long, global = true, value_enum, value_name = "NAME", default_value_t)]
    pub(super) codec: CodecName,
    /// The first of the server's ports, 100 apart for each region
    #[arg(long, global = true, value_name = "PORT", default_value_t = 7800, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(super) base_port: u16,
    /// Measure also what the machine can do without a server, and say how much of that the server does
    #[arg(long, global = true)]
    pub(super) yardstick: bool,
    /// Write the figures to this file, as JSON, one run a line
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw those of users who talk to this file, as SVG: cost and latency against size or load where there are several, or each run against
    /// time
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
}

/// How frames are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CodecName {
    /// Protobuf
    #[default]
    Binary,
    /// Protobuf's JSON
    Json,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Binary => Self::Binary,
            CodecName::Json => Self::Json,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Scenario {
    /// Users who talk in twos, at a fixed rate
    Pairs {
        /// How many pairs; each has a conversation. Several: a run with each
        #[arg(long, value_name = "N", value_delimiter = ',', default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        pairs: Vec<u32>,
        /// Users who have them with each other, each with one device [default: two of its own for each pair]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
        users: Option<u32>,
        #[command(flatten)]
        load: Load,
    },
    /// Users who talk in twos: calm, then --rate, which is to be more than the server can, then calm again
    Overload {
        /// How many pairs; each has a conversation
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        pairs: u32,
        /// Messages a second while it is calm
        #[arg(long, value_name = "N", default_value_t = 1_000.0)]
        calm_rate: f64,
        /// Seconds of calm before and after; they count besides --seconds
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        calm: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Groups in which everybody talks, at a fixed rate
    Groups {
        /// How many groups of which size, as in 3:50,10:20,100:2 for fifty of three members, twenty of ten and two of a hundred
        #[arg(long, value_name = "MEMBERS:GROUPS", value_delimiter = ',', default_value = "3:20,10:10,100:1", value_parser = size)]
        sizes: Vec<Size>,
        #[command(flatten)]
        load: Load,
    },
    /// A day of a messenger: pairs and groups; a night and an evening; reading, looking back, losing connections and returning
    ///
    /// Latencies are from when a message was due, also where its sender or who is to have it was away then, for up to five seconds. Beside
    /// them the checker of `antiphon probe` judges groups of its own, except with --tls.
    Mixed {
        /// How many conversations of which size, as in 2:200,5:40,50:2
        #[arg(long, value_name = "MEMBERS:CONVERSATIONS", value_delimiter = ',', default_value = "2:200,5:40,50:2", value_parser = size)]
        sizes: Vec<Size>,
        #[command(flatten)]
        load: Load,
    },
    /// One conversation in which one member talks and all others listen
    Broadcast {
        /// Of the conversation, the one who talks among them. Several: a run with each
        #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(2..=10_000))]
        members: Vec<u32>,
        /// Deliveries a second, all members together, in place of --rate
        #[arg(long, value_name = "N", conflicts_with = "rate")]
        deliveries: Option<f64>,
        #[command(flatten)]
        load: Load,
    },
    /// Connections that say nothing: the memory of each
    Idle {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
        connections: u32,
        /// Seconds that the server is left alone before its memory is read
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        settle: u64,
    },
    /// All devices lose their connections at once, miss something and return at once
    ReconnectStorm {
        /// How many devices, rounded up to whole groups
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        connections: u32,
        /// Devices in each group
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=9_999))]
        listeners: u32,
        #[command(flatten)]
        missed: Missed,
    },
    /// Devices return after a long absence, each to many conversations of its own
    Sync {
        /// How many devices
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        devices: u32,
        /// Conversations of each
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        conversations: u32,
        #[command(flatten)]
        missed: Missed,
    },
    /// Readers of pages of old messages, each at a random place, at a fixed rate
    History {
        /// How many; each has a conversation
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        readers: u32,
        /// Messages of each conversation
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        messages: u64,
        /// Messages of each page, as many as the server has in one at the most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        page_len: u32,
        /// Pages a second, all readers together
        #[arg(long, value_name = "N", default_value_t = 100.0)]
        rate: f64,
        /// Bytes of each text
        #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
        text_bytes: u16,
        /// Seconds of reading before anything counts
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        warm_up: u64,
        /// Seconds of reading that count
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
    },
    /// Devices of another run
    #[command(hide = true)]
    Devices,
    /// From nothing to Welcome, in round trips of a slow path
    Connect {
        /// Milliseconds that the path takes in each direction
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        delay_ms: u64,
        /// How often it is tried; half were faster than what is told
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        times: u16,
    },
}

/// What devices miss that are away.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Missed {
    /// Messages that each conversation gets meanwhile
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) missed: u64,
    /// Bytes of each text
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(super) text_bytes: u16,
    /// How often they go away and return, to the same server
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) times: u16,
    /// Seconds that the server is left alone each time before its memory is read
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(super) settle: u64,
}

/// Of scenarios in which users talk.
#[derive(Debug, Clone, Args)]
pub(super) struct Load {
    /// Messages a second, all users together
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub(super) rate: f64,
    /// Messages that all conversations together hold already. Several: a run with each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    pub(super) stored: Vec<u64>,
    /// Bytes of each text
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(super) text_bytes: u16,
    /// Seconds of sending before anything counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(super) warm_up: u64,
    /// Seconds of sending that count [default: 10; a day's 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: Option<u64>,
    /// Look for the highest rate that is kept, --rate first: with 95 of 100 messages acknowledged in time, 99 of 100 within --p99-ms, and nothing
    /// refused, lost, stored twice or in another order
    #[arg(long)]
    pub(super) find_max: bool,
    /// Milliseconds that --find-max allows
    #[arg(long, value_name = "N", default_value_t = 10.0, requires = "find_max")]
    pub(super) p99_ms: f64,
}

/// As in 10:20.
fn size(text: &str) -> Result<Size, String> {
    let parts = text.split_once(':').and_then(|(members, groups)| {
        let members = members.parse().ok().filter(|members| (2..=10_000).contains(members))?;
        let conversations = groups.parse().ok().filter(|groups| *groups > 0)?;
        Some(Size { members, conversations })
    });
    parts.ok_or_else(|| format!("{text:?} is not MEMBERS:GROUPS, with 2 to 10000 members"))
}

impl Scenario {
    /// One of each size, and of each store, that was asked for.
    pub(super) fn each(&self) -> Vec<Self> {
        let mut of_size = vec![self.clone()];
        if let Self::Pairs { pairs, users, load } = self {
            let of = |pairs: &u32| Self::Pairs {
                pairs: vec![*pairs],
                users: *users,
                load: load.clone(),
            };
            of_size = pairs.iter().map(of).collect();
        } else if let Self::Broadcast {
            members,
            deliveries,
            load,
        } = self
        {
            let of = |members: &u32| Self::Broadcast {
                members: vec![*members],
                deliveries: *deliveries,
                load: load.clone(),
            };
            of_size = members.iter().map(of).collect();
        }
        let Some(load) = self.load() else {
            return of_size;
        };
        let mut each = Vec::new();
        for scenario in of_size {
            for stored in &load.stored {
                let mut with_store = scenario.clone();
                if let Some(load) = with_store.load_mut() {
                    load.stored = vec![*stored];
                }
                each.push(with_store);
            }
        }
        each
    }

    /// Of those in which users talk.
    pub(super) fn load(&self) -> Option<Load> {
        self.clone().load_mut().cloned()
    }

    const fn load_mut(&mut self) -> Option<&mut Load> {
        if let Self::Pairs { load, .. }
        | Self::Overload { load, .. }
        | Self::Groups { load, .. }
        | Self::Mixed { load, .. }
        | Self::Broadcast { load, .. } = self
        {
            Some(load)
        } else {
            None
        }
    }

    /// Whether its rate changes.
    pub(super) const fn is_uneven(&self) -> bool {
        matches!(self, Self::Overload { .. } | Self::Mixed { .. })
    }

    pub(super) fn text_bytes(&self) -> usize {
        let of_load = self.load().map(|load| load.text_bytes);
        let of_others = if let Self::ReconnectStorm { missed, .. } | Self::Sync { missed, .. } = self {
            Some(missed.text_bytes)
        } else if let Self::History { text_bytes, .. } = self {
            Some(*text_bytes)
        } else {
            None
        };
        of_load.or(of_others).unwrap_or(64).into()
    }

    /// Whether its devices are in as many processes as it takes, and not all in this one.
    pub(super) const fn is_of_a_crowd(&self) -> bool {
        matches!(
            self,
            Self::Idle { .. } | Self::ReconnectStorm { .. } | Self::Sync { .. }
        )
    }

    /// Connections that one process has, this one or a region's.
    pub(super) fn connections_of_process(&self, regions: usize) -> usize {
        match self.is_of_a_crowd() {
            true => self.connections().div_ceil(regions),
            false => self.connections(),
        }
    }

    /// Connections at once.
    pub(super) fn connections(&self) -> usize {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let first = |counts: &[u32]| counts.first().map_or(0, |first| count(*first));
        match self {
            Self::Pairs { pairs, users, .. } => users.map_or(first(pairs) * 2, count),
            Self::Overload { pairs, .. } => count(*pairs) * 2,
            Self::Groups { sizes, .. } | Self::Mixed { sizes, .. } => {
                sizes.iter().map(|size| size.members * size.conversations).sum()
            }
            Self::Broadcast { members, .. } => first(members),
            Self::Idle { connections, .. } | Self::ReconnectStorm { connections, .. } => count(*connections),
            Self::Sync { devices, .. } => count(*devices),
            Self::History { readers, .. } => count(*readers),
            Self::Connect { .. } => 1,
            Self::Devices => 0,
        }
    }
}

impl Load {
    pub(super) fn options(
        &self,
        scenario: &'static str,
        transport: Transport,
        sizes: Vec<Size>,
        speakers: usize,
    ) -> TalkOptions {
        TalkOptions {
            scenario,
            transport,
            sizes,
            friends: None,
            speakers,
            shape: Shape::Even,
            rate_per_s: self.rate,
            stored: self.stored.first().copied().unwrap_or_default(),
            text_bytes: self.text_bytes.into(),
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds.unwrap_or(SECONDS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_members_and_groups() {
        let expected = Size {
            members: 10,
            conversations: 3,
        };
        assert_eq!(size("10:3"), Ok(expected));
        for wrong in ["10", "1:3", "10:0", "10001:1", "a:b"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        bench: BenchArgs,
    }

    #[test]
    fn each_size_is_run_with_each_store() {
        let stored = |words: &str| -> Vec<(usize, u64)> {
            let program: Program = clap::Parser::parse_from(words.split(' '));
            let each = program.bench.scenario.each();
            each.iter()
                .map(|of| (of.connections(), of.load().unwrap().stored[0]))
                .collect()
        };
        let expected = [(2, 0), (2, 9), (5, 0), (5, 9)];
        assert_eq!(stored("bench broadcast --members 2,5 --stored 0,9"), expected);
        assert_eq!(stored("bench groups --sizes 3:2 --stored 7,8"), [(6, 7), (6, 8)]);
    }
}
