//! Runs a world: the links between its regions, and a process for each node of a region.

use std::{
    collections::BTreeMap, env, ffi::OsString, fs, future, io, net::SocketAddr, path::Path, pin::pin, time::Duration,
};

use antiphon_directory::DevelopmentCa;
use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::{Api, Shown},
    greeting::greeting,
    link::Network,
    members::{Members, Membership, Starter},
    plan::{World, loopback},
    reached::Reached,
    region::RegionState,
};
use crate::{
    cli::print,
    config::{Config, StoreEngine},
    shutdown::Shutdown,
    telemetry::Telemetry,
};

/// What a region may take to end beyond what it gives its connections.
const DRAIN_SLACK: Duration = Duration::from_secs(10);
/// Between two looks at what is being started.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the world that `config` describes until it is asked to end; `passed` are the flags that its regions shall have too.
///
/// # Errors
/// What kept it from starting, or from ending in order.
pub(crate) async fn run(config: Config, passed: Vec<OsString>) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let telemetry = Telemetry::start(&config)?;
    let data = &config.node.data;
    let _held = hold(data)?;
    let world = World::find(data, &config.world.regions, config.node.base_port)?.with_nodes(config.world.nodes);
    check_engine(&config)?;
    let drain_max = Duration::from_millis(config.edge.drain_timeout_ms) + DRAIN_SLACK;
    let mut asked = pin!(shutdown.asked());
    tokio::select! {
        free = folders_free(&world, data, drain_max) => free?,
        _ = &mut asked => return Ok(()),
    }
    let admin = TcpListener::from_std(take_ports(&config, &world)?)?;
    let network = Network::start(world.links(config.world.wan)).map_err(in_use)?;
    // Only a world that can start is written down: its ports are part of it.
    world.keep(data)?;
    DevelopmentCa::create(&data.join("tls"), world.names().iter().map(String::as_str))?;

    let starter = Starter {
        program: env::current_exe().context("the path of this program is not known")?,
        passed,
        data: data.clone(),
        reached: Reached::of(&config),
        restart_wait_max: Duration::from_millis(config.world.restart_wait_ms_max),
        drain_max,
    };
    let world_ends = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (mut handles, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for region in &world.regions {
        let own_end = world_ends.child_token();
        ends.insert(region.name.clone(), own_end.clone());
        for plan in world.nodes_of(region) {
            let (process, handle) = starter.process(&plan);
            handles.insert(plan.name.clone(), handle);
            let own_end = own_end.clone();
            tasks.spawn(async move { (plan.name, process.run(own_end).await) });
        }
    }
    let (members, orders) = Members::new();
    let shown = Shown::new(world, data.clone(), handles, network.links(), members);
    let joined = TaskTracker::new();
    let membership = Membership {
        shown: shown.clone(),
        starter,
        wan: config.world.wan,
        ends,
        world_ends: world_ends.clone(),
        joined: joined.clone(),
        client: antiphon_client::http_client(None),
    };
    let api = Api::start(admin, shown.clone());

    let mut result = Ok(());
    let mut tells = pin!(tell(&shown, &config));
    let mut membership = pin!(membership.run(orders));
    loop {
        tokio::select! {
            signal = &mut asked => tracing::info!(signal, "ending: all regions drain"),
            Some(ended) = tasks.join_next() => {
                result = ended.map_err(anyhow::Error::from).and_then(|(name, ended)| told(&shown, &name, ended));
                if result.is_ok() {
                    continue;
                }
            }
            said = &mut tells => result = said,
            () = &mut membership => {}
        }
        break;
    }
    world_ends.cancel();
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(anyhow::Error::from);
        result = result.and(ended.and_then(|(_, ended)| ended));
    }
    joined.close();
    joined.wait().await;
    // Regions that drain still need each other.
    network.stop().await;
    api.stop().await;
    telemetry.stop().await;
    result
}

/// Refuses several nodes of a region on a store that serves one process.
fn check_engine(config: &Config) -> Result<()> {
    let nodes = config.world.nodes;
    if nodes > 1 && config.store.engine == StoreEngine::Embedded {
        bail!(
            "{nodes} nodes of each region need a store that serves several processes, and the embedded engine serves one: give --nodes 1 \
             (setting `world.nodes`), or another engine (setting `store.engine`)"
        );
    }
    Ok(())
}

/// A region that was taken out may end as it likes; another that is over is the end of the world.
fn told(shown: &Shown, name: &str, ended: Result<()>) -> Result<()> {
    match ended {
        Err(error) if shown.handle(name).is_none() => {
            tracing::warn!(region = name, %error, "a region that was taken out did not end in order");
            Ok(())
        }
        other => other,
    }
}

/// Keeps a second supervisor out of the folder; the lock goes with the process, however it ends.
fn hold(data: &Path) -> Result<fs::File> {
    let unwritable = || {
        format!(
            "the data folder {} cannot be written (setting `node.data`, flag --data)",
            data.display()
        )
    };
    let lock = fs::create_dir_all(data).and_then(|()| fs::File::create(data.join("world.lock")));
    let lock = lock.with_context(unwritable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "the world in {} runs already; start another one with --data ANOTHER_FOLDER --base-port ANOTHER_PORT",
            data.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(unwritable),
    }
}

/// Waits for regions whose supervisor was killed: they drain and end by themselves.
async fn folders_free(world: &World, data: &Path, patience: Duration) -> Result<()> {
    for plan in world.regions.iter().flat_map(|region| world.nodes_of(region)) {
        let folder = plan.folder(data);
        let held = || {
            let lock = fs::File::options().write(true).open(folder.join("lock"));
            lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
        };
        let mut waited = Duration::ZERO;
        while held() {
            if waited >= patience {
                bail!("the data folder {} is in use by another antiphon", folder.display());
            }
            if waited.as_millis().is_multiple_of(1_000) {
                print(&format!(
                    "{} of an earlier run is still ending … {} s\n",
                    plan.name,
                    waited.as_secs()
                ))?;
            }
            sleep(LOOK).await;
            waited += LOOK;
        }
    }
    Ok(())
}

/// Takes the world's admin port, and finds out now rather than in a log whether the regions' ports can be had.
fn take_ports(config: &Config, world: &World) -> Result<std::net::TcpListener> {
    let bind = |address: SocketAddr| {
        std::net::TcpListener::bind(address)
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("port {} of {}: {error}", address.port(), address.ip()),
                )
            })
            .map_err(in_use)
    };
    for plan in world.regions.iter().flat_map(|region| world.nodes_of(region)) {
        bind(SocketAddr::new(config.node.host, plan.http_port))?;
        bind(SocketAddr::new(config.node.admin_host, plan.admin_port))?;
        bind(loopback(plan.rpc_port))?;
    }
    let admin = bind(loopback(world.admin_port))?;
    admin.set_nonblocking(true)?;
    Ok(admin)
}

fn in_use(error: io::Error) -> anyhow::Error {
    let advice = "a world needs its ports: is another antiphon running? Choose others with --base-port";
    anyhow::Error::from(error).context(advice)
}

/// Says what becomes of the regions until all of them are ready, then what there is; never ends after that.
async fn tell(shown: &Shown, config: &Config) -> Result<()> {
    let mut before: BTreeMap<String, RegionState> = BTreeMap::new();
    loop {
        let view = shown.view();
        for region in view.processes() {
            let is_news = before.insert(region.name.clone(), region.state) != Some(region.state);
            if !is_news || region.starts == 0 {
                continue;
            }
            let pid = region.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
            print(&format!("{}: {}{pid}\n", region.name, in_words(region.state)))?;
        }
        if view.ready {
            let program = env::args().next().unwrap_or_else(|| "antiphon".to_owned());
            let links = shown.links.all();
            print(&greeting(
                &view,
                &links,
                Reached::of(config),
                shown.world().admin_port,
                &program,
            ))?;
            return future::pending().await;
        }
        sleep(LOOK).await;
    }
}

/// A region's state, as people are told.
pub(crate) const fn in_words(state: RegionState) -> &'static str {
    match state {
        RegionState::Starting => "starting",
        RegionState::Ready => "ready",
        RegionState::NotReady => "not ready any more",
        RegionState::Frozen => "frozen",
        RegionState::Waiting => "about to start",
        RegionState::Ended => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_nodes_need_a_store_that_serves_several_processes() {
        let mut config = Config::default();
        check_engine(&config).unwrap();
        config.world.nodes = 2;
        let error = check_engine(&config).unwrap_err().to_string();
        assert!(
            error.contains("--nodes 1") && error.contains("`store.engine`"),
            "{error}"
        );
    }

    #[test]
    fn a_world_is_run_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = hold(folder.path()).unwrap();
        let error = hold(folder.path()).unwrap_err().to_string();
        assert!(error.contains("runs already") && error.contains(folder.path().to_str().unwrap()));
        drop(held);
        assert!(hold(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn regions_of_an_earlier_run_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let world = World::find(folder.path(), &names, 7400).unwrap();
        folders_free(&world, folder.path(), Duration::ZERO).await.unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        let lock = fs::File::create(folder.path().join("b/lock")).unwrap();
        lock.lock().unwrap();
        let error = folders_free(&world, folder.path(), LOOK * 2)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("/b is in use"), "{error}");
        let patience = Duration::from_secs(3_600);
        let waits = folders_free(&world, folder.path(), patience);
        let frees = async {
            sleep(LOOK * 2).await;
            drop(lock);
        };
        let (waited, ()) = tokio::join!(waits, frees);
        waited.unwrap();
    }
}
