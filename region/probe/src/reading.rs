//! The end of a load: every member reads everything, in every region.

use std::time::Duration;

use antiphon_client::{Account, AccountError, MessageView};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    history::{Event, Recorder, Seen},
    load::ProbeError,
    member::Seat,
    setup::{ANSWER, is_for_now},
};

/// How long a region may be silent, and one that answers may refuse to show a history.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one look for a region may take.
const LOOK: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);
const PAGE_LEN: usize = 100;

/// Records every history as each of its members reads it at each edge. Returns the edges that did not answer.
pub(crate) async fn read_all<'a>(
    edges: impl Iterator<Item = &'a String>,
    seats: &[Seat],
    recorder: &Recorder,
) -> Result<Vec<String>, ProbeError> {
    let mut regions_read = 0;
    let mut silent = Vec::new();
    for edge in edges {
        if !is_up(edge).await {
            silent.push(edge.clone());
            continue;
        }
        regions_read += 1;
        let account = Account::new(edge);
        for seat in seats {
            let log_in = || account.log_in(&seat.username, &seat.password, "probe-reader");
            let tokens = insist(log_in).await.map_err(|why| ProbeError::Unreadable {
                conversation: seat.conversations.join(", "),
                edge: edge.clone(),
                why,
            })?;
            for conversation in &seat.conversations {
                read(&account, &tokens.access_token, seat, conversation, recorder)
                    .await
                    .map_err(|why| ProbeError::Unreadable {
                        conversation: conversation.clone(),
                        edge: edge.clone(),
                        why,
                    })?;
            }
        }
    }
    if regions_read == 0 {
        return Err(ProbeError::NoRegion);
    }
    Ok(silent)
}

async fn read(
    account: &Account,
    token: &str,
    seat: &Seat,
    conversation: &str,
    recorder: &Recorder,
) -> Result<(), String> {
    let mut after_seq = 0;
    loop {
        let query = format!("afterSeq={after_seq}&limit={PAGE_LEN}");
        let page = insist(|| account.history(token, conversation, &query)).await?;
        let messages: Vec<Seen> = page.into_iter().map(|message| seen(conversation, message)).collect();
        let last = messages.last().map(|message| message.seq);
        // An empty page too: it shows that the conversation was read.
        recorder.note(Event::Page {
            reader: format!("{} at {}", seat.username, account.server()),
            conversation: conversation.to_owned(),
            messages,
        });
        let Some(last) = last else {
            return Ok(());
        };
        after_seq = last;
    }
}

fn seen(conversation: &str, message: MessageView) -> Seen {
    Seen {
        conversation: conversation.to_owned(),
        seq: message.seq,
        sender: message.sender_id,
        client_msg_id: message.client_msg_id,
        text: message.text,
    }
}

/// Whether anything answers there.
async fn is_up(edge: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let account = Account::new(edge);
    loop {
        // Refused for want of a token: whoever refuses is there.
        let answer = timeout(LOOK, account.conversations("")).await;
        if matches!(answer, Ok(Ok(_) | Err(AccountError::Refused { .. }))) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(PAUSE).await;
    }
}

async fn insist<T, F>(mut work: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, AccountError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let why = match timeout(ANSWER, work()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) if !is_for_now(&error) => return Err(error.to_string()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        sleep(PAUSE).await;
    }
}
