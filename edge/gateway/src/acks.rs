//! What the devices here say they hold, gathered: while one call to a slot is under way, the next one collects.

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use antiphon_proto::rpc::InboxMove;
use antiphon_session::Refusal;
use antiphon_types::{ConversationId, ErrorCode, Seq, Slot, UserId};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::sleep};
use tokio_util::task::TaskTracker;

use crate::calls::Calls;

/// Acknowledgements that one call carries; the service takes no more, and a slot commits as many at once without waiting for others.
const CALL_LEN_MAX: usize = 512;
/// Acknowledgements that may wait for one slot.
const WAITING_MAX: usize = 65_536;
/// When to acknowledge again what found no room. It is cumulative: a later one says it too.
const AGAIN_MS: u64 = 1_000;
/// How often a slot is told that could not take it.
const ATTEMPTS_MAX: u32 = 10;

/// Acknowledgements on their way to the slots.
pub(crate) struct Acks {
    calls: Calls,
    tasks: TaskTracker,
    /// By slot. A slot that is here has a task that calls it.
    waiting: Arc<Mutex<AHashMap<Slot, Vec<Waiting>>>>,
}

struct Waiting {
    moves: InboxMove,
    /// None once the device was told that it is seen to.
    answer: Option<oneshot::Sender<Result<(), Refusal>>>,
    attempts: u32,
}

impl Waiting {
    /// Tells the device what came of it. One that may be tried again is returned: the device has said what it had to, and says it no more.
    fn told(mut self, result: Result<(), Refusal>) -> Option<Self> {
        self.attempts += 1;
        let is_again = matches!(&result, Err(refusal) if refusal.retry_after_ms.is_some());
        let is_again = is_again && self.attempts < ATTEMPTS_MAX;
        if self.answer.is_none() && result.is_err() && !is_again {
            metrics::counter!("antiphon_acks_given_up_total").increment(1);
        }
        if let Some(answer) = self.answer.take() {
            // The session may have ended.
            let _ = answer.send(if is_again { Ok(()) } else { result });
        }
        is_again.then_some(self)
    }
}

impl Acks {
    /// Calls go through `calls`, by tasks of `tasks`.
    pub(crate) fn new(calls: Calls, tasks: TaskTracker) -> Self {
        Self {
            calls,
            tasks,
            waiting: Arc::default(),
        }
    }

    /// Says that a device of `who` holds a conversation up to a seq. A slot that cannot take it now is told again, and the device need not
    /// wait for that.
    pub(crate) async fn delivered(&self, id: ConversationId, who: UserId, seq: Seq) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let moves = InboxMove {
            conversation_id: id.to_bytes(),
            user_id: who.to_bytes(),
            delivered_seq: Some(seq),
            read_seq: None,
        };
        let acks = Waiting {
            moves,
            answer: Some(answer),
            attempts: 0,
        };
        self.wait(id.slot(), acks)?;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    fn wait(&self, slot: Slot, acks: Waiting) -> Result<(), Refusal> {
        let mut waiting = self.waiting.lock();
        if let Some(others) = waiting.get_mut(&slot) {
            if others.len() >= WAITING_MAX {
                let message = format!("{WAITING_MAX} acknowledgements wait for the slot of the conversation");
                return Err(Refusal::new(ErrorCode::ResourceExhausted, message).retry_after(AGAIN_MS));
            }
            others.push(acks);
            return Ok(());
        }
        waiting.insert(slot, vec![acks]);
        self.tasks.spawn(carry(self.calls.clone(), self.waiting.clone(), slot));
        Ok(())
    }
}

/// Calls a slot until nothing waits for it.
async fn carry(calls: Calls, waiting: Arc<Mutex<AHashMap<Slot, Vec<Waiting>>>>, slot: Slot) {
    while let Some(acks) = next(&waiting, slot) {
        let moves = acks.iter().map(|acks| acks.moves.clone()).collect();
        let results = calls.move_inboxes(slot, moves).await;
        let results = results.unwrap_or_else(|refusal| vec![Err(refusal); acks.len()]);
        let wait_ms = results
            .iter()
            .filter_map(|result| result.as_ref().err()?.retry_after_ms)
            .max();
        let told = acks.into_iter().zip(results);
        let again: Vec<_> = told.filter_map(|(acks, result)| acks.told(result.map(drop))).collect();
        if let (Some(wait_ms), false) = (wait_ms, again.is_empty()) {
            put_back(&waiting, slot, again);
            sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// What is to be tried again is the first of the next call.
fn put_back(waiting: &Mutex<AHashMap<Slot, Vec<Waiting>>>, slot: Slot, again: Vec<Waiting>) {
    if let Some(waiting) = waiting.lock().get_mut(&slot) {
        waiting.splice(..0, again);
        waiting.truncate(WAITING_MAX);
    }
}

/// What the next call carries; forgets a slot that nothing waits for.
fn next(waiting: &Mutex<AHashMap<Slot, Vec<Waiting>>>, slot: Slot) -> Option<Vec<Waiting>> {
    let mut waiting = waiting.lock();
    let acks = waiting.get_mut(&slot)?;
    if acks.is_empty() {
        waiting.remove(&slot);
        return None;
    }
    let rest = acks.split_off(acks.len().min(CALL_LEN_MAX));
    Some(std::mem::replace(acks, rest))
}

fn ending() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "this edge is ending").retry_after(AGAIN_MS)
}
