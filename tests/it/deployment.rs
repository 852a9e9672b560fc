//! Regions on machines of their own: each started by its own configuration, with certificates from files.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use antiphon_directory::{DevelopmentCa, Dialer};
use antiphon_proto::rpc::{
    FollowRequest, FollowerFrame, FollowerFrames, FollowerHello, RenewRequest, directory_client::DirectoryClient,
    follower_frame::Body, replication_client::ReplicationClient,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::{Code, transport::Endpoint};

use crate::support::{Http, Person, RawSession, forget_what_steers_tests, http::get, number, until};

const REGIONS: [&str; 3] = ["eu-central", "eu-west", "us-east"];
/// Above those of worlds and single nodes' first ports.
const FIRST_PORTS: std::ops::Range<u16> = 32_000..32_700;

struct Deployment {
    folder: TempDir,
    port: u16,
    running: Vec<Child>,
}

impl Deployment {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        DevelopmentCa::create(&folder.path().join("tls"), REGIONS).unwrap();
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let port = FIRST_PORTS
            .step_by(30)
            .find(|first| (*first..first + 30).all(is_free))
            .expect("free ports");
        let deployment = Self {
            folder,
            port,
            running: Vec::new(),
        };
        for (at, region) in REGIONS.iter().enumerate() {
            deployment.configure(at, region);
        }
        deployment
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn base_port(&self, at: usize) -> u16 {
        self.port + 10 * u16::try_from(at).unwrap()
    }

    fn rpc(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.base_port(at) + 4)
    }

    /// Writes a region's file; `certificate` is whose certificate it shows.
    fn configure(&self, at: usize, certificate: &str) {
        let regions = REGIONS.iter().enumerate().map(|(at, region)| {
            let edge = self.base_port(at);
            format!("\"{region} {} http://127.0.0.1:{edge}\"", self.rpc(at))
        });
        let regions = regions.collect::<Vec<_>>().join(", ");
        let tls = self.path().join("tls").display().to_string();
        let text = format!(
            "[node]\nregion = \"{region}\"\ndata = \"{data}\"\nbase_port = {port}\n\
             [deployment]\nname = \"trial\"\nregions = [{regions}]\nca_file = \"{tls}/ca.pem\"\n\
             certificate_file = \"{tls}/{certificate}.pem\"\nkey_file = \"{tls}/{certificate}.key\"\n\
             [placement]\nallowed = [\"eu-central: eu-west\", \"eu-west: eu-central\"]\n\
             [identity]\npassword_memory_kib = 64\npassword_iterations = 1\n",
            region = REGIONS[at],
            data = self.path().join("data").display(),
            port = self.base_port(at),
        );
        fs::write(self.path().join(format!("{}.toml", REGIONS[at])), text).unwrap();
    }

    fn spawn(&self, at: usize) -> Child {
        self.spawn_with(at, &[], REGIONS[at])
    }

    /// `log` names the file of what it says.
    fn spawn_with(&self, at: usize, settings: &[String], log: &str) -> Child {
        let region = REGIONS[at];
        let log = File::create(self.path().join(format!("{log}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        forget_what_steers_tests(&mut command);
        command
            .args(["up", "--config"])
            .arg(self.path().join(format!("{region}.toml")))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn start(&mut self) {
        self.running = (0..REGIONS.len()).map(|at| self.spawn(at)).collect();
        for at in 0..REGIONS.len() {
            let url = format!("http://127.0.0.1:{}/readyz", self.base_port(at) + 1);
            until("every region is ready", || async {
                get(&url).await.is_ok_and(|answer| answer.status() == 200).then_some(())
            })
            .await;
        }
    }

    async fn refused(&self, at: usize) -> (ExitStatus, String) {
        let status = tokio::time::timeout(Duration::from_secs(20), self.spawn(at).wait()).await;
        let log = fs::read_to_string(self.path().join(format!("{}.log", REGIONS[at]))).unwrap();
        (status.expect("it goes on").unwrap(), log)
    }

    fn http(&self, at: usize) -> Http {
        Http::new(&format!("http://127.0.0.1:{}", self.base_port(at)))
    }

    async fn directory(&self) -> serde_json::Value {
        let url = format!("http://127.0.0.1:{}/directory/slots", self.base_port(0) + 1);
        get(url).await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn regions_with_configurations_and_certificates_of_their_own_are_one_deployment() {
    let mut deployment = Deployment::new();
    deployment.start().await;
    let alice = Person::register(&deployment.http(0), "alice").await;
    let bob = Person::register(&deployment.http(2), "bob").await;
    let talk = alice.direct(&bob).await;
    let mut far = RawSession::open(deployment.base_port(2), &bob, &[]).await;
    alice.send(&talk, "hello").await;
    assert_eq!(number(&far.event("message").await["seq"]), 1);

    // What the rule keeps in Europe is kept there, and what it does not is anywhere.
    let slots = deployment.directory().await;
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 4_096);
    for slot in slots {
        let copies: Vec<_> = ["inSync", "observers"]
            .iter()
            .flat_map(|kind| slot[kind].as_array().unwrap())
            .collect();
        let is_european = slot["home"] != "us-east";
        assert_eq!(
            copies.iter().any(|region| **region == "us-east"),
            !is_european,
            "{slot}"
        );
        assert_eq!(copies.len(), if is_european { 2 } else { 3 }, "{slot}");
    }
}

#[tokio::test]
async fn a_node_speaks_for_its_own_region_alone_and_a_stranger_for_none() {
    let mut deployment = Deployment::new();
    deployment.start().await;
    let ca = DevelopmentCa::in_folder(&deployment.path().join("tls"));
    let as_region = |region: &str| {
        let dialer = Dialer::new(ca.node(region).unwrap(), None);
        dialer.channel(REGIONS[0], &deployment.rpc(0)).unwrap()
    };
    let renewal = |region| RenewRequest {
        deployment: "trial".to_owned(),
        region,
        incarnation: u64::MAX,
        passed_on: true,
        node: None,
    };
    let hello = |region_id| {
        let hello = FollowerHello {
            region_id,
            credit_bytes: 1,
        };
        let frames = FollowerFrames {
            frames: vec![FollowerFrame {
                body: Some(Body::Hello(hello)),
            }],
        };
        futures_util::stream::iter([frames])
    };
    // The second region, as itself, and as the third.
    let own = as_region(REGIONS[1]);
    let refused = DirectoryClient::new(own.clone()).renew(renewal(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let following = |region| FollowRequest {
        deployment: "trial".to_owned(),
        region,
    };
    let refused = DirectoryClient::new(own.clone())
        .follow(following(3))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(DirectoryClient::new(own.clone()).follow(following(2)).await.is_ok());
    let refused = ReplicationClient::new(own.clone()).follow(hello(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(ReplicationClient::new(own).follow(hello(2)).await.is_ok());

    // With certificates of another CA, and with none at all.
    let strangers = tempfile::tempdir().unwrap();
    let other = DevelopmentCa::create(strangers.path(), REGIONS).unwrap();
    let dialer = Dialer::new(other.node(REGIONS[1]).unwrap(), None);
    let channel = dialer.channel(REGIONS[0], &deployment.rpc(0)).unwrap();
    let refused = ReplicationClient::new(channel).follow(hello(2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let address: SocketAddr = deployment.rpc(0).parse().unwrap();
    let bare = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    assert!(ReplicationClient::new(bare).follow(hello(2)).await.is_err());
}

#[tokio::test]
async fn a_further_node_follows_the_directory_and_takes_no_other_store_than_its_region_s() {
    let mut deployment = Deployment::new();
    deployment.start().await;
    let port = deployment.base_port(0) + 5;
    let settings = [
        "node.id=2".to_owned(),
        "node.voter=false".to_owned(),
        format!("node.base_port={port}"),
        // The voters are the three; where this one listens is its own affair.
        format!("node.rpc_address=127.0.0.1:{}", port + 4),
    ];
    let mut further = deployment.spawn_with(0, &settings, "further");
    let admin = format!("http://127.0.0.1:{}", port + 1);
    let view = until("it knows the directory", || async {
        let answer = get(format!("{admin}/directory")).await.ok()?;
        answer
            .json::<serde_json::Value>()
            .await
            .ok()
            .filter(|view| view["role"] == "outside")
    })
    .await;
    assert_eq!(view["region"], "eu-central");
    assert_eq!(view["voters"].as_array().unwrap().len(), 3);
    // By way of a voter.
    let client = antiphon_client::http_client(None);
    let drained = client
        .post(format!("{admin}/directory/regions/us-east/drain"))
        .send()
        .await;
    assert_eq!(drained.unwrap().status(), 200);

    // It waits for a stamp that never comes in a store of its own.
    let ended = tokio::time::timeout(Duration::from_secs(60), further.wait()).await;
    assert!(!ended.expect("it goes on").unwrap().success());
    let log = fs::read_to_string(deployment.path().join("further.log")).unwrap();
    assert!(log.contains("has to be given the same store"), "{log}");
    assert!(deployment.path().join("data/eu-central.2").exists());
    assert!(!deployment.path().join("data/eu-central.2/directory").exists());
}

#[tokio::test]
async fn a_certificate_of_another_region_or_a_missing_one_is_named_at_the_start() {
    let deployment = Deployment::new();
    deployment.configure(0, REGIONS[1]);
    let (status, log) = deployment.refused(0).await;
    assert!(!status.success());
    assert!(
        log.contains(
            "eu-west.pem has to be for the DNS name eu-central.region.antiphon and is for eu-west.region.antiphon"
        ),
        "{log}"
    );
    deployment.configure(0, "nobody");
    let (status, log) = deployment.refused(0).await;
    assert!(!status.success() && log.contains("nobody.pem"), "{log}");
}
