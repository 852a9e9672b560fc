use std::time::Duration;

use antiphon_session::SessionOptions;

/// Settings of an edge. Everything that a stranger could use without bound has a bound here.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Limits of one session.
    pub session: SessionOptions,
    /// Names this edge to the presence service; unique among edges.
    pub edge_id: String,
    /// How long a call to a service may take.
    pub call_timeout_ms: u64,
    /// How long one slot may take to say how its conversations stand; longer, and their state counts as not known.
    pub summary_timeout_ms: u64,
    /// Hellos that are worked at at once; further ones wait for their turn.
    pub hellos_max: usize,
    /// How long a Hello may wait for its turn; longer, and its device is told when to come back.
    pub hello_wait_timeout_ms: u64,
    /// How long Hello may take to be answered from then on, with everything that is looked up for it.
    pub hello_work_timeout_ms: u64,
    /// How long one write to a connection may take before the reader counts as gone.
    pub write_timeout_ms: u64,
    /// How long the head of an HTTP request may take to arrive; also how long an idle HTTP connection is kept.
    pub header_timeout_ms: u64,
    /// How long a REST request may take.
    pub request_timeout_ms: u64,
    /// Bytes of an HTTP request's body.
    pub body_bytes_max: usize,
    /// Connections of this edge.
    pub connections_max: usize,
    /// Connections of one address (IPv6: of one /64).
    pub connections_per_address_max: usize,
    /// Messages of all sessions of this edge that are not answered yet.
    pub sends_in_flight_max: usize,
    /// Sessions of one user on this edge.
    pub sessions_per_user_max: usize,
    /// What a further session of a user does to the ones before.
    pub device_policy: DevicePolicy,
    /// Conversations of one user that are listed and followed.
    pub conversations_max: usize,
    /// Messages of one conversation that are pushed on resume; a device further behind is told to fetch.
    pub resume_push_max: u64,
    /// Proxies in front of this edge that are trusted to append to `X-Forwarded-For`; 0: the header is ignored.
    pub trusted_proxies: usize,
    /// Handshakes of QUIC under way above which an address has to show first that it can be reached; above twice as many it is refused.
    pub quic_retry_above: usize,
    /// Where devices are told to find QUIC, `quic://HOST:PORT`; empty: at the host that they ask and the port of the socket.
    pub quic_url: String,
    /// Where devices are told to find WebTransport, `https://HOST:PORT/v1/connect`; empty: as for QUIC.
    pub web_transport_url: String,
    /// New connections of one address.
    pub handshake_rate: Rate,
    /// REST requests of one address.
    pub address_rate: Rate,
    /// Registrations and log-ins of one address; each costs a password hash.
    pub credential_rate: Rate,
    /// Requests of one user over all sessions and REST.
    pub user_rate: Rate,
    /// Requests of one session.
    pub session_rate: Rate,
    /// How often each session is reported to the presence service; they take turns within it.
    pub presence_interval_ms: u64,
    /// How often the keys that verify tokens are read again.
    pub jwks_interval_ms: u64,
    /// On drain: over how long the sessions' return is spread.
    pub reconnect_window_ms: u32,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            session: SessionOptions::default(),
            edge_id: "edge".to_owned(),
            call_timeout_ms: 10_000,
            summary_timeout_ms: 2_000,
            hellos_max: 128,
            // With the handshake below the ten seconds after which devices try elsewhere.
            hello_wait_timeout_ms: 5_000,
            hello_work_timeout_ms: 15_000,
            write_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            body_bytes_max: 64 * 1024,
            connections_max: 150_000,
            connections_per_address_max: 20_000,
            sends_in_flight_max: 8_192,
            sessions_per_user_max: 16,
            device_policy: DevicePolicy::OnePerDevice,
            conversations_max: 5_000,
            resume_push_max: 500,
            trusted_proxies: 0,
            quic_retry_above: 256,
            quic_url: String::new(),
            web_transport_url: String::new(),
            handshake_rate: Rate::new(2_000, 20_000),
            address_rate: Rate::new(20_000, 40_000),
            credential_rate: Rate::new(50, 500),
            user_rate: Rate::new(2_000, 4_000),
            session_rate: Rate::new(1_000, 2_000),
            presence_interval_ms: 45_000,
            jwks_interval_ms: 60_000,
            reconnect_window_ms: 5_000,
        }
    }
}

impl GatewayOptions {
    pub(crate) const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub(crate) const fn summary_timeout(&self) -> Duration {
        Duration::from_millis(self.summary_timeout_ms)
    }

    pub(crate) const fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}

/// A token bucket: `per_second` on average, `burst` at once. A rate of 0 turns the limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second; 0: no limit.
    pub per_second: u32,
    /// Tokens of a full bucket.
    pub burst: u32,
}

impl Rate {
    /// A bucket of `burst` that refills at `per_second`.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst }
    }
}

/// What a further session of a user does to the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePolicy {
    /// Nothing: any number of sessions, up to the limit.
    Any,
    /// Sessions of the same device are replaced and told so.
    #[default]
    OnePerDevice,
    /// Every other session of the user is replaced and told so.
    Single,
}

impl DevicePolicy {
    /// Reads a policy's name: `any`, `one_per_device` or `single`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "any" => Some(Self::Any),
            "one_per_device" => Some(Self::OnePerDevice),
            "single" => Some(Self::Single),
            _ => None,
        }
    }
}
