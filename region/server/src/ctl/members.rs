//! Regions come and go.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Ctl, LOOK,
    api::{Added, Done},
    view::View,
};
use crate::world::RegionState;

/// How long a region that is new may take to be ready.
const READY: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(super) enum RegionCommand {
    /// Take a region in. It gets copies of every slot, a vote, and homes by the next rebalance
    Add {
        /// Its name, which no other has
        name: String,
        /// Where its nodes listen for those of other regions; without it the world on this machine starts the region
        #[arg(long, value_name = "HOST:PORT", requires = "edge")]
        rpc: Option<String>,
        /// Its edge, as devices reach it
        #[arg(long, value_name = "URL", requires = "rpc")]
        edge: Option<String>,
    },
    /// Say where a region is reached from now on, when it has moved
    Address {
        /// Which
        name: String,
        /// Where its nodes listen for those of other regions; without it as before
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "edge")]
        rpc: Option<String>,
        /// Its edge, as devices reach it; without it as before
        #[arg(long, value_name = "URL")]
        edge: Option<String>,
    },
    /// Take a region out for good: its homes go to others, then its copies and its vote; a dead one goes at once
    Remove {
        /// Which
        name: String,
        /// How long to wait until nothing depends on it any more
        #[arg(long, value_name = "N", default_value_t = 600)]
        seconds: u64,
    },
}

impl Ctl {
    pub(super) async fn region(&self, command: RegionCommand) -> Result<()> {
        match command {
            RegionCommand::Add { name, rpc, edge } => match (rpc, edge) {
                (Some(rpc), Some(edge)) => self.add_at(&name, &rpc, &edge).await,
                _ => self.add_here(&name).await,
            },
            RegionCommand::Address { name, rpc, edge } => self.move_region(&name, rpc, edge).await,
            RegionCommand::Remove { name, seconds } => self.remove(&name, Duration::from_secs(seconds)).await,
        }
    }

    /// A region of another machine, whose node joins by itself.
    async fn add_at(&self, name: &str, rpc: &str, edge: &str) -> Result<()> {
        let body = json!({ "rpc": rpc, "edge": edge });
        let added: Added = self.post(&format!("/directory/regions/{name}"), &body).await?;
        self.show(&added, || {
            format!("{name} is region {}; its node joins when it is started\n", added.id)
        })
    }

    async fn move_region(&self, name: &str, rpc: Option<String>, edge: Option<String>) -> Result<()> {
        let path = format!("/directory/regions/{name}/addresses");
        let body = json!({ "rpc": rpc, "edge": edge });
        let _: Done = self.ask(Method::PATCH, &path, Some(&body)).await?;
        let view: View = self.get("/directory").await?;
        let Some(region) = view.region(name) else {
            bail!("region {name} is gone");
        };
        self.show(region, || {
            format!(
                "{name} is reached at {} by other regions and at {} by devices\n",
                region.rpc, region.edge
            )
        })
    }

    /// A region of the world on this machine.
    async fn add_here(&self, name: &str) -> Result<()> {
        let control = self.control()?;
        control.add_region(name).await?;
        let deadline = Instant::now() + READY;
        loop {
            let world = control.world().await?;
            let region = world.regions.iter().find(|region| region.name == name);
            match region {
                Some(region) if region.state == RegionState::Ready => {
                    return self.show(region, || {
                        format!(
                            "{name} is ready on port {}; `antiphon ctl rebalance` gives it homes\n",
                            region.http_port
                        )
                    });
                }
                Some(region) if Instant::now() < deadline => {
                    self.progress(&format!("{name}: {}", crate::world::in_words(region.state)))?;
                }
                Some(region) => bail!("{name} is not ready yet; see {}", region.data.join("log").display()),
                None => bail!("{name} has gone again"),
            }
            sleep(LOOK).await;
        }
    }

    async fn remove(&self, name: &str, patience: Duration) -> Result<()> {
        let view: View = self.get("/directory").await?;
        if view.region == name {
            bail!("this is the admin port of {name} itself; ask another region with --admin");
        }
        // Whoever is gone from the directory may still have its process.
        let Some(region) = view.region(name) else {
            return self.end_process(name).await;
        };
        let left = view
            .regions
            .iter()
            .filter(|other| other.name != name && other.status == "active");
        let left = left.count();
        if left < usize::from(view.in_sync_copies) {
            bail!(
                "{left} active regions would be left, and each slot is to have {} copies",
                view.in_sync_copies
            );
        }
        self.agree(&format!(
            "{name}, which is {}, hands over the {} slots that it is home of, gives up its copies and its vote, and is gone for good",
            region.status, region.homes
        ))?;
        if region.status == "active" {
            let path = format!("/directory/regions/{name}/drain");
            let _: Done = self.post(&path, &serde_json::Value::Null).await?;
        }
        self.until_empty(name, patience).await?;
        let _: serde_json::Value = self
            .ask(Method::DELETE, &format!("/directory/regions/{name}"), None)
            .await?;
        self.end_process(name).await
    }

    /// Waits until nothing depends on a region any more.
    async fn until_empty(&self, name: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let view: View = self.get("/directory").await?;
            let Some(region) = view.region(name) else {
                return Ok(());
            };
            if region.homes + region.in_sync == 0 {
                return Ok(());
            }
            if region.status == "down" {
                bail!(
                    "{name} is down, and nobody else holds all of {} slots: it has to come back",
                    region.homes + region.in_sync
                );
            }
            if region.status == "active" {
                bail!("{name} is active again: somebody has stopped the draining");
            }
            let left = format!("home of {} slots, in sync with {} others", region.homes, region.in_sync);
            if Instant::now() >= deadline {
                bail!(
                    "{name} is still {left} after {} s; it goes on draining: ask again, or `antiphon ctl undrain {name}`",
                    patience.as_secs()
                );
            }
            self.progress(&format!("{name}: {left}"))?;
            sleep(LOOK).await;
        }
    }

    /// In a world on this machine the process goes too.
    async fn end_process(&self, name: &str) -> Result<()> {
        let control = self.control()?;
        let world = control.world().await;
        let runs_here = world.is_ok_and(|world| world.regions.iter().any(|region| region.name == name));
        if runs_here {
            control.remove_region(name).await?;
        }
        self.show(&json!({ "removed": name }), || format!("{name} is gone\n"))
    }
}
