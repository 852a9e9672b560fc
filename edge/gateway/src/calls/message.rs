use std::{collections::BTreeMap, time};

use antiphon_directory::SlotRoute;
use antiphon_proto::rpc::{
    self, HistoryRequest, HistoryResponse, InboxMove, InboxMoved, MoveInboxesRequest, NewMessage, NotDone, SendRequest,
    Stored, SummariesRequest, Summary, TypingRequest, message_client::MessageClient, move_inbox_result, send_result,
};
use antiphon_session::Refusal;
use antiphon_types::{ConversationId, ErrorCode, Seq, Slot, UserId};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::{ANSWER_BYTES_MAX, Calls, as_clients_read, conversation};

/// Conversations that one Summaries may name.
const SUMMARIES_MAX: usize = 100;
/// Slots that are asked for summaries at once: many, so that those which do not answer leave room for the others.
const SLOTS_AT_ONCE: usize = 256;
/// When to ask again for a summary that did not come, where nobody has said so.
const SUMMARY_AGAIN_MS: u64 = 1_000;

/// Which part of history is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HistoryRange {
    /// What follows a seq.
    After(Seq),
    /// What comes before a seq.
    Before(Seq),
    /// The newest page.
    Newest,
}

/// What is known of conversations, and of which of them nothing is.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub(crate) known: BTreeMap<ConversationId, Summary>,
    /// Their slots did not answer; after how many milliseconds to ask again.
    pub(crate) unavailable: BTreeMap<ConversationId, u64>,
}

impl Calls {
    /// Stores messages in one conversation, in their order; a result for each.
    pub(crate) async fn send(
        &self,
        id: ConversationId,
        sender: UserId,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Result<Stored, Refusal>>, Refusal> {
        self.throttle.check(id.slot(), time::Instant::now())?;
        let count = messages.len();
        let request = SendRequest {
            conversation_id: id.to_bytes(),
            sender_id: sender.to_bytes(),
            messages,
        };
        let mut client = self.message(id.slot());
        let results = self.answer(client.send(request)).await?.results;
        same_count(count, results.len())?;
        let results = results.into_iter().map(|result| match result.result {
            Some(send_result::Result::Stored(stored)) => Ok(stored),
            Some(send_result::Result::NotDone(not_done)) => {
                let refusal = refusal_in(not_done);
                self.throttle.note(id.slot(), &refusal, time::Instant::now());
                Err(refusal)
            }
            None => Err(as_clients_read(&rpc::Refusal::default(), "no result")),
        });
        Ok(results.collect())
    }

    /// Reads history, for a member or, without one, for the feed of this edge.
    pub(crate) async fn history(
        &self,
        id: ConversationId,
        member: Option<UserId>,
        range: HistoryRange,
        limit: u32,
    ) -> Result<HistoryResponse, Refusal> {
        let (after_seq, before_seq) = match range {
            HistoryRange::After(seq) => (Some(seq), None),
            HistoryRange::Before(seq) => (None, Some(seq)),
            HistoryRange::Newest => (None, None),
        };
        let request = HistoryRequest {
            conversation_id: id.to_bytes(),
            user_id: member.map(|member| member.to_bytes()).unwrap_or_default(),
            after_seq,
            before_seq,
            limit,
        };
        let mut client = self.message(id.slot());
        self.answer(client.history(request)).await
    }

    /// Moves inboxes of conversations of one slot; a result for each.
    pub(crate) async fn move_inboxes(
        &self,
        slot: Slot,
        moves: Vec<InboxMove>,
    ) -> Result<Vec<Result<InboxMoved, Refusal>>, Refusal> {
        let count = moves.len();
        let mut client = self.message(slot);
        let request = MoveInboxesRequest { moves };
        let results = self.answer(client.move_inboxes(request)).await?.results;
        same_count(count, results.len())?;
        let results = results.into_iter().map(|result| match result.result {
            Some(move_inbox_result::Result::Moved(moved)) => Ok(moved),
            Some(move_inbox_result::Result::NotDone(not_done)) => Err(refusal_in(not_done)),
            None => Err(as_clients_read(&rpc::Refusal::default(), "no result")),
        });
        Ok(results.collect())
    }

    /// Marks a conversation read up to a seq.
    pub(crate) async fn read(&self, id: ConversationId, who: UserId, seq: Seq) -> Result<InboxMoved, Refusal> {
        let moves = InboxMove {
            conversation_id: id.to_bytes(),
            user_id: who.to_bytes(),
            delivered_seq: None,
            read_seq: Some(seq),
        };
        let results = self.move_inboxes(id.slot(), vec![moves]).await?;
        results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map(|mut moved| moved.pop().unwrap_or_default())
    }

    pub(crate) async fn typing(&self, id: ConversationId, who: UserId) -> Result<(), Refusal> {
        let request = TypingRequest {
            conversation_id: id.to_bytes(),
            user_id: who.to_bytes(),
        };
        let mut client = self.message(id.slot());
        self.answer(client.typing(request)).await?;
        Ok(())
    }

    /// Summaries of many conversations for one user, asked slot by slot, many slots at once. A slot that does not answer in time
    /// hides what it holds and nothing else.
    pub(crate) async fn summaries(&self, who: UserId, ids: impl IntoIterator<Item = ConversationId>) -> Summaries {
        let mut by_slot: BTreeMap<Slot, Vec<ConversationId>> = BTreeMap::new();
        for id in ids {
            by_slot.entry(id.slot()).or_default().push(id);
        }
        let asked = by_slot.into_iter().flat_map(|(slot, ids)| {
            let chunks: Vec<Vec<ConversationId>> = ids.chunks(SUMMARIES_MAX).map(<[_]>::to_vec).collect();
            chunks.into_iter().map(move |ids| (slot, ids))
        });
        // Where more slots are silent than are asked at once, the last of them are not waited for in full.
        let ends = Instant::now() + self.summary_timeout * 2;
        let answers = stream::iter(asked).map(|(slot, ids)| async move {
            let deadline = ends.min(Instant::now() + self.summary_timeout);
            let answer = self.summaries_of_slot(slot, who, &ids, deadline).await;
            (ids, answer)
        });
        let mut answers = answers.buffer_unordered(SLOTS_AT_ONCE);
        let mut summaries = Summaries::default();
        while let Some((ids, answer)) = answers.next().await {
            match answer {
                Ok(known) => summaries.known.extend(known),
                Err(refusal) => {
                    tracing::debug!(code = %refusal.code, refusal.message, "a slot gives no summaries");
                    let again_ms = refusal.retry_after_ms.unwrap_or(SUMMARY_AGAIN_MS);
                    summaries.unavailable.extend(ids.into_iter().map(|id| (id, again_ms)));
                }
            }
        }
        summaries
    }

    async fn summaries_of_slot(
        &self,
        slot: Slot,
        who: UserId,
        ids: &[ConversationId],
        deadline: Instant,
    ) -> Result<Vec<(ConversationId, Summary)>, Refusal> {
        let mut client = self.message(slot);
        let request = SummariesRequest {
            user_id: who.to_bytes(),
            conversation_ids: ids.iter().map(ConversationId::to_bytes).collect(),
        };
        let asked = timeout_at(deadline, self.answer(client.summaries(request))).await;
        let silent = || Refusal::new(ErrorCode::Unavailable, "the slot has not answered in time");
        let summaries = asked.map_err(|_| silent())??.summaries;
        summaries
            .into_iter()
            .map(|summary| Ok((conversation(&summary.conversation_id)?, summary)))
            .collect()
    }

    fn message(&self, slot: Slot) -> MessageClient<SlotRoute> {
        MessageClient::new(self.route.to(slot)).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// Checks that every part of a request was answered.
fn same_count(asked: usize, answered: usize) -> Result<(), Refusal> {
    if asked == answered {
        return Ok(());
    }
    tracing::error!(asked, answered, "a service has not answered every part of a request");
    Err(Refusal::new(
        ErrorCode::Internal,
        "the request failed inside the server",
    ))
}

fn refusal_in(not_done: NotDone) -> Refusal {
    as_clients_read(&not_done.refusal.unwrap_or_default(), &not_done.message)
}
