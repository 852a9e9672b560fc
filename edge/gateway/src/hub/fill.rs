//! Fetches from the home what the feed did not bring, and checks who may still have it.

use std::{sync::Arc, time::Duration};

use antiphon_proto::client::server_frame;
use antiphon_session::{Push, Refusal};
use antiphon_types::{ConversationId, ErrorCode, UserId};
use rand::RngExt as _;

use super::{EntryCell, FillRound, Hub, SharedFrame, apply::forget};
use crate::calls::HistoryRange;

/// Messages that one round reads.
const PAGE_LEN: u32 = 200;
const BACKOFF_MAX: Duration = Duration::from_secs(5);

impl Hub {
    pub(super) fn start_fill(self: &Arc<Self>, id: ConversationId, entry: EntryCell) {
        let hub = self.clone();
        self.tasks.spawn(async move {
            let stop = hub.stop.clone();
            stop.run_until_cancelled(hub.fill(id, entry)).await;
        });
    }

    async fn fill(&self, id: ConversationId, entry: EntryCell) {
        let mut failures = 0;
        loop {
            let Some(round) = entry.lock().fill_round() else { return };
            // Given back between two tries: conversations whose home is lost would keep the others waiting.
            let Ok(permit) = self.fills.acquire().await else {
                return;
            };
            let filled = self.fill_round(id, &entry, &round).await;
            drop(permit);
            match filled {
                Ok(true) => return,
                Ok(false) => failures = 0,
                Err(refusal) => {
                    failures += 1;
                    tracing::debug!(%id, code = %refusal.code, refusal.message, failures, "a fill has to be tried again");
                    tokio::time::sleep(backoff(failures, BACKOFF_MAX)).await;
                }
            }
        }
    }

    /// Reads, then checks, then passes on: a removal that the check does not see comes after what was read.
    async fn fill_round(&self, id: ConversationId, entry: &EntryCell, round: &FillRound) -> Result<bool, Refusal> {
        let missing = round.target.saturating_sub(round.after);
        let is_too_far = missing > self.fill_push_max;
        let mut page = None;
        if missing > 0 && !is_too_far {
            page = Some(
                self.calls
                    .history(id, None, HistoryRange::After(round.after), PAGE_LEN)
                    .await?,
            );
        }
        let gone = self.gone(id, round).await?;

        let mut entry = entry.lock();
        let removed = entry.fill_removes(&gone);
        let tail_seq = round.target;
        let retention_passed = page.as_ref().is_some_and(|page| page.first_seq > tail_seq);
        if is_too_far || retention_passed {
            entry.fill_skips_to(tail_seq, |handle| {
                let conversation_id = id;
                handle.push(Push::Lagged {
                    conversation_id,
                    tail_seq,
                });
            });
        }
        let messages = page.map(|page| page.messages).unwrap_or_default();
        let is_behind = missing > 0 && messages.is_empty() && !is_too_far && !retention_passed;
        for message in messages {
            let seq = message.seq;
            let frame = SharedFrame::event(server_frame::Body::Message(message));
            entry.fill_message(seq, |handle| handle.push_message(id, seq, &frame));
        }
        let is_done = entry.fill_ends_round(round.epoch);
        drop(entry);

        forget(&removed, id);
        if is_behind {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "history does not hold yet what the feed has told of",
            ));
        }
        Ok(is_done)
    }

    /// The sessions of a round whose users are no members.
    async fn gone(&self, id: ConversationId, round: &FillRound) -> Result<Vec<u64>, Refusal> {
        let mut users: Vec<UserId> = round.checked.iter().map(|(_, user_id)| *user_id).collect();
        users.sort_unstable();
        users.dedup();
        let members = match self.calls.check_members(id, &users).await {
            Err(refusal) if refusal.code == ErrorCode::NotFound => Vec::new(),
            members => members?,
        };
        let gone = round.checked.iter().filter(|(_, user_id)| !members.contains(user_id));
        Ok(gone.map(|(key, _)| *key).collect())
    }
}

/// Full jitter: anywhere between nothing and a bound that doubles with each failure.
pub(crate) fn backoff(failures: u32, max: Duration) -> Duration {
    let bound = Duration::from_millis(50).saturating_mul(1 << failures.min(10)).min(max);
    bound.mul_f64(rand::rng().random::<f64>())
}
