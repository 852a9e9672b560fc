//! The network between hosts: connections whose bytes take time, links that are cut in one direction or both, hosts that fall silent.
//! Bytes keep their order and are never lost on a connection that lives, as TCP has it: a cut link holds them back.

mod end;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
    task::Waker,
};

use antiphon_directory::{Connect, Wire};
use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::end::End;

/// Bytes under way in one direction of a connection before its writer waits.
const WINDOW_BYTES: usize = 256 << 10;
/// Bytes of one segment.
const SEGMENT_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 256;
/// How much later a segment comes that was lost once, in microseconds.
const AGAIN_US: std::ops::Range<u64> = 200_000..900_000;

/// A host, by number.
pub(crate) type HostId = usize;

/// One direction between two hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    /// Shortest and longest way, in microseconds.
    pub(crate) delay_us: (u64, u64),
    /// Of a thousand segments, how many have to be sent again.
    pub(crate) loss_permille: u32,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now_us: u64,
    random: SmallRng,
    names: BTreeMap<String, HostId>,
    links: BTreeMap<(HostId, HostId), Link>,
    listeners: BTreeMap<(HostId, u16), mpsc::Sender<io::Result<End>>>,
    /// Hosts that answer nothing, not even that nobody listens: their power is off.
    silent: BTreeSet<HostId>,
    opening: Vec<Opening>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

struct Opening {
    from: HostId,
    to: HostId,
    port: u16,
    due_us: u64,
    /// The other end has answered.
    answered: Option<io::Result<End>>,
    reply: oneshot::Sender<io::Result<End>>,
}

/// Who waits for a connection, and what became of it.
type Opened = (oneshot::Sender<io::Result<End>>, io::Result<End>);

struct Connection {
    hosts: [HostId; 2],
    /// What goes from each end to the other.
    pipes: [Pipe; 2],
    /// Whether the end is held by somebody.
    held: [bool; 2],
}

#[derive(Default)]
struct Pipe {
    under_way: VecDeque<(u64, Segment)>,
    arrived: VecDeque<Bytes>,
    bytes: usize,
    end: Option<Ending>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Data(Bytes),
    End(Ending),
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

impl Network {
    pub(crate) fn new(seed: u64, names: &[String], delay_us: (u64, u64)) -> Self {
        let link = Link {
            cut: false,
            delay_us,
            loss_permille: 0,
        };
        let hosts = 0..names.len();
        let pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
        let inner = Inner {
            now_us: 0,
            random: SmallRng::seed_from_u64(seed),
            names: names.iter().cloned().zip(0..).collect(),
            links: pairs.map(|pair| (pair, link)).collect(),
            listeners: BTreeMap::new(),
            silent: BTreeSet::new(),
            opening: Vec::new(),
            connections: BTreeMap::new(),
            next: 0,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(crate) fn link(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.inner.lock().links.get_mut(&(from, to)) {
            change(link);
        }
    }

    /// Takes connections at a port of a host.
    pub(crate) fn listen(&self, host: HostId, port: u16) -> mpsc::Receiver<io::Result<End>> {
        let (accept, accepted) = mpsc::channel(BACKLOG);
        self.inner.lock().listeners.insert((host, port), accept);
        accepted
    }

    /// How `from` connects to `name:port`.
    pub(crate) fn connector(&self, from: HostId) -> Connect {
        let network = self.clone();
        Arc::new(move |address| {
            let opened = network.open(from, address);
            async move {
                let unreachable = || io::Error::from(io::ErrorKind::HostUnreachable);
                let end = opened.ok_or_else(unreachable)?.await.map_err(|_| unreachable())??;
                Ok(Box::new(end) as Box<dyn Wire>)
            }
            .boxed()
        })
    }

    fn open(&self, from: HostId, address: &str) -> Option<oneshot::Receiver<io::Result<End>>> {
        let (name, port) = address.split_once(':')?;
        let port = port.parse().ok()?;
        let mut inner = self.inner.lock();
        let to = *inner.names.get(name)?;
        let (reply, replied) = oneshot::channel();
        let due_us = inner.due(from, to);
        inner.opening.push(Opening {
            from,
            to,
            port,
            due_us,
            answered: None,
            reply,
        });
        Some(replied)
    }

    /// The host is gone. `silently`: its peers hear nothing before it is back.
    pub(crate) fn crash(&self, host: HostId, silently: bool) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        // Ends that nobody has taken yet close when they are dropped, and that takes the lock.
        let unheard: Vec<_> = inner
            .listeners
            .extract_if(.., |(listening, _), _| *listening == host)
            .collect();
        let unanswered: Vec<_> = inner.opening.extract_if(.., |opening| opening.from == host).collect();
        if silently {
            inner.silent.insert(host);
        }
        let ids: Vec<u64> = inner.connections.keys().copied().collect();
        for id in ids {
            let Some(hosts) = inner.connections.get(&id).map(|connection| connection.hosts) else {
                continue;
            };
            for side in 0..2 {
                if hosts[side] != host {
                    continue;
                }
                let due_us = inner.due(host, hosts[1 - side]);
                if let Some(connection) = inner.connections.get_mut(&id) {
                    connection.held[side] = false;
                    connection.pipes[side].under_way.clear();
                    connection.pipes[side]
                        .under_way
                        .push_back((due_us, Segment::End(Ending::Reset)));
                    connection.pipes[1 - side] = Pipe {
                        writer: connection.pipes[1 - side].writer.take(),
                        ..Pipe::default()
                    };
                }
            }
        }
        drop(guard);
        drop((unheard, unanswered));
    }

    /// The host is back.
    pub(crate) fn back(&self, host: HostId) {
        self.inner.lock().silent.remove(&host);
    }

    /// Delivers what has arrived by `now_us`. Wakes whoever waits for it.
    pub(crate) fn step(&self, now_us: u64) {
        let (mut wakers, mut opened, mut given_up) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut inner = self.inner.lock();
            inner.now_us = now_us;
            inner.deliver(&mut wakers);
            self.answer_openings(&mut inner, &mut opened, &mut given_up);
        }
        wakers.into_iter().for_each(Waker::wake);
        for (reply, end) in opened {
            // Whoever has given up meanwhile drops its end, which closes it.
            let _ = reply.send(end);
        }
        drop(given_up);
    }

    fn answer_openings(&self, inner: &mut Inner, opened: &mut Vec<Opened>, given_up: &mut Vec<Opening>) {
        for mut opening in std::mem::take(&mut inner.opening) {
            let (from, to) = match opening.answered {
                None => (opening.from, opening.to),
                Some(_) => (opening.to, opening.from),
            };
            let held_back = inner.is_cut(from, to) || inner.silent.contains(&opening.to);
            if opening.due_us > inner.now_us || held_back {
                if opening.reply.is_closed() {
                    given_up.push(opening);
                } else {
                    inner.opening.push(opening);
                }
                continue;
            }
            if let Some(answer) = opening.answered.take() {
                opened.push((opening.reply, answer));
                continue;
            }
            let listener = inner.listeners.get(&(opening.to, opening.port)).cloned();
            let answer = match listener.and_then(|listener| listener.try_reserve_owned().ok()) {
                Some(place) => {
                    let id = inner.connect(opening.from, opening.to);
                    let end = |side| End {
                        network: self.clone(),
                        id,
                        side,
                    };
                    place.send(Ok(end(1)));
                    Ok(end(0))
                }
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            };
            opening.answered = Some(answer);
            opening.due_us = inner.due(opening.to, opening.from);
            inner.opening.push(opening);
        }
    }
}

impl Inner {
    fn due(&mut self, from: HostId, to: HostId) -> u64 {
        let Some(link) = self.links.get(&(from, to)).copied() else {
            return self.now_us;
        };
        let (shortest, longest) = link.delay_us;
        let mut way_us = self.random.random_range(shortest..=longest);
        if self.random.random_range(0..1_000) < link.loss_permille {
            way_us += self.random.random_range(AGAIN_US);
        }
        self.now_us + way_us
    }

    fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.links.get(&(from, to)).is_none_or(|link| link.cut)
    }

    fn connect(&mut self, from: HostId, to: HostId) -> u64 {
        self.next += 1;
        let connection = Connection {
            hosts: [from, to],
            pipes: [Pipe::default(), Pipe::default()],
            held: [true, true],
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    fn deliver(&mut self, wakers: &mut Vec<Waker>) {
        let (now_us, links, silent) = (self.now_us, &self.links, &self.silent);
        self.connections.retain(|_, connection| {
            for side in 0..2 {
                let (from, to) = (connection.hosts[side], connection.hosts[1 - side]);
                if links.get(&(from, to)).is_none_or(|link| link.cut) || silent.contains(&from) {
                    continue;
                }
                let is_heard = connection.held[1 - side];
                let pipe = &mut connection.pipes[side];
                while let Some((_, segment)) = pipe.under_way.pop_front_if(|(due_us, _)| *due_us <= now_us) {
                    match segment {
                        Segment::Data(data) if is_heard => pipe.arrived.push_back(data),
                        Segment::Data(data) => pipe.bytes -= data.len(),
                        Segment::End(end) => pipe.end = Some(end),
                    }
                    wakers.extend(pipe.reader.take());
                    wakers.extend(pipe.writer.take());
                }
            }
            connection.held.contains(&true)
        });
    }
}
