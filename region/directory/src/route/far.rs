use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};

use super::NodeTls;

/// Where to dial instead of an address that the directory holds, if anywhere; both `host:port`. A rule and not a list, so that it
/// holds for regions that are added later.
pub type Detour = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that answers no ping for so long is given up.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Bytes under way on one connection: 300 ms at 400 Mbit/s.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes under way on one stream.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Requests to one region that may wait or be under way.
const REQUESTS_MAX: usize = 4_096;

/// Kept connections to other regions, one each. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
}

struct Shared {
    tls: NodeTls,
    detour: Option<Detour>,
    channels: Mutex<HashMap<(String, String), Channel>>,
}

impl Dialer {
    /// Shows and believes what `tls` says.
    #[must_use]
    pub fn new(tls: NodeTls, detour: Option<Detour>) -> Self {
        Self {
            shared: Arc::new(Shared {
                tls,
                detour,
                channels: Mutex::default(),
            }),
        }
    }

    /// The connection to a region that the table has at `address`; it connects at first use, and again when it broke.
    /// `None` for what is no address.
    #[must_use]
    pub fn channel(&self, region: &str, address: &str) -> Option<Channel> {
        let shared = &self.shared;
        let detour = shared.detour.as_ref().and_then(|detour| detour(address));
        let address = detour.unwrap_or_else(|| address.to_owned());
        let key = (region.to_owned(), address.clone());
        let mut channels = shared.channels.lock();
        if let Some(channel) = channels.get(&key) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(shared.tls.client(region)));
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint,
            Err(error) => {
                tracing::error!(region, address, %error, "the region cannot be dialled");
                return None;
            }
        };
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .buffer_size(REQUESTS_MAX)
            .connect_lazy();
        channels.insert(key, channel.clone());
        Some(channel)
    }
}
