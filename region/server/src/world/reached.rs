use std::net::{IpAddr, SocketAddr};

use super::plan::loopback;
use crate::config::Config;

/// Where this machine reaches what the regions of its world serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) edge: IpAddr,
    /// Whether edges speak HTTP over TLS.
    pub(crate) https: bool,
    pub(crate) admin: IpAddr,
}

impl Reached {
    pub(crate) fn of(config: &Config) -> Self {
        let reached = |listens: IpAddr| match listens.is_unspecified() {
            true => loopback(0).ip(),
            false => listens,
        };
        Self {
            edge: reached(config.node.host),
            https: config.edge.https,
            admin: reached(config.node.admin_host),
        }
    }
}

/// The base URL of an edge.
pub(crate) fn edge_url(https: bool, address: SocketAddr) -> String {
    let scheme = if https { "https" } else { "http" };
    format!("{scheme}://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_on_every_address_is_reached_by_the_loopback_one() {
        let mut config = Config::default();
        config.node.host = "0.0.0.0".parse().unwrap();
        config.node.admin_host = "10.1.2.3".parse().unwrap();
        let reached = Reached::of(&config);
        assert_eq!(
            (reached.edge.to_string(), reached.admin.to_string()),
            ("127.0.0.1".to_owned(), "10.1.2.3".to_owned())
        );
    }
}
