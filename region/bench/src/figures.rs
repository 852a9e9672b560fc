use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{Ratio, Yardstick, usage::Usage};

/// What a scenario has measured. Times are of one run; what it does not measure is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Which.
    pub scenario: &'static str,
    /// Over what devices were connected.
    pub transport: &'static str,
    /// Which of several runs, or searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u16>,
    /// Which of several times that devices have returned in one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u16>,
    /// Of a search for the highest rate: whether this one was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_kept: Option<bool>,
    /// How they wrote frames, where that was not protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<&'static str>,
    /// Messages a second that were to be sent, in an overload at its height; of history, pages a second that were to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_per_s: Option<f64>,
    /// Messages a second that were acknowledged in the time that is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// Messages a second that have reached a device in time: each message as often as it has receivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_s: Option<f64>,
    /// Pages of history a second that came in the time that is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_per_s: Option<f64>,
    /// From when something was due until whom it was for has it: half were faster. In a day that is also what was due while its sender or
    /// who is to have it was away, some four in a hundred of the time each, for up to five seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// As above: 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// As above: 999 of 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ms: Option<f64>,
    /// How many latencies these quantiles are of: each message as often as it has receivers, each page once, each device that was away once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// From when a message was due until the last of its receivers has it: half were faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_all_p50_ms: Option<f64>,
    /// As above: 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_all_p99_ms: Option<f64>,
    /// From the moment when devices return until the last of them has what it missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_back_ms: Option<f64>,
    /// Messages a second that were acknowledged in an overload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overload_messages_per_s: Option<f64>,
    /// Twice the longest `p99_ms` of a second in the calm before an overload, those left out in which the disk stood still unless it did
    /// in each: a second that is longer is slow, and one in which nothing was acknowledged. The disk stood still when, in that second or
    /// the one before, a thread of the load, which appends 200 bytes and waits for fdatasync again and again, waited for longer than 10 ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_above_ms: Option<f64>,
    /// From the end of an overload until ten seconds begin of which none is slow. Absent when the calm after it has no such ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to_normal_ms: Option<f64>,
    /// As above, without the slow seconds of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to_normal_but_disk_ms: Option<f64>,
    /// Slow seconds in all of the calm after an overload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_seconds: Option<usize>,
    /// Of these, those of the disk: it stood still, for more than half as long as the slowest of 99 of 100 messages took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_seconds_of_disk: Option<usize>,
    /// Resident memory of the server before the first device connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes_empty: Option<u64>,
    /// Resident memory of the server when all devices were connected, before they went away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes_before: Option<u64>,
    /// Resident memory of the server when all devices that had returned had left again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes_after: Option<u64>,
    /// The most memory that the server had in any second, or at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes_max: Option<u64>,
    /// Processor time of the server for each message, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us_per_message: Option<f64>,
    /// Processor time of the load for each message, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_us_per_message: Option<f64>,
    /// Bytes that the server has written to the disk for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_bytes_per_message: Option<f64>,
    /// How often the server has waited for the disk for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsyncs_per_message: Option<f64>,
    /// Resident memory of the server at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes: Option<u64>,
    /// Resident memory that each connection has added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<u64>,
    /// Connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// Conversations in which there is talk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations: Option<usize>,
    /// Messages that were stored before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// Messages and handshakes that the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Of these, what was not told when to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_for_good: Option<u64>,
    /// Messages that have a seq and are missing at a receiver, and those that nobody has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Seqs that no acknowledgement has told: of messages that were stored twice, or though they were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicated: Option<u64>,
    /// Messages that did not come in their order, or with another sender, id or text than somebody else has under that seq, its sender among
    /// them, in a push or a page (what nobody was pushed or has fetched is not seen); and rules that the checker of `antiphon probe` has found
    /// broken for those who talk beside a day's users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_rules: Option<usize>,
    /// From nothing to Welcome, in round trips of the path: by a device that does not know what the edge offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_first: Option<f64>,
    /// As above: by one that knows it, and shakes hands in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_cold: Option<f64>,
    /// As above: by one that was connected before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_resumed: Option<f64>,
    /// What the machine can do without a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yardstick: Option<Yardstick>,
    /// How much of that the server does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// Second by second, for plots.
    #[serde(skip)]
    pub seconds: Vec<Second>,
}

/// What was seen in one second of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// Since the beginning.
    pub at_s: f64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Of what came in this second: 99 of 100 were faster. None when nothing came.
    pub p99_ms: Option<f64>,
    /// What the server has refused.
    pub refused: u64,
    /// Resident memory of the server.
    pub server_rss_bytes: u64,
    /// Files and sockets that the server holds.
    pub server_open_files: usize,
    /// Tasks of the server; none when it does not tell in time.
    pub server_tasks: Option<u64>,
    /// The longest fdatasync of a thread of the load, with what it waited for a processor; none where there is no such thread.
    pub fdatasync_ms: Option<f64>,
}

impl Figures {
    /// With the yardstick of the same run.
    #[must_use]
    pub fn beside(mut self, yardstick: Yardstick) -> Self {
        self.yardstick = Some(yardstick);
        self.ratio = yardstick.ratio_of(&self);
        self
    }

    pub(crate) fn set_latencies(&mut self, latencies: &Histogram<u64>) {
        if !latencies.is_empty() {
            self.p50_ms = Some(ms(latencies, 0.5));
            self.p99_ms = Some(ms(latencies, 0.99));
            self.p999_ms = Some(ms(latencies, 0.999));
            self.samples = Some(latencies.len());
        }
    }

    /// What this many messages have cost.
    pub(crate) fn set_costs(&mut self, messages: u64, server: Usage, load: Usage) {
        self.server_rss_bytes = Some(server.rss_bytes);
        if messages > 0 {
            let each_us = |cpu: Duration| Some(cpu.as_secs_f64() * 1e6 / float(messages));
            self.server_cpu_us_per_message = each_us(server.cpu);
            self.load_cpu_us_per_message = each_us(load.cpu);
            self.written_bytes_per_message = Some(float(server.written_bytes) / float(messages));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// The longest latency that is told from a longer one.
const LATENCY_MAX_US: u64 = 600_000_000;

/// For microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "these bounds are right or never were")]
    Histogram::new_with_max(LATENCY_MAX_US, 3).expect("a histogram")
}

/// A quantile in milliseconds.
pub(crate) fn ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    float(latencies.value_at_quantile(quantile)) / 1_000.0
}
