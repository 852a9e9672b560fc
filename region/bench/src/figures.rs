use serde::Serialize;

/// What a scenario has measured. Times are of one run; what it does not measure is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Which.
    pub scenario: &'static str,
    /// Over what devices were connected.
    pub transport: &'static str,
    /// Messages a second that were acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// From when a message was due to be sent until its receiver has it: half were faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// As above: 99 of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// As above: 999 of 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ms: Option<f64>,
    /// Processor time of the server for each message, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us_per_message: Option<f64>,
    /// Processor time of the load for each message, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_us_per_message: Option<f64>,
    /// Resident memory of the server at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes: Option<u64>,
    /// Resident memory that each connection has added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<u64>,
    /// Connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// Messages that the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Messages that were sent, and neither refused nor received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// From nothing to Welcome, in round trips of the path: by a device that does not know what the edge offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_first: Option<f64>,
    /// As above: by one that knows it, and shakes hands in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_cold: Option<f64>,
    /// As above: by one that was connected before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips_resumed: Option<f64>,
}
