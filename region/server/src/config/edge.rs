use std::path::PathBuf;

use antiphon_gateway::{DevicePolicy, GatewayOptions, Rate};
use antiphon_session::SessionOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;

/// Connections and sessions of devices: everything that a stranger could use without bound has a bound here. A rate is a token
/// bucket: so many a second on average, a burst at once; 0 a second turns it off.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EdgeSection {
    /// Bytes of one frame from a device.
    pub(crate) frame_bytes_max: usize,
    /// Bytes of the body of an HTTP request.
    pub(crate) body_bytes_max: usize,
    /// Conversations that one Hello may resume.
    pub(crate) cursors_max: usize,
    /// How long a new connection may take to say Hello.
    pub(crate) hello_timeout_ms: u64,
    /// Hellos that are worked at at once; further ones wait for their turn, in the order in which they came.
    pub(crate) hellos_max: usize,
    /// How long a Hello may wait for its turn; longer, and it is refused with `RESOURCE_EXHAUSTED`, and its device told when to come
    /// back.
    pub(crate) hello_wait_timeout_ms: u64,
    /// How long Hello may take to be answered once its turn has come, with everything that is looked up for it.
    pub(crate) hello_work_timeout_ms: u64,
    /// A session that is silent for twice this long is closed.
    pub(crate) heartbeat_ms: u32,
    /// A session that only says Ping for this long is sent away; 0: never.
    pub(crate) idle_timeout_ms: u64,
    /// How long a session whose token has expired may take to say Reauth.
    pub(crate) token_grace_ms: u64,
    /// How long requests in flight may take after Goaway.
    pub(crate) drain_grace_ms: u64,
    /// How long a shutdown waits for connections to end by themselves; what remains is cut.
    pub(crate) drain_timeout_ms: u64,
    /// Over how long the return of sessions is spread that were sent away.
    pub(crate) reconnect_window_ms: u32,
    /// How long a call to a service may take.
    pub(crate) call_timeout_ms: u64,
    /// How long the home of conversations may take to say how they stand, for Hello and the list: longer, and they are shown as
    /// unavailable.
    pub(crate) summary_timeout_ms: u64,
    /// How long one write to a connection may take before the reader counts as gone.
    pub(crate) write_timeout_ms: u64,
    /// How long the head of an HTTP request may take to arrive; also how long an idle HTTP connection is kept.
    pub(crate) header_timeout_ms: u64,
    /// How long a REST request may take.
    pub(crate) request_timeout_ms: u64,
    /// Requests of one session that may be in flight at once; the session is read on when one is answered.
    pub(crate) in_flight_max: usize,
    /// Malformed frames in a row before a session is closed.
    pub(crate) malformed_max: u32,
    /// Pushes that may wait for one session; beyond it the session is told that it lags.
    pub(crate) push_frames_max: usize,
    /// Bytes of pushes that may wait for one session.
    pub(crate) push_bytes_max: usize,
    /// Replies that may wait for one session; a device that lets more gather is closed.
    pub(crate) reply_frames_max: usize,
    /// Conversations that may be marked as lagged for one session; a device that lets more gather is closed.
    pub(crate) lagged_max: usize,
    /// Conversations that one Pong names.
    pub(crate) pong_tails_max: usize,
    /// Connections of this node.
    pub(crate) connections_max: usize,
    /// Connections of one address (IPv6: of one /64).
    pub(crate) connections_per_address_max: usize,
    /// Messages of all sessions of an edge that are not answered yet; one more is refused with `RESOURCE_EXHAUSTED`.
    pub(crate) sends_in_flight_max: usize,
    /// Sessions of one user.
    pub(crate) sessions_per_user_max: usize,
    /// What a further session of a user does to the ones before: `any` nothing, `one_per_device` replaces those of the same
    /// device, `single` replaces all.
    pub(crate) device_policy: DevicePolicyName,
    /// Conversations of one user that are listed and followed.
    pub(crate) conversations_max: usize,
    /// Messages of one conversation that are pushed on resume; a device further behind is told to fetch.
    pub(crate) resume_push_max: u64,
    /// Proxies in front that are trusted to append to `X-Forwarded-For`; 0: the header is ignored.
    pub(crate) trusted_proxies: usize,
    /// Whether HTTP and WebSocket are spoken over TLS. Without, a proxy in front does that.
    pub(crate) https: bool,
    /// Whether devices may connect over QUIC and WebTransport too: on UDP, the second and third port after `node.base_port`.
    pub(crate) quic: bool,
    /// Handshakes of QUIC under way above which an address has to show first that it can be reached; above twice as many it is refused.
    pub(crate) quic_retry_above: usize,
    /// Where devices are told to find QUIC, `quic://HOST:PORT`. Empty: at the host that they ask and the port of this node.
    pub(crate) quic_url: String,
    /// Where devices are told to find WebTransport, `https://HOST:PORT/v1/connect`. Empty: as for QUIC.
    pub(crate) web_transport_url: String,
    /// PEM file of the certificate that devices are shown, with those that vouch for it; it is read again when it changes.
    /// Empty: one that is made here, lives for 13 days and is known to devices by its hash alone.
    pub(crate) tls_certificate_file: PathBuf,
    /// PEM file of the certificate's key.
    pub(crate) tls_key_file: PathBuf,
    /// New connections of one address.
    pub(crate) handshake_rate_per_second: u32,
    /// New connections of one address at once.
    pub(crate) handshake_rate_burst: u32,
    /// REST requests of one address.
    pub(crate) address_rate_per_second: u32,
    /// REST requests of one address at once.
    pub(crate) address_rate_burst: u32,
    /// Registrations and log-ins of one address; each costs a password hash.
    pub(crate) credential_rate_per_second: u32,
    /// Registrations and log-ins of one address at once.
    pub(crate) credential_rate_burst: u32,
    /// Requests of one user over all sessions and REST.
    pub(crate) user_rate_per_second: u32,
    /// Requests of one user at once.
    pub(crate) user_rate_burst: u32,
    /// Requests of one session.
    pub(crate) session_rate_per_second: u32,
    /// Requests of one session at once.
    pub(crate) session_rate_burst: u32,
    /// How often each session is reported to the presence service; they take turns within it.
    pub(crate) presence_interval_ms: u64,
    /// How often the keys that verify tokens are read again.
    pub(crate) jwks_interval_ms: u64,
}

/// What a further session of a user does to the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DevicePolicyName {
    /// Nothing.
    Any,
    /// Replaces those of the same device.
    OnePerDevice,
    /// Replaces all.
    Single,
}

impl From<DevicePolicy> for DevicePolicyName {
    fn from(policy: DevicePolicy) -> Self {
        match policy {
            DevicePolicy::Any => Self::Any,
            DevicePolicy::OnePerDevice => Self::OnePerDevice,
            DevicePolicy::Single => Self::Single,
        }
    }
}

impl From<DevicePolicyName> for DevicePolicy {
    fn from(name: DevicePolicyName) -> Self {
        match name {
            DevicePolicyName::Any => Self::Any,
            DevicePolicyName::OnePerDevice => Self::OnePerDevice,
            DevicePolicyName::Single => Self::Single,
        }
    }
}

impl Default for EdgeSection {
    fn default() -> Self {
        let options = GatewayOptions::default();
        let session = options.session;
        Self {
            frame_bytes_max: session.frame_bytes_max,
            body_bytes_max: options.body_bytes_max,
            cursors_max: session.cursors_max,
            hello_timeout_ms: session.hello_timeout_ms,
            hellos_max: options.hellos_max,
            hello_wait_timeout_ms: options.hello_wait_timeout_ms,
            hello_work_timeout_ms: options.hello_work_timeout_ms,
            heartbeat_ms: session.heartbeat_ms,
            idle_timeout_ms: session.idle_timeout_ms,
            token_grace_ms: session.token_grace_ms,
            drain_grace_ms: session.drain_grace_ms,
            // Below the half minute that supervisors leave a process after SIGTERM.
            drain_timeout_ms: 15_000,
            reconnect_window_ms: options.reconnect_window_ms,
            call_timeout_ms: options.call_timeout_ms,
            summary_timeout_ms: options.summary_timeout_ms,
            write_timeout_ms: options.write_timeout_ms,
            header_timeout_ms: options.header_timeout_ms,
            request_timeout_ms: options.request_timeout_ms,
            in_flight_max: session.in_flight_max,
            malformed_max: session.malformed_max,
            push_frames_max: session.push_frames_max,
            push_bytes_max: session.push_bytes_max,
            reply_frames_max: session.reply_frames_max,
            lagged_max: session.lagged_max,
            pong_tails_max: session.pong_tails_max,
            connections_max: options.connections_max,
            connections_per_address_max: options.connections_per_address_max,
            sends_in_flight_max: options.sends_in_flight_max,
            sessions_per_user_max: options.sessions_per_user_max,
            device_policy: options.device_policy.into(),
            conversations_max: options.conversations_max,
            resume_push_max: options.resume_push_max,
            trusted_proxies: options.trusted_proxies,
            https: false,
            quic: true,
            quic_retry_above: options.quic_retry_above,
            quic_url: options.quic_url,
            web_transport_url: options.web_transport_url,
            tls_certificate_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            handshake_rate_per_second: options.handshake_rate.per_second,
            handshake_rate_burst: options.handshake_rate.burst,
            address_rate_per_second: options.address_rate.per_second,
            address_rate_burst: options.address_rate.burst,
            credential_rate_per_second: options.credential_rate.per_second,
            credential_rate_burst: options.credential_rate.burst,
            user_rate_per_second: options.user_rate.per_second,
            user_rate_burst: options.user_rate.burst,
            session_rate_per_second: options.session_rate.per_second,
            session_rate_burst: options.session_rate.burst,
            presence_interval_ms: options.presence_interval_ms,
            jwks_interval_ms: options.jwks_interval_ms,
        }
    }
}

/// The edge's options; the text limit is the message service's, and the edge is named after its region.
impl From<&Config> for GatewayOptions {
    fn from(config: &Config) -> Self {
        let section = &config.edge;
        Self {
            session: SessionOptions {
                frame_bytes_max: section.frame_bytes_max,
                text_bytes_max: config.message.text_bytes_max,
                cursors_max: section.cursors_max,
                hello_timeout_ms: section.hello_timeout_ms,
                heartbeat_ms: section.heartbeat_ms,
                idle_timeout_ms: section.idle_timeout_ms,
                token_grace_ms: section.token_grace_ms,
                drain_grace_ms: section.drain_grace_ms,
                in_flight_max: section.in_flight_max,
                malformed_max: section.malformed_max,
                push_frames_max: section.push_frames_max,
                push_bytes_max: section.push_bytes_max,
                reply_frames_max: section.reply_frames_max,
                lagged_max: section.lagged_max,
                pong_tails_max: section.pong_tails_max,
            },
            edge_id: config.node.region.clone(),
            call_timeout_ms: section.call_timeout_ms,
            summary_timeout_ms: section.summary_timeout_ms,
            hellos_max: section.hellos_max,
            hello_wait_timeout_ms: section.hello_wait_timeout_ms,
            hello_work_timeout_ms: section.hello_work_timeout_ms,
            write_timeout_ms: section.write_timeout_ms,
            header_timeout_ms: section.header_timeout_ms,
            request_timeout_ms: section.request_timeout_ms,
            body_bytes_max: section.body_bytes_max,
            connections_max: section.connections_max,
            connections_per_address_max: section.connections_per_address_max,
            sends_in_flight_max: section.sends_in_flight_max,
            sessions_per_user_max: section.sessions_per_user_max,
            device_policy: section.device_policy.into(),
            conversations_max: section.conversations_max,
            resume_push_max: section.resume_push_max,
            trusted_proxies: section.trusted_proxies,
            quic_retry_above: section.quic_retry_above,
            quic_url: section.quic_url.clone(),
            web_transport_url: section.web_transport_url.clone(),
            handshake_rate: Rate::new(section.handshake_rate_per_second, section.handshake_rate_burst),
            address_rate: Rate::new(section.address_rate_per_second, section.address_rate_burst),
            credential_rate: Rate::new(section.credential_rate_per_second, section.credential_rate_burst),
            user_rate: Rate::new(section.user_rate_per_second, section.user_rate_burst),
            session_rate: Rate::new(section.session_rate_per_second, section.session_rate_burst),
            presence_interval_ms: section.presence_interval_ms,
            jwks_interval_ms: section.jwks_interval_ms,
            reconnect_window_ms: section.reconnect_window_ms,
        }
    }
}
