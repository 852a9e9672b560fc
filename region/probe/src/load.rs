use std::{collections::BTreeMap, sync::Arc, time::Duration};

use antiphon_client::{AccountError, Transport};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    check,
    delays::delays,
    history::Recorder,
    measure::Measure,
    member::{Member, Seat},
    reading,
    report::Report,
    setup,
};

/// Who talks, where, and how much.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Base URLs of edges, one for each region.
    pub edges: Vec<String>,
    /// Those of `edges` that are meant to be away when the load ends. Any other that does not show every history then breaks a rule.
    pub away: Vec<String>,
    /// Messages a second of each member in each of its conversations.
    pub rate_per_s: f64,
    /// Groups that are created, and so homed, in each region. Each has members in every region.
    pub groups_per_edge: usize,
    /// How many members in each.
    pub members_per_edge: usize,
    /// The only transport to use; none: whichever gets through first.
    pub transport: Option<Transport>,
    /// What is sent so soon after the start waits for connections to be made; it is judged, and in no latency and no [`Delay`](crate::Delay).
    pub warm_up: Duration,
    /// How long users and groups are tried to be made.
    pub setup_patience: Duration,
    /// How long the last answers are waited for when sending has ended.
    pub answer_patience: Duration,
}

impl LoadOptions {
    /// The defaults for these edges.
    #[must_use]
    pub fn new(edges: Vec<String>) -> Self {
        Self {
            edges,
            away: Vec::new(),
            rate_per_s: 2.0,
            groups_per_edge: 2,
            members_per_edge: 1,
            transport: None,
            warm_up: Duration::ZERO,
            setup_patience: Duration::from_secs(30),
            answer_patience: Duration::from_secs(60),
        }
    }
}

/// Why a load could not begin, or its end not be judged.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No region was named.
    #[error("a load needs an edge at least")]
    NoEdge,
    /// The rate is no number that can be kept.
    #[error("the rate is {0} messages a second; it has to be more than 0 and at most 1000")]
    Rate(f64),
    /// An edge did not let the load begin.
    #[error("{what} at {edge}: {source}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// Where.
        edge: String,
        /// How it failed the last time.
        source: AccountError,
    },
    /// An edge did not answer.
    #[error("{what} at {edge}: no answer")]
    Silent {
        /// What was tried.
        what: &'static str,
        /// Where.
        edge: String,
    },
    /// A region serves and does not show what it has to.
    #[error("the history of {conversation} cannot be read at {edge}: {why}")]
    Unreadable {
        /// Which conversation.
        conversation: String,
        /// Where.
        edge: String,
        /// How it failed the last time.
        why: String,
    },
    /// There is nothing to judge by.
    #[error("no region answers: the histories cannot be read")]
    NoRegion,
}

/// A load at work. Dropping it ends it without judgement.
#[derive(Debug)]
pub struct Load {
    options: LoadOptions,
    seats: Vec<Seat>,
    recorder: Recorder,
    measure: Arc<Measure>,
    stop_sending: CancellationToken,
    leave: CancellationToken,
    members: JoinSet<()>,
}

/// Between two looks at what is unanswered.
const LOOK: Duration = Duration::from_millis(20);

impl Load {
    /// Registers users under random names in every region, lets each region create its groups, and begins to send.
    ///
    /// # Errors
    /// When an edge refuses or stays silent.
    pub async fn start(options: LoadOptions) -> Result<Self, ProbeError> {
        if options.edges.is_empty() {
            return Err(ProbeError::NoEdge);
        }
        if !(options.rate_per_s > 0.0 && options.rate_per_s <= 1_000.0) {
            return Err(ProbeError::Rate(options.rate_per_s));
        }
        let seats = setup::seats(&options).await?;
        let (recorder, measure) = (
            Recorder::new(),
            Arc::new(Measure::new(Instant::now() + options.warm_up)),
        );
        let (stop_sending, leave) = (CancellationToken::new(), CancellationToken::new());
        let mut members = JoinSet::new();
        for (session, seat) in (0..).zip(&seats) {
            let member = Member::new(seat, session, recorder.clone(), measure.clone());
            members.spawn(member.run(options.rate_per_s, stop_sending.clone(), leave.clone()));
        }
        Ok(Self {
            options,
            seats,
            recorder,
            measure,
            stop_sending,
            leave,
            members,
        })
    }

    /// Members that send.
    #[must_use]
    pub fn members(&self) -> usize {
        self.seats.len()
    }

    /// Stops sending, waits for the last answers, reads every history in every region, and judges.
    ///
    /// # Errors
    /// When the histories cannot be read.
    pub async fn stop(mut self) -> Result<Report, ProbeError> {
        self.stop_sending.cancel();
        let answered = async {
            while self.measure.unanswered() > 0 {
                sleep(LOOK).await;
            }
        };
        // What stays unanswered is in the report.
        let _ = timeout(self.options.answer_patience, answered).await;
        self.leave.cancel();
        while self.members.join_next().await.is_some() {}
        let options = &self.options;
        let edges = options.edges.iter().filter(|edge| !options.away.contains(edge));
        let silent = reading::read_all(edges, &self.seats, &self.recorder).await?;
        let history = self.recorder.history();
        let delays = delays(&history, options.warm_up, &self.seats, &self.homes());
        Ok(Report::of(&self.measure, &check(&history), &silent, delays))
    }

    /// Of each conversation the edge at which it was founded: each edge founds one after the other.
    fn homes(&self) -> BTreeMap<String, String> {
        let founded = self
            .seats
            .iter()
            .flat_map(|seat| seat.conversations.iter().zip(&self.options.edges));
        founded
            .map(|(conversation, edge)| (conversation.clone(), edge.clone()))
            .collect()
    }
}
