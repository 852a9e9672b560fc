//! Regions that come to a running world, and go from it.
//!
//! Coming: the directory gives the region an id, the world its ports; its links are opened, it is written down and started, and joins
//! the directory by itself. Going: whoever asks has taken it out of the directory before; what is left is its process and its links.
//! Orders are carried out one after the other, by one task.

use std::{collections::BTreeMap, ffi::OsString, fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use antiphon_directory::DevelopmentCa;
use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::Shown,
    plan::{NodePlan, RegionPlan, WORLD_FILE, World, loopback},
    process::Launch,
    reached::{Reached, edge_url},
    region::{Care, Region, RegionHandle},
};

/// How long a region of the world may take to answer for the directory.
const ANSWER: Duration = Duration::from_secs(15);
/// A region's log, twice: the one that is written and the one before.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
const ORDERS_LEN_MAX: usize = 4;

/// Asks for regions to come and go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Members(mpsc::Sender<Order>);

struct Order {
    change: Change,
    answer: oneshot::Sender<Result<()>>,
}

enum Change {
    Add(String),
    Remove(String),
}

impl Members {
    /// The handle, and what the world's task is to hand over to [`Membership::run`].
    pub(crate) fn new() -> (Self, Orders) {
        let (orders, taken) = mpsc::channel(ORDERS_LEN_MAX);
        (Self(orders), Orders(taken))
    }

    /// Takes a region in and starts it.
    ///
    /// # Errors
    /// Why it cannot come.
    pub(crate) async fn add(&self, name: &str) -> Result<()> {
        self.ask(Change::Add(name.to_owned())).await
    }

    /// Ends a region that is in the directory no more.
    ///
    /// # Errors
    /// Why it cannot go.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        self.ask(Change::Remove(name.to_owned())).await
    }

    async fn ask(&self, change: Change) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let ends = || anyhow!("the world is ending");
        self.0.send(Order { change, answer }).await.map_err(|_| ends())?;
        answered.await.map_err(|_| ends())?
    }
}

/// What was asked for and not looked at yet.
pub(crate) struct Orders(mpsc::Receiver<Order>);

/// How processes of regions are made.
pub(super) struct Starter {
    pub(super) program: PathBuf,
    pub(super) passed: Vec<OsString>,
    pub(super) data: PathBuf,
    pub(super) reached: Reached,
    pub(super) restart_wait_max: Duration,
    pub(super) drain_max: Duration,
}

impl Starter {
    /// One node of a region.
    pub(super) fn process(&self, plan: &NodePlan) -> (Region, RegionHandle) {
        Region::new(Care {
            name: plan.name.clone(),
            launch: Launch {
                program: self.program.clone(),
                arguments: self.arguments(plan),
                folder: plan.folder(&self.data),
                log_bytes_max: LOG_BYTES_MAX,
            },
            ready_url: format!("http://{}/readyz", SocketAddr::new(self.reached.admin, plan.admin_port)),
            restart_wait_max: self.restart_wait_max,
            drain_max: self.drain_max,
        })
    }

    fn arguments(&self, plan: &NodePlan) -> Vec<OsString> {
        let mut place = vec![
            ("--world", OsString::from(self.data.join(WORLD_FILE))),
            ("--region", plan.region.clone().into()),
            ("--index", plan.index.to_string().into()),
        ];
        if !plan.is_first() {
            place.push(("--node", plan.node.clone().into()));
        }
        let place = place.into_iter().flat_map(|(flag, value)| [flag.into(), value]);
        self.passed
            .iter()
            .cloned()
            .chain(["node".into()])
            .chain(place)
            .collect()
    }
}

/// Carries out what [`Members`] ask for.
pub(super) struct Membership {
    pub(super) shown: Shown,
    pub(super) starter: Starter,
    pub(super) wan: bool,
    /// Each region's own end; those of the world are its children's too.
    pub(super) ends: BTreeMap<String, CancellationToken>,
    pub(super) world_ends: CancellationToken,
    /// Regions that have come since the start.
    pub(super) joined: TaskTracker,
    pub(super) client: reqwest::Client,
}

impl Membership {
    /// Carries out orders; never ends.
    pub(super) async fn run(mut self, mut orders: Orders) {
        while let Some(Order { change, answer }) = orders.0.recv().await {
            let done = match &change {
                Change::Add(name) => self.add(name).await,
                Change::Remove(name) => self.remove(name).await,
            };
            // Whoever asked may have gone.
            let _ = answer.send(done);
        }
        std::future::pending::<()>().await;
    }

    async fn add(&mut self, name: &str) -> Result<()> {
        let world = self.shown.world();
        let grown = world.with(name)?;
        let plan = grown.region(name).context("a region that was just planned")?.clone();
        let nodes = grown.nodes_of(&plan);
        for node in &nodes {
            let folder = node.folder(&self.starter.data);
            if folder.exists() {
                bail!("the folder {} is there already; choose another name", folder.display());
            }
            for address in [
                SocketAddr::new(self.starter.reached.edge, node.http_port),
                SocketAddr::new(self.starter.reached.admin, node.admin_port),
                loopback(node.rpc_port),
            ] {
                std::net::TcpListener::bind(address).with_context(|| format!("port {} is needed", address.port()))?;
            }
        }
        let id = self.register(&world, &plan).await?;
        let grown = grown.joined(name, id);
        DevelopmentCa::create(&self.starter.data.join("tls"), [name])?;
        let links = grown.links(self.wan).into_iter();
        let links = links.filter(|link| link.from == name || link.to == name).collect();
        self.shown.links.open(links)?;
        grown.write(&self.starter.data.join(WORLD_FILE))?;
        self.shown.set_world(grown);

        let ends = self.world_ends.child_token();
        self.ends.insert(name.to_owned(), ends.clone());
        for node in nodes {
            let (process, handle) = self.starter.process(&node);
            self.shown.insert(&node.name, handle);
            let ends = ends.clone();
            self.joined.spawn(async move {
                // A region that came last is no reason to end those that were there.
                if let Err(error) = process.run(ends).await {
                    tracing::error!(region = %node.name, %error, "the region is over");
                }
            });
        }
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<()> {
        let world = self.shown.world();
        let Some(plan) = world.region(name) else {
            bail!(
                "there is no region {name}; the regions are {}",
                world.names().join(", ")
            );
        };
        if self.listed(&world, name).await?.contains(&name.to_owned()) {
            bail!("{name} is still in the directory; `antiphon ctl region remove {name}` takes it out first");
        }
        if let Some(ends) = self.ends.remove(name) {
            ends.cancel();
        }
        let nodes = world.nodes_of(plan);
        for node in &nodes {
            if let Some(handle) = self.shown.handle(&node.name) {
                handle.ended().await;
            }
        }
        self.shown.links.close(name);
        let shrunk = world.without(name);
        shrunk.write(&self.starter.data.join(WORLD_FILE))?;
        self.shown.set_world(shrunk);
        for node in nodes {
            self.shown.remove(&node.name);
            // What it held is not thrown away, and not in the way of another of that name.
            let folder = node.folder(&self.starter.data);
            let aside = folder.with_file_name(format!("{}.removed-{}", node.name, plan.id()));
            match fs::rename(&folder, &aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be put aside", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has the directory take a region in; its id. Asking again is answered with the same.
    async fn register(&self, world: &World, plan: &RegionPlan) -> Result<u64> {
        #[derive(Deserialize)]
        struct Added {
            id: u64,
        }
        let body = json!({
            "rpc": loopback(plan.rpc_port).to_string(),
            "edge": edge_url(self.starter.reached.https, loopback(plan.http_port)),
        });
        let path = format!("/directory/regions/{}", plan.name);
        let added = self.ask(world, |url| self.client.post(format!("{url}{path}")).json(&body));
        let added: Added = added.await?;
        Ok(added.id)
    }

    /// The regions in the directory, as a region other than `but` says.
    async fn listed(&self, world: &World, but: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct View {
            regions: Vec<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let others = world.without(but);
        let view: View = self
            .ask(&others, |url| self.client.get(format!("{url}/directory")))
            .await?;
        Ok(view.regions.into_iter().map(|region| region.name).collect())
    }

    /// Asks one region after the other until one answers.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        world: &World,
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> Result<T> {
        let mut why = anyhow!("there is no other region");
        for region in &world.regions {
            let url = format!(
                "http://{}",
                SocketAddr::new(self.starter.reached.admin, region.admin_port)
            );
            let answer = request(&url).timeout(ANSWER).send().await;
            why = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(answer.json().await?),
                Ok(answer) => anyhow!("{}: {}", region.name, answer.text().await.unwrap_or_default()),
                Err(error) => anyhow!("{}: {error}", region.name),
            };
        }
        Err(why.context("the directory does not take part"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_region_gets_the_flags_of_the_world_and_its_place() {
        let names = ["a".to_owned(), "b".to_owned()];
        let world = World::find(Path::new("/nowhere"), &names, 7400).unwrap().with_nodes(2);
        let starter = Starter {
            program: "antiphon".into(),
            passed: vec!["--set".into(), "slot.queue_len_max=1".into()],
            data: "data".into(),
            reached: Reached::of(&Config::default()),
            restart_wait_max: Duration::ZERO,
            drain_max: Duration::ZERO,
        };
        let nodes = world.nodes_of(&world.regions[1]);
        let arguments = nodes.iter().map(|node| starter.arguments(node).join(" ".as_ref()));
        assert_eq!(
            arguments.collect::<Vec<_>>(),
            [
                "--set slot.queue_len_max=1 node --world data/world.toml --region b --index 1",
                "--set slot.queue_len_max=1 node --world data/world.toml --region b --index 1 --node 2",
            ]
        );
    }
}
