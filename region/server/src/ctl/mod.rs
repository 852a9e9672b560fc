//! `antiphon ctl`: what an operator does with a deployment of several regions, over the admin port of any node.

pub(crate) mod api;
mod homes;
mod members;
mod policy;
pub(crate) mod store;
pub(crate) mod table;
mod view;
mod world;

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use self::{
    api::{Done, FailOver},
    members::RegionCommand,
    policy::PolicyArgs,
    store::StoreArgs,
    view::{SlotView, View},
    world::{LinkArgs, ProcessArgs},
};
use crate::{cli::print, config::Config};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long an answer may take; a change of the voters takes longest.
const ANSWER: Duration = Duration::from_secs(90);

#[derive(Debug, Args)]
pub(crate) struct CtlArgs {
    /// The admin port of any node
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7401",
        env = "ANTIPHON_ADMIN"
    )]
    admin: String,
    /// The admin port of a world on this machine, for `link` and `process`
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7499",
        env = "ANTIPHON_WORLD"
    )]
    world: String,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask before something dangerous
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// The deployment at a glance
    Status,
    /// The regions, and what each is home of
    Regions,
    /// The slots, and where each lives
    Slots {
        /// Of this home alone
        #[arg(long, value_name = "REGION")]
        home: Option<String>,
    },
    /// Move every home out of a region, slot by slot, without a failed send
    Drain {
        /// Which
        region: String,
        /// How long to wait until it is home of nothing
        #[arg(long, value_name = "N", default_value_t = 120)]
        seconds: u64,
    },
    /// Let a region be home again
    Undrain {
        /// Which
        region: String,
    },
    /// Give homes away without asking them: for a home that hangs
    Failover {
        /// All slots that are homed in this region
        #[arg(long, value_name = "REGION", required_unless_present = "slot")]
        region: Option<String>,
        /// This slot; may be repeated
        #[arg(long, value_name = "NUMBER")]
        slot: Vec<u16>,
        /// To this region, which has to be in sync
        #[arg(long, value_name = "REGION")]
        to: Option<String>,
        /// Home and standby are lost for good: the region of --to takes over with what it holds, and what it lacks is lost
        #[arg(long, requires = "to")]
        accept_loss: bool,
    },
    /// Show the rules of placement, or change those that are named
    Policy(PolicyArgs),
    /// Even the homes out, and bring slots back to where they are preferred
    Rebalance {
        /// How long to wait until homes are even
        #[arg(long, value_name = "N", default_value_t = 120)]
        seconds: u64,
    },
    /// Show the regions again and again until interrupted
    Watch,
    /// Wait until every region is active, no slot is moving, and every slot has its in-sync copies
    Wait {
        /// How long at most
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
    },
    /// Take regions in, and take them out
    #[command(subcommand)]
    Region(RegionCommand),
    /// Show what a node stores in, how that does and how large the slots are; or copy a region's store into another engine
    Store(StoreArgs),
    /// See, slow down and cut the links between the regions of a world on this machine
    Link(LinkArgs),
    /// See, kill, freeze and restart the processes of a world on this machine
    Process(ProcessArgs),
}

/// Does what the command says. `load` reads the settings, with these over them, for what is done here and not by a node.
///
/// # Errors
/// What the node refuses, or that it cannot be reached.
pub(crate) async fn run(args: CtlArgs, load: impl Fn(&[(&str, &str)]) -> Result<Config>) -> Result<()> {
    let ctl = Ctl {
        http: antiphon_client::http_client(None),
        admin: args.admin.trim_end_matches('/').to_owned(),
        world: args.world,
        json: args.json,
        yes: args.yes,
    };
    match args.command {
        CtlCommand::Status => {
            let view: View = ctl.get("/directory").await?;
            ctl.show(&view, || table::status(&view))
        }
        CtlCommand::Regions => {
            let view: View = ctl.get("/directory").await?;
            ctl.show(&view.regions, || table::regions(&view))
        }
        CtlCommand::Slots { home } => {
            let slots = ctl.slots(home.as_deref()).await?;
            ctl.show(&slots, || table::slots(&slots))
        }
        CtlCommand::Drain { region, seconds } => ctl.drain(&region, Duration::from_secs(seconds)).await,
        CtlCommand::Undrain { region } => {
            let path = format!("/directory/regions/{region}/undrain");
            let done: Done = ctl.post(&path, &Value::Null).await?;
            ctl.show(&done, || {
                format!("{region} may be home again; `antiphon ctl rebalance` gives it homes\n")
            })
        }
        CtlCommand::Failover {
            region,
            slot,
            to,
            accept_loss,
        } => {
            ctl.fail_over(FailOver {
                region,
                slots: slot,
                to,
                accept_loss,
            })
            .await
        }
        CtlCommand::Policy(args) => ctl.policy(args).await,
        CtlCommand::Rebalance { seconds } => ctl.rebalance(Duration::from_secs(seconds)).await,
        CtlCommand::Watch => loop {
            let view: View = ctl.get("/directory").await?;
            ctl.show(&view, || table::regions(&view))?;
            sleep(LOOK * 2).await;
        },
        CtlCommand::Wait { seconds } => ctl.wait(Duration::from_secs(seconds)).await,
        CtlCommand::Region(command) => ctl.region(command).await,
        CtlCommand::Store(args) => ctl.store(args, load).await,
        CtlCommand::Link(args) => ctl.link(args).await,
        CtlCommand::Process(args) => ctl.process(args).await,
    }
}

struct Ctl {
    http: reqwest::Client,
    admin: String,
    world: String,
    json: bool,
    yes: bool,
}

impl Ctl {
    async fn slots(&self, home: Option<&str>) -> Result<Vec<SlotView>> {
        match home {
            Some(home) => self.get(&format!("/directory/slots?home={home}")).await,
            None => self.get("/directory/slots").await,
        }
    }

    async fn wait(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut said = String::new();
        loop {
            // A directory without a leader does not answer, and will.
            let asked = timeout_at(deadline, self.get::<View>("/directory")).await;
            let amiss = match asked {
                Ok(Ok(view)) if view.amiss().is_empty() => return self.show(&view, || "all is well\n".to_owned()),
                Ok(Ok(view)) => view.amiss().join(", "),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) if said.is_empty() => "no answer".to_owned(),
                Err(_) => said.clone(),
            };
            if Instant::now() >= deadline {
                bail!("not well after {} s: {amiss}", patience.as_secs());
            }
            if amiss != said {
                self.progress(&amiss)?;
                said = amiss;
            }
            sleep(LOOK).await;
        }
    }

    /// Says what is about to happen, and asks.
    fn agree(&self, what: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            bail!("{what}; say so with --yes");
        }
        print(&format!("{what}.\nGo on? [y/N] "))?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim().eq_ignore_ascii_case("y") {
            return Ok(());
        }
        bail!("nothing was done")
    }

    fn progress(&self, line: &str) -> Result<()> {
        if self.json {
            return Ok(());
        }
        print(&format!("{line}\n"))
    }

    fn show<T: serde::Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            return print(&format!("{}\n", serde_json::to_string(value)?));
        }
        print(&text())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.ask(Method::POST, path, (!body.is_null()).then_some(body)).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T> {
        let text = self.answer(method, path, body).await?;
        serde_json::from_str(&text).with_context(|| format!("what {}{path} answers is not understood", self.admin))
    }

    async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let mut request = self.http.request(method, format!("{}{path}", self.admin));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.timeout(ANSWER).send().await;
        let answer = answer.with_context(|| format!("no node answers at {} (--admin)", self.admin))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            let error = serde_json::from_str::<Value>(&text).ok();
            let error = error
                .as_ref()
                .and_then(|error| error["error"].as_str())
                .unwrap_or(&text);
            bail!("{error}");
        }
        Ok(text)
    }
}
