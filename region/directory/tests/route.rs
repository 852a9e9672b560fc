//! The way to a slot over real sockets: what is tried again, and what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use antiphon_directory::{
    DevelopmentCa, Dialer, Route, Table, TableWatch,
    domain::{Addresses, Command, Policy, RegionId, State},
    serve_nodes,
};
use antiphon_proto::refusal;
use antiphon_types::Slot;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::{Service as _, service_fn};

const SEND: &str = "/antiphon.rpc.v1.Message/Send";
/// Not safe to repeat.
const ADD: &str = "/antiphon.rpc.v1.Conversation/AddMembers";
const SLOT: Slot = Slot::DEPLOYMENT;

type Act = dyn Fn(&HeaderMap) -> Answer + Send + Sync;

enum Answer {
    Done,
    Refused(Status),
    /// The headers come and a part of the rest, and then the request is cut off.
    Broken,
    /// All of an answer but how it went.
    Unsaid,
    Never,
}

/// A node's services: each request is counted, and answered as `act` says.
fn services(asked: Arc<AtomicUsize>, act: Arc<Act>) -> Routes {
    let service = service_fn(move |request: axum::extract::Request| {
        asked.fetch_add(1, Ordering::SeqCst);
        let answer = act(request.headers());
        async move {
            Ok::<_, Infallible>(match answer {
                Answer::Done => Response::builder()
                    .header("grpc-status", "0")
                    .body(Body::empty())
                    .unwrap(),
                Answer::Refused(status) => status.into_http(),
                Answer::Unsaid => Response::new(Body::empty()),
                Answer::Broken => {
                    let begun = tokio_stream::once(Ok::<_, io::Error>("the beginning"));
                    let broken = futures_util::stream::once(async {
                        // Without it the connection's end would overtake the headers.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Err(io::Error::from(io::ErrorKind::BrokenPipe))
                    });
                    Response::new(Body::new(axum::body::Body::from_stream(begun.chain(broken))))
                }
                Answer::Never => std::future::pending().await,
            })
        }
    });
    Routes::from(axum::Router::new().fallback_service(service))
}

/// Two regions, `a` where the requests come from and `b` over the network.
struct World {
    state: State,
    table: TableWatch,
    route: Route,
    near: Arc<AtomicUsize>,
    far: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl World {
    /// The slot's home is `b`.
    async fn new(far: impl Fn(&HeaderMap) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevelopmentCa::create(folder.path(), ["a", "b"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let region = |name: &str, rpc: String| {
            (
                name.to_owned(),
                Addresses {
                    rpc,
                    edge: String::new(),
                },
            )
        };
        let mut state = State::default();
        let found = Command::Found {
            deployment: "test".to_owned(),
            regions: vec![
                region("a", "127.0.0.1:1".to_owned()),
                region("b", listener.local_addr().unwrap().to_string()),
            ],
            policy: Policy::default(),
        };
        state.apply(&found).unwrap();
        let table = TableWatch::new(Table::from_state(&state).unwrap());
        let (near_count, far_count) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (tls, services_b) = (ca.node("b").unwrap(), services(far_count.clone(), Arc::new(far)));
        let serving = tokio::spawn(async move {
            serve_nodes(listener, services_b, &tls, std::future::pending())
                .await
                .unwrap();
        });
        let route = Route::between("a", table.clone(), Dialer::new(ca.node("a").unwrap(), None));
        route.serve(services(near_count.clone(), Arc::new(|_| Answer::Done)));
        let mut world = Self {
            state,
            table,
            route,
            near: near_count,
            far: far_count,
            serving,
            _folder: folder,
        };
        if world.home() == RegionId(1) {
            world.move_to(2);
        }
        world
    }

    fn home(&self) -> RegionId {
        self.state.placement(SLOT).unwrap().home
    }

    fn move_to(&mut self, region: u64) {
        let moves = vec![(SLOT, self.state.placement(SLOT).unwrap().epoch, RegionId(region))];
        let home = self.home();
        assert!(self.state.apply(&Command::MoveHome { home, moves }).unwrap().changed);
        self.table.store(Table::from_state(&self.state).unwrap());
    }

    async fn call(&self, path: &str, timeout: &str) -> Status {
        let request = Request::post(path)
            .header("grpc-timeout", timeout)
            .body(Body::empty())
            .unwrap();
        let Ok(response) = self.route.to(SLOT).call(request).await;
        let status = Status::from_header_map(response.headers());
        // An answer that breaks off has no status.
        match response.into_body().collect().await {
            Ok(_) => status.unwrap_or_else(|| Status::ok("")),
            Err(status) => status,
        }
    }

    fn asked(&self) -> (usize, usize) {
        (self.near.load(Ordering::SeqCst), self.far.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_far_home_answers_and_is_told_how_much_time_is_left() {
    let seen = Arc::<Mutex<Vec<u64>>>::default();
    let noted = seen.clone();
    let world = World::new(move |headers| {
        let left = headers["grpc-timeout"].to_str().unwrap();
        noted.lock().push(left.strip_suffix('m').unwrap().parse().unwrap());
        Answer::Done
    })
    .await;
    assert_eq!(world.call(SEND, "3S").await.code(), Code::Ok);
    assert_eq!(world.asked(), (0, 1));
    assert!((2_000..=3_000).contains(&seen.lock()[0]), "{seen:?}");
}

#[tokio::test]
async fn who_is_not_home_any_more_is_asked_again_until_the_table_knows_better() {
    let mut world = World::new(|_| Answer::Refused(refusal::not_home("moved", None, 9))).await;
    let route = world.route.clone();
    let asking = tokio::spawn(async move {
        let request = Request::post(ADD).header("grpc-timeout", "20S").body(Body::empty());
        let Ok(response) = route.to(SLOT).call(request.unwrap()).await;
        Status::from_header_map(response.headers()).map(|status| status.code())
    });
    while world.asked().1 < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.move_to(1);
    assert!(matches!(asking.await.unwrap(), None | Some(Code::Ok)));
    assert_eq!(world.asked().0, 1);
}

#[tokio::test]
async fn a_home_whose_lease_has_run_out_is_asked_again_only_if_that_is_safe() {
    let lapsed = || refusal::unsettled("UNAVAILABLE", "no lease", Some(500), 9);
    let mut world = World::new(move |_| Answer::Refused(lapsed())).await;
    let status = world.call(ADD, "60S").await;
    assert_eq!((status.code(), world.asked().1), (Code::Unavailable, 1), "{status}");
    let route = world.route.clone();
    let asking = tokio::spawn(async move {
        let request = Request::post(SEND).header("grpc-timeout", "20S").body(Body::empty());
        let Ok(response) = route.to(SLOT).call(request.unwrap()).await;
        Status::from_header_map(response.headers()).map(|status| status.code())
    });
    while world.asked().1 < 3 {
        assert!(!asking.is_finished(), "it was asked only once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.move_to(1);
    assert!(matches!(asking.await.unwrap(), None | Some(Code::Ok)));
    assert_eq!(world.asked().0, 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again_only_if_that_is_safe() {
    let asked = AtomicUsize::new(0);
    let world = World::new(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Answer::Broken,
        2 => Answer::Unsaid,
        _ => Answer::Done,
    })
    .await;
    let status = world.call(ADD, "60S").await;
    assert_eq!(
        (refusal::of(&status).code.as_str(), world.asked().1),
        ("UNAVAILABLE", 1),
        "{status}"
    );
    let status = world.call(SEND, "60S").await;
    assert_eq!((status.code(), world.asked().1), (Code::Ok, 4), "{status}");
}

#[tokio::test]
async fn a_home_that_never_answers_is_left_when_the_slot_moves_if_that_is_safe() {
    let mut world = World::new(|_| Answer::Never).await;
    let route = world.route.clone();
    let asking = tokio::spawn(async move {
        let request = Request::post(SEND).header("grpc-timeout", "20S").body(Body::empty());
        let Ok(response) = route.to(SLOT).call(request.unwrap()).await;
        Status::from_header_map(response.headers()).map(|status| status.code())
    });
    while world.asked().1 < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.move_to(1);
    assert!(matches!(asking.await.unwrap(), None | Some(Code::Ok)));
    assert_eq!(world.asked(), (1, 1));
}

#[tokio::test]
async fn what_may_not_be_repeated_waits_for_its_own_answer_alone() {
    let mut world = World::new(|_| Answer::Never).await;
    let (route, far) = (world.route.clone(), world.far.clone());
    let asking = tokio::spawn(async move {
        let request = Request::post(ADD).header("grpc-timeout", "300m").body(Body::empty());
        let Ok(response) = route.to(SLOT).call(request.unwrap()).await;
        Status::from_header_map(response.headers()).map(|status| status.code())
    });
    while far.load(Ordering::SeqCst) < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.move_to(1);
    assert_eq!(asking.await.unwrap(), Some(Code::DeadlineExceeded));
    assert_eq!(world.asked(), (0, 1));
}

#[tokio::test]
async fn a_home_that_is_gone_is_tried_again_only_if_that_is_safe() {
    let mut world = World::new(|_| Answer::Done).await;
    assert_eq!(world.call(SEND, "3S").await.code(), Code::Ok);
    world.serving.abort();
    while !world.serving.is_finished() {
        tokio::task::yield_now().await;
    }
    let at_once = tokio::time::timeout(Duration::from_secs(20), world.call(ADD, "60S")).await;
    let status = at_once.expect("it is tried again");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let route = world.route.clone();
    let asking = tokio::spawn(async move {
        let request = Request::post(SEND).header("grpc-timeout", "20S").body(Body::empty());
        let Ok(response) = route.to(SLOT).call(request.unwrap()).await;
        Status::from_header_map(response.headers()).map(|status| status.code())
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asking.is_finished());
    world.move_to(1);
    assert!(matches!(asking.await.unwrap(), None | Some(Code::Ok)));
}
