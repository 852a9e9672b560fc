//! Users and groups of a load.

use std::time::Duration;

use antiphon_client::{Account, AccountError, Tokens};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    load::{LoadOptions, ProbeError},
    member::Seat,
};

/// How long one request may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Registers users for each column of groups in each region, and lets each region create its groups.
pub(crate) async fn seats(options: &LoadOptions) -> Result<Vec<Seat>, ProbeError> {
    let mut seats = Vec::new();
    for _ in 0..options.groups_per_edge.max(1) {
        let mut column = Vec::new();
        let members_per_edge = options.members_per_edge.max(1);
        for edge in &options.edges {
            for _ in 0..members_per_edge {
                column.push(register(edge, options).await?);
            }
        }
        let members: Vec<String> = column.iter().map(|seat| seat.tokens.user_id.clone()).collect();
        let mut groups = Vec::new();
        for creator in column.iter().step_by(members_per_edge) {
            let others: Vec<String> = members
                .iter()
                .filter(|member| **member != creator.tokens.user_id)
                .cloned()
                .collect();
            let account = Account::new(&creator.edge);
            let what = "a group cannot be created";
            let create = || account.create_group(&creator.tokens.access_token, "probe", &others);
            groups.push(insist(what, &creator.edge, options.setup_patience, create).await?);
        }
        for seat in &mut column {
            seat.conversations.clone_from(&groups);
        }
        seats.extend(column);
    }
    Ok(seats)
}

async fn register(edge: &str, options: &LoadOptions) -> Result<Seat, ProbeError> {
    let patience = options.setup_patience;
    let account = Account::new(edge);
    let username = format!("probe-{:016x}", rand::random::<u64>());
    let password = format!("{:032x}", rand::random::<u128>());
    let registering = || async {
        match account.register(&username, &password).await {
            // An earlier try whose answer was lost.
            Err(error) if error.code() == Some("ALREADY_EXISTS") => Ok(()),
            other => other.map(drop),
        }
    };
    insist("a user cannot be registered", edge, patience, registering).await?;
    let logging_in = || account.log_in(&username, &password, "probe");
    let tokens: Tokens = insist("a user cannot log in", edge, patience, logging_in).await?;
    Ok(Seat {
        edge: edge.to_owned(),
        username,
        password,
        tokens,
        conversations: Vec::new(),
        transport: options.transport,
    })
}

/// Tries again what may be tried again: a load may be started while a world is still finding itself.
async fn insist<T, F>(
    what: &'static str,
    edge: &str,
    patience: Duration,
    mut work: impl FnMut() -> F,
) -> Result<T, ProbeError>
where
    F: Future<Output = Result<T, AccountError>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match timeout(ANSWER, work()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(source)) if !is_for_now(&source) || Instant::now() >= deadline => {
                return Err(ProbeError::Setup {
                    what,
                    edge: edge.to_owned(),
                    source,
                });
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(ProbeError::Silent {
                    what,
                    edge: edge.to_owned(),
                });
            }
            Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether the same may succeed later.
pub(crate) fn is_for_now(error: &AccountError) -> bool {
    match error {
        AccountError::Refused { status, .. } => matches!(*status, 429 | 503 | 504),
        AccountError::Transport(error) => !error.is_builder(),
    }
}
