use std::{collections::HashMap, io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::NodeTls;

/// Where to dial instead of an address that the directory holds, if anywhere; both `host:port`. A rule and not a list, so that it
/// holds for regions that are added later.
pub type Detour = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A connection to another node, whatever carries it.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Opens a connection to the `host:port` that it is given.
pub type Connect = Arc<dyn Fn(&str) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> + Send + Sync>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that answers no ping for so long is given up.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Bytes under way on one connection: 300 ms at 400 Mbit/s.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes under way on one stream.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Requests to one region that may wait or be under way.
const REQUESTS_MAX: usize = 4_096;

/// Connections to other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    detour: Option<Detour>,
    channels: Mutex<HashMap<(String, String), Channel>>,
}

/// How connections are made.
enum Way {
    Tls(NodeTls),
    Over(Connect),
}

impl Dialer {
    /// Shows and believes what `tls` says.
    #[must_use]
    pub fn new(tls: NodeTls, detour: Option<Detour>) -> Self {
        Self::with(Way::Tls(tls), detour)
    }

    /// Over connections that `connect` makes, who has to see to it that nobody else reads or writes them.
    #[must_use]
    pub fn over(connect: Connect) -> Self {
        Self::with(Way::Over(connect), None)
    }

    fn with(way: Way, detour: Option<Detour>) -> Self {
        Self {
            shared: Arc::new(Shared {
                way,
                detour,
                channels: Mutex::default(),
            }),
        }
    }

    /// The connection to a region that the table has at `address`; it connects at first use, and again when it broke.
    /// `None` for what is no address.
    #[must_use]
    pub fn channel(&self, region: &str, address: &str) -> Option<Channel> {
        let key = (region.to_owned(), address.to_owned());
        let mut channels = self.shared.channels.lock();
        if let Some(channel) = channels.get(&key) {
            return Some(channel.clone());
        }
        let channel = self.dial(region, address)?;
        channels.insert(key, channel.clone());
        Some(channel)
    }

    /// As [`Dialer::channel`], over a connection of its own, which nothing else waits on or is waited for.
    #[must_use]
    pub fn dial(&self, region: &str, address: &str) -> Option<Channel> {
        let shared = &self.shared;
        let detour = shared.detour.as_ref().and_then(|detour| detour(address));
        let address = detour.unwrap_or_else(|| address.to_owned());
        let endpoint = match &shared.way {
            Way::Tls(tls) => Endpoint::from_shared(format!("https://{address}"))
                .and_then(|endpoint| endpoint.tls_config(tls.client(region))),
            Way::Over(_) => Endpoint::from_shared(format!("http://{address}")),
        };
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint,
            Err(error) => {
                tracing::error!(region, address, %error, "the region cannot be dialled");
                return None;
            }
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .buffer_size(REQUESTS_MAX);
        Some(match &shared.way {
            Way::Tls(_) => endpoint.connect_lazy(),
            Way::Over(connect) => {
                let connect = connect.clone();
                endpoint.connect_with_connector_lazy(service_fn(move |_| {
                    let connecting = connect(&address);
                    async move { connecting.await.map(TokioIo::new) }
                }))
            }
        })
    }
}
