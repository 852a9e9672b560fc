use std::{process::Stdio, sync::Arc};

use antiphon_client::{Codec, Transport};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
};

use crate::{Say, Server, people::Progress, usage::Usage};

/// Handshakes under way at once, of all devices that were not away.
const AT_ONCE: usize = 64;
/// Files that a process has open besides those of its devices.
const OTHER_FILES: usize = 1_000;
/// Reports that wait to be read.
const REPORTS_MAX: usize = 1_024;

/// One device of a [`Crowd`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Of its edge.
    pub(crate) url: String,
    pub(crate) access_token: String,
    /// Those that it follows.
    pub(crate) conversation_ids: Arc<[String]>,
}

/// Devices that do what they are told at the same moment, in as many processes ([`crate::devices`]) as it takes: each may open so many
/// files.
pub(crate) struct Crowd {
    workers: Vec<Worker>,
    reports: mpsc::Receiver<Result<Report>>,
    devices: usize,
}

struct Worker {
    process: Child,
    orders: ChildStdin,
}

/// What a process is told first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Its name.
    pub(crate) transport: String,
    pub(crate) certificate_sha256: Option<String>,
    /// Whether they write JSON, over WebSocket.
    pub(crate) is_json: bool,
    /// Handshakes.
    pub(crate) at_once: usize,
    pub(crate) members: Vec<Member>,
}

/// What all devices are told after that.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Order {
    Leave,
    /// And get so many messages of each conversation.
    Return {
        missed: u64,
    },
    Answer,
}

/// What each device says when it has done so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Connected,
    Left,
    Back(Back),
    Answered,
}

/// A device that is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Back {
    /// From when all were told to return until it had everything.
    pub(crate) whole_after_us: u64,
    /// How often it was told to come later.
    pub(crate) refused: u64,
    /// Messages that have not come.
    pub(crate) lost: u64,
}

/// How many connections one process may have.
#[must_use]
pub fn connections_of_process() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX);
    files.saturating_sub(OTHER_FILES).max(1)
}

impl Crowd {
    /// Lets all of them connect, and waits until they have.
    ///
    /// # Errors
    /// When one has not, or a process cannot be started.
    pub(crate) async fn connect(server: &Server, transport: Transport, members: &[Member], say: Say) -> Result<Self> {
        let processes = members.len().div_ceil(connections_of_process()).max(1);
        let (reporting, reports) = mpsc::channel(REPORTS_MAX);
        let mut workers = Vec::with_capacity(processes);
        for members in members.chunks(members.len().div_ceil(processes).max(1)) {
            let job = Job {
                transport: transport.name().to_owned(),
                certificate_sha256: server.certificate_sha256().map(str::to_owned),
                is_json: server.codec() == Codec::Json,
                at_once: AT_ONCE.div_ceil(processes),
                members: members.to_vec(),
            };
            let mut process = Command::new(server.program())
                .args(["bench", "devices"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .context("a process of devices cannot be started")?;
            let (Some(mut orders), Some(told)) = (process.stdin.take(), process.stdout.take()) else {
                bail!("a process of devices ended at once");
            };
            tokio::spawn(relay(BufReader::new(told).lines(), reporting.clone()));
            tell(&mut orders, &job).await?;
            workers.push(Worker { process, orders });
        }
        let mut crowd = Self {
            workers,
            reports,
            devices: members.len(),
        };
        let progress = Progress::new("devices connected", members.len(), say);
        crowd
            .hear(|report| {
                progress.step();
                report == Report::Connected
            })
            .await?;
        Ok(crowd)
    }

    /// Ends all connections.
    ///
    /// # Errors
    /// When a device or a process has failed.
    pub(crate) async fn leave(&mut self) -> Result<()> {
        self.order(Order::Leave).await?;
        self.hear(|report| report == Report::Left).await
    }

    /// Lets all return and get what they have missed; tells of each as it has.
    ///
    /// # Errors
    /// When one is not welcomed in time, or a process has failed.
    pub(crate) async fn come_back(&mut self, missed: u64, mut is_back: impl FnMut(Back)) -> Result<()> {
        self.order(Order::Return { missed }).await?;
        self.hear(|report| match report {
            Report::Back(back) => {
                is_back(back);
                true
            }
            Report::Connected | Report::Left | Report::Answered => false,
        })
        .await
    }

    /// Asks each whether it is connected still.
    ///
    /// # Errors
    /// When one is not, or a process has failed.
    pub(crate) async fn answer(&mut self) -> Result<()> {
        self.order(Order::Answer).await?;
        self.hear(|report| report == Report::Answered).await
    }

    /// What its processes have used.
    ///
    /// # Errors
    /// When one has ended.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut all = Usage::default();
        for worker in &self.workers {
            all += Usage::of(worker.process.id().context("a process of devices has ended")?)?;
        }
        Ok(all)
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        for worker in &mut self.workers {
            tell(&mut worker.orders, &order).await?;
        }
        Ok(())
    }

    /// Hears of each device once.
    async fn hear(&mut self, mut is_expected: impl FnMut(Report) -> bool) -> Result<()> {
        for _ in 0..self.devices {
            let report = self
                .reports
                .recv()
                .await
                .context("all processes of devices have ended")??;
            if !is_expected(report) {
                bail!("a device reported {report:?} out of turn");
            }
        }
        Ok(())
    }
}

/// One line.
async fn tell(orders: &mut ChildStdin, what: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(what)? + "\n";
    let told = orders.write_all(line.as_bytes()).await;
    told.context("a process of devices has ended")
}

/// Passes on what a process says, and that it says nothing any more.
async fn relay(mut told: Lines<BufReader<ChildStdout>>, reporting: mpsc::Sender<Result<Report>>) {
    loop {
        let report = match told.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).context(line),
            Ok(None) => Err(anyhow::anyhow!("a process of devices has ended")),
            Err(error) => Err(error.into()),
        };
        let is_over = report.is_err();
        if reporting.send(report).await.is_err() || is_over {
            return;
        }
    }
}
