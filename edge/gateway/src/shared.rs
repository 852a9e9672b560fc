use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use ahash::AHashMap;
use antiphon_directory::domain::RegionStatus;
use antiphon_session::SessionOptions;
use antiphon_types::Clock;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayOptions,
    acks::Acks,
    auth::Auth,
    calls::Calls,
    hub::{Hub, SessionHandle},
    limits::{Connections, Limits},
    presence::Presence,
    transport::{Certificates, Udp},
    turns::Turns,
};

/// How TLS is spoken over TCP.
pub(crate) struct Https {
    pub(crate) certificates: Certificates,
    pub(crate) acceptor: TlsAcceptor,
}

/// What every part of an edge has at hand.
pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) session_options: Arc<SessionOptions>,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) acks: Acks,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) hub: Arc<Hub>,
    pub(crate) presence: Presence,
    pub(crate) admitted: Connections,
    pub(crate) newcomers: Newcomers,
    /// Set when HTTP and WebSocket are spoken over TLS.
    pub(crate) https: OnceLock<Https>,
    /// Set once it listens there too.
    pub(crate) udp: OnceLock<Udp>,
    pub(crate) hellos: Turns,
    pub(crate) catch_ups: Semaphore,
    /// Every connection, HTTP or of a session; each ends by itself or by the drain.
    pub(crate) connections: TaskTracker,
    pub(crate) stop_accepting: CancellationToken,
    /// Tasks that live as long as the edge.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) next_key: AtomicU64,
    /// Makes session ids of this run differ from those of the last.
    pub(crate) run_id: u64,
}

impl Shared {
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn session_id(&self, key: u64) -> String {
        format!("{:016x}-{key:x}", self.run_id)
    }

    /// Edges of other regions, in another order for each number: who has to go to them is spread over them.
    pub(crate) fn other_edges(&self, number: u64) -> Vec<String> {
        let route = self.calls.route();
        let table = route.table().load();
        let others = table.regions().filter(|region| {
            region.status == RegionStatus::Active
                && *region.name != *route.region()
                && !region.addresses.edge.is_empty()
        });
        let mut edges: Vec<String> = others.map(|region| region.addresses.edge.clone()).collect();
        if let Some(first) = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_rem(edges.len()))
        {
            edges.rotate_left(first);
        }
        edges
    }

    /// Spreads the return of all sessions evenly over the window, and over the other edges; dice would leave heaps.
    pub(crate) fn send_all_away(&self) {
        let sessions = self.hub.people().all();
        let (now_ms, count) = (self.clock.now_ms(), sessions.len().max(1) as u64);
        for (number, handle) in (0_u64..).zip(sessions) {
            let spread_ms = u64::from(self.options.reconnect_window_ms) * number / count;
            let reconnect_after_ms = u32::try_from(spread_ms).unwrap_or(u32::MAX);
            handle.send_away(reconnect_after_ms, self.other_edges(number), now_ms);
        }
        self.newcomers
            .all()
            .iter()
            .for_each(|handle| handle.send_away(0, self.other_edges(handle.key), now_ms));
    }
}

/// Connections that have not said Hello yet.
#[derive(Default)]
pub(crate) struct Newcomers {
    handles: Mutex<AHashMap<u64, Arc<SessionHandle>>>,
}

impl Newcomers {
    pub(crate) fn insert(&self, handle: &Arc<SessionHandle>) {
        self.handles.lock().insert(handle.key, handle.clone());
    }

    pub(crate) fn remove(&self, handle: &SessionHandle) {
        self.handles.lock().remove(&handle.key);
    }

    fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.handles.lock().values().cloned().collect()
    }
}
