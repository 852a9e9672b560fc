//! The way to a slot where regions have several nodes: who is asked, and what happens when that was the wrong one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_directory::{
    Dialer, Owner, Route, Table, TableWatch, Wire,
    domain::{Addresses, Command, NodeAddress, Policy, RegionId, State},
    serve_wires,
};
use antiphon_nodes::{NodeId, NodeRow, Nodes, Share};
use antiphon_proto::refusal;
use antiphon_types::Slot;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::{Service as _, service_fn};

/// Not safe to repeat: sent again only when it was refused for the slot's sake.
const ADD: &str = "/antiphon.rpc.v1.Conversation/AddMembers";

/// A process and how often it was asked.
#[derive(Default)]
struct Process {
    asked: AtomicUsize,
    /// What it answers when it does not serve.
    refuses: Mutex<Option<Status>>,
}

impl Process {
    fn services(self: &Arc<Self>) -> Routes {
        let process = self.clone();
        let service = service_fn(move |_: axum::extract::Request| {
            process.asked.fetch_add(1, Ordering::SeqCst);
            let refused = process.refuses.lock().clone();
            async move {
                Ok::<_, Infallible>(match refused {
                    Some(status) => status.into_http(),
                    None => Response::builder()
                        .header("grpc-status", "0")
                        .body(Body::empty())
                        .unwrap(),
                })
            }
        });
        Routes::from(axum::Router::new().fallback_service(service))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Regions `a` and `b`, each with two nodes; requests come from node 1 of `a`.
struct World {
    state: State,
    table: TableWatch,
    nodes: watch::Sender<Arc<Nodes>>,
    route: Route,
    processes: BTreeMap<&'static str, Arc<Process>>,
}

fn id(number: u8) -> NodeId {
    NodeId::parse(&number.to_string()).unwrap()
}

fn row(number: u8) -> Arc<NodeRow> {
    Arc::new(NodeRow {
        id: id(number),
        rpc: format!("a{number}:1"),
        started_at_ms: 0,
    })
}

/// A slot that is the share of this node where 1 and 2 are alive.
fn slot_of(number: u8, region: u64) -> Slot {
    let both = [id(1), id(2)];
    let homed_there = |slot: &Slot| u64::from(slot.number() % 2) + 1 == region;
    let mut slots = Slot::all().filter(homed_there);
    slots
        .find(|slot| antiphon_nodes::owner(*slot, &both) == Some(&id(number)))
        .unwrap()
}

impl World {
    fn new() -> Self {
        let mut listeners = BTreeMap::new();
        let mut processes = BTreeMap::new();
        for name in ["a1", "a2", "b", "b1", "b2"] {
            let process = Arc::new(Process::default());
            let (connections, incoming) = mpsc::channel::<io::Result<DuplexStream>>(16);
            tokio::spawn(serve_wires(
                ReceiverStream::new(incoming),
                process.services(),
                std::future::pending(),
            ));
            listeners.insert(format!("{name}:1"), connections);
            processes.insert(name, process);
        }
        let dialer = Dialer::over(Arc::new(move |address: &str| {
            let listener = listeners.get(address).cloned();
            Box::pin(async move {
                let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(1 << 16);
                let _ = listener.send(Ok(far)).await;
                Ok(Box::new(near) as Box<dyn Wire>)
            })
        }));
        let region = |name: &str| {
            let addresses = Addresses {
                rpc: format!("{name}:1"),
                edge: String::new(),
            };
            (name.to_owned(), addresses)
        };
        let mut state = State::default();
        let found = Command::Found {
            deployment: "test".to_owned(),
            regions: vec![region("a"), region("b")],
            policy: Policy::default(),
        };
        state.apply(&found).unwrap();
        let table = TableWatch::new(Table::from_state(&state).unwrap());
        let alone = Nodes::none(id(1)).next([row(1)]).unwrap();
        let (nodes, share) = watch::channel(Arc::new(alone));
        let route = Route::of_node("a", table.clone(), dialer, Share::of(share));
        route.serve(processes["a1"].services());
        let mut world = Self {
            state,
            table,
            nodes,
            route,
            processes,
        };
        world.live(&[1, 2]);
        world
    }

    /// These nodes of `a` are alive, as node 1 sees it.
    fn live(&mut self, numbers: &[u8]) {
        let next = self.nodes.borrow().next(numbers.iter().map(|number| row(*number)));
        if let Some(next) = next {
            self.nodes.send_replace(Arc::new(next));
        }
    }

    /// `b` has told the directory of these nodes.
    fn told(&mut self, numbers: &[u8]) {
        let node = |number: &u8| NodeAddress {
            id: id(*number),
            rpc: format!("b{number}:1"),
        };
        let tell = Command::SetNodes {
            region: RegionId(2),
            nodes: numbers.iter().map(node).collect(),
        };
        self.state.apply(&tell).unwrap();
        self.table.store(Table::from_state(&self.state).unwrap());
    }

    async fn call(&self, slot: Slot) -> Code {
        call(self.route.clone(), slot).await
    }

    fn asked(&self) -> [usize; 5] {
        ["a1", "a2", "b", "b1", "b2"].map(|name| self.processes[name].asked())
    }
}

async fn call(route: Route, slot: Slot) -> Code {
    let request = Request::post(ADD).header("grpc-timeout", "20S").body(Body::empty());
    let Ok(response) = route.to(slot).call(request.unwrap()).await;
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn the_owner_in_the_own_region_is_asked_here_or_by_the_network() {
    let world = World::new();
    assert_eq!(world.call(slot_of(1, 1)).await, Code::Ok);
    assert_eq!(world.asked(), [1, 0, 0, 0, 0]);
    assert_eq!(world.call(slot_of(2, 1)).await, Code::Ok);
    assert_eq!(world.asked(), [1, 1, 0, 0, 0]);
    let owner = world.route.owner(slot_of(2, 1)).unwrap();
    assert_eq!((&*owner.region, owner.node), ("a", Some(id(2))));
}

#[tokio::test]
async fn a_region_of_several_nodes_is_asked_at_the_owner_and_one_of_one_process_at_its_address() {
    let mut world = World::new();
    assert_eq!(world.call(slot_of(1, 2)).await, Code::Ok);
    assert_eq!(world.asked(), [0, 0, 1, 0, 0]);
    world.told(&[1, 2]);
    assert_eq!(world.call(slot_of(1, 2)).await, Code::Ok);
    assert_eq!(world.call(slot_of(2, 2)).await, Code::Ok);
    assert_eq!(world.asked(), [0, 0, 1, 1, 1]);
}

#[tokio::test]
async fn a_wrong_guess_is_asked_again_at_the_owner_of_now() {
    let mut world = World::new();
    *world.processes["a2"].refuses.lock() = Some(refusal::not_home("moved", None, 1));
    let asking = tokio::spawn(call(world.route.clone(), slot_of(2, 1)));
    while world.asked()[1] < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.live(&[1]);
    assert_eq!(asking.await.unwrap(), Code::Ok);
    assert_eq!(world.asked()[0], 1);

    world.told(&[1, 2]);
    *world.processes["b1"].refuses.lock() = Some(refusal::not_home("moved", None, 1));
    let asking = tokio::spawn(call(world.route.clone(), slot_of(1, 2)));
    while world.asked()[3] < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.told(&[2]);
    assert_eq!(asking.await.unwrap(), Code::Ok);
    assert_eq!(world.asked()[4], 1);
}

#[tokio::test]
async fn a_request_waits_while_nobody_is_known_to_serve_its_slot() {
    let mut world = World::new();
    world.live(&[]);
    assert_eq!(world.route.owner(slot_of(2, 1)), None);
    let asking = tokio::spawn(call(world.route.clone(), slot_of(2, 1)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asking.is_finished());
    world.live(&[2]);
    assert_eq!(asking.await.unwrap(), Code::Ok);
    assert_eq!(world.asked(), [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn who_follows_the_owners_hears_of_the_share_and_of_the_table() {
    let mut world = World::new();
    let seen = world.route.seen();
    world.live(&[2]);
    let seen_later = world.route.changed(seen).await;
    assert_ne!(seen_later, seen);
    world.told(&[1]);
    assert_ne!(world.route.changed(seen_later).await, seen_later);
    let own = Owner {
        region: "a".into(),
        node: Some(id(1)),
    };
    let request = Request::post(ADD).body(Body::empty()).unwrap();
    let Ok(response) = world.route.to_owner(&own).call(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(world.asked(), [1, 0, 0, 0, 0]);
}
