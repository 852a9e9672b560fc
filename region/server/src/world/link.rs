//! The wide-area network between the regions of one machine: every connection from one region to another goes through a
//! forwarder in user space, whose delay, jitter, bandwidth and cuts can be changed while it runs.
//!
//! A [`Path`] is what bytes meet on their way from one region to another, whichever of the two dialled; a connection that
//! `a` dialled to `b` therefore has two: `a` to `b` for what it asks, `b` to `a` for what it is answered. A cut of one
//! path alone is a one-way cut.
//!
//! What it does not do: the kernel completes the handshake of TCP before this process hears of it, so to the dialler a
//! connection over a cut link is made and silent, and one to a region that does not run is made and reset at once; and
//! while one path is cut the other one carries on, where real TCP would stop for want of acknowledgements.

mod connection;
mod listener;
mod path;
mod pump;
mod wire;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::RwLock;
use path::Path;
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The longest delay and the widest jitter that can be set, in milliseconds.
pub(crate) const DELAY_MS_MAX: u32 = 60_000;

/// What bytes from one region to another meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkSettings {
    /// One way, in milliseconds.
    pub(crate) delay_ms: u32,
    /// Up to so many milliseconds more, drawn anew for each piece; bytes of a connection keep their order.
    pub(crate) jitter_ms: u32,
    /// Shared by all connections. 0: what the machine gives.
    pub(crate) bits_per_s: u64,
    pub(crate) state: LinkState,
}

impl LinkSettings {
    /// The delay of one piece, its jitter drawn anew.
    pub(crate) fn drawn_delay(&self) -> Duration {
        let jitter_us = u64::from(self.jitter_ms) * 1_000;
        let drawn_us = if jitter_us == 0 {
            0
        } else {
            rand::random_range(0..=jitter_us)
        };
        Duration::from_millis(self.delay_ms.into()) + Duration::from_micros(drawn_us)
    }
}

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkState {
    /// They do.
    #[default]
    Up,
    /// Nothing passes and nobody is told. What is in flight arrives after the link has come back.
    Blackhole,
    /// Connections of the pair are reset and new ones refused, whichever side dials: a connection needs both ways.
    Reset,
}

impl LinkState {
    /// As it is written everywhere.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Blackhole => "blackhole",
            Self::Reset => "reset",
        }
    }
}

/// What to change; the rest stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LinkChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jitter_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<LinkState>,
}

/// One link as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkView {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Where `from` dials to reach the first node of `to`.
    pub(crate) listen: SocketAddr,
    #[serde(flatten)]
    pub(crate) settings: LinkSettings,
    /// Bytes that have arrived at `to`, whichever side dialled.
    pub(crate) carried_bytes: u64,
    /// Connections that `from` dialled and that are there.
    pub(crate) connections: u64,
}

/// A link to make, to one node of `to`; those to its other nodes are the same link.
#[derive(Debug, Clone)]
pub(crate) struct LinkPlan {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Where `from` dials.
    pub(crate) listen: SocketAddr,
    /// Where `to` listens.
    pub(crate) target: SocketAddr,
    pub(crate) settings: LinkSettings,
}

/// Why a link cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("there is no link from {from} to {to}; the links are {known}")]
    Unknown { from: String, to: String, known: String },
    #[error("{what} is {value}, above the limit of {DELAY_MS_MAX} ms")]
    TooLong { what: &'static str, value: u32 },
}

/// The running links. Dropping it ends them.
pub(crate) struct Network {
    links: Links,
}

impl Network {
    /// Listens for every link of `plans`. A pair of regions is planned both ways, or the way back is an open road.
    ///
    /// # Errors
    /// When one of the ports cannot be had; the message names it.
    pub(crate) fn start(plans: Vec<LinkPlan>) -> io::Result<Self> {
        let network = Self {
            links: Links(Arc::new(Shared {
                known: RwLock::default(),
                listeners: TaskTracker::new(),
                stop: CancellationToken::new(),
            })),
        };
        network.links.open(plans)?;
        Ok(network)
    }

    /// The handle to look at links and to change them.
    pub(crate) fn links(&self) -> Links {
        self.links.clone()
    }

    /// Resets every connection and listens no more.
    pub(crate) async fn stop(self) {
        let shared = self.links.0.clone();
        shared.stop.cancel();
        shared.listeners.close();
        shared.listeners.wait().await;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.links.0.stop.cancel();
    }
}

/// All links, by who sends and who receives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links(Arc<Shared>);

struct Shared {
    known: RwLock<BTreeMap<(String, String), Link>>,
    listeners: TaskTracker,
    stop: CancellationToken,
}

struct Link {
    listen: SocketAddr,
    path: Arc<Path>,
    stop: CancellationToken,
}

impl Links {
    /// Opens further links. A pair of regions is planned both ways.
    ///
    /// # Errors
    /// When one of the ports cannot be had; the message names it, and none is opened.
    pub(crate) fn open(&self, plans: Vec<LinkPlan>) -> io::Result<()> {
        let bound = plans.iter().map(|plan| listener::bind(plan.listen));
        let bound = bound.collect::<io::Result<Vec<_>>>()?;
        let shared = &self.0;
        for plan in &plans {
            let mut known = shared.known.write();
            let pair = (plan.from.clone(), plan.to.clone());
            // One link leads to every node of a region.
            known.entry(pair).or_insert_with(|| Link {
                listen: plan.listen,
                path: Arc::new(Path::new(plan.settings)),
                stop: shared.stop.child_token(),
            });
        }
        for (plan, listener) in plans.into_iter().zip(bound) {
            let road = connection::Road {
                out: self.path(&plan.from, &plan.to),
                back: self.path(&plan.to, &plan.from),
                target: plan.target,
            };
            let stop = self.stop_of(&plan.from, &plan.to);
            shared
                .listeners
                .spawn(listener::serve(listener, plan.listen, road, stop));
        }
        Ok(())
    }

    /// Ends every link to and from a region.
    pub(crate) fn close(&self, region: &str) {
        self.0.known.write().retain(|(from, to), link| {
            let goes = from == region || to == region;
            if goes {
                link.stop.cancel();
            }
            !goes
        });
    }

    /// All links, by name.
    pub(crate) fn all(&self) -> Vec<LinkView> {
        self.0
            .known
            .read()
            .iter()
            .map(|((from, to), link)| view(from, to, link))
            .collect()
    }

    /// Changes what bytes from `from` to `to` meet from now on; what is in flight keeps its moment of arrival.
    ///
    /// # Errors
    /// [`LinkError`]; nothing has changed then.
    pub(crate) fn change(&self, from: &str, to: &str, change: LinkChange) -> Result<LinkView, LinkError> {
        for (what, value) in [("delayMs", change.delay_ms), ("jitterMs", change.jitter_ms)] {
            if let Some(value) = value.filter(|value| *value > DELAY_MS_MAX) {
                return Err(LinkError::TooLong { what, value });
            }
        }
        let all = self.0.known.read();
        let Some(link) = all.get(&(from.to_owned(), to.to_owned())) else {
            let known: Vec<String> = all.keys().map(|(from, to)| format!("{from}/{to}")).collect();
            return Err(LinkError::Unknown {
                from: from.to_owned(),
                to: to.to_owned(),
                known: known.join(", "),
            });
        };
        link.path.change(change);
        Ok(view(from, to, link))
    }

    fn path(&self, from: &str, to: &str) -> Arc<Path> {
        let all = self.0.known.read();
        all.get(&(from.to_owned(), to.to_owned())).map_or_else(
            || Arc::new(Path::new(LinkSettings::default())),
            |link| link.path.clone(),
        )
    }

    fn stop_of(&self, from: &str, to: &str) -> CancellationToken {
        let all = self.0.known.read();
        let link = all.get(&(from.to_owned(), to.to_owned()));
        link.map_or_else(|| self.0.stop.clone(), |link| link.stop.clone())
    }
}

fn view(from: &str, to: &str, link: &Link) -> LinkView {
    LinkView {
        from: from.to_owned(),
        to: to.to_owned(),
        listen: link.listen,
        settings: link.path.settings(),
        carried_bytes: link.path.carried_bytes(),
        connections: link.path.connections(),
    }
}
