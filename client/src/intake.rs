//! What the app has handed over and the driver has not taken yet.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::ClientError;

/// Whoever waits for a read mark.
pub(crate) type MarkAnswer = oneshot::Sender<Result<(), ClientError>>;

/// Handing over never waits for the driver, which may be busy with the network; what waits here is bounded all the same: marks of a
/// conversation become one.
#[derive(Default)]
pub(crate) struct Intake {
    waiting: Mutex<Waiting>,
    is_changed: Notify,
}

#[derive(Default)]
struct Waiting {
    marks: HashMap<String, WaitingMark>,
    is_stopped: bool,
}

/// How far a conversation is read, and who wants to know when each seq is confirmed.
#[derive(Default)]
pub(crate) struct WaitingMark {
    pub(crate) seq: u64,
    pub(crate) answers: Vec<(u64, MarkAnswer)>,
}

impl Intake {
    /// Takes a read mark. The answer comes to nothing when the driver has stopped.
    pub(crate) fn read(&self, conversation_id: &str, seq: u64) -> oneshot::Receiver<Result<(), ClientError>> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.is_stopped {
            return answer;
        }
        let mark = waiting.marks.entry(conversation_id.to_owned()).or_default();
        mark.seq = mark.seq.max(seq);
        // Most apps do not wait for marks: what nobody waits for is not kept.
        mark.answers.retain(|(_, answer)| !answer.is_closed());
        mark.answers.push((seq, sender));
        drop(waiting);
        self.is_changed.notify_one();
        answer
    }

    /// Waits until there may be something to take. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.is_changed.notified().await;
    }

    pub(crate) fn take_marks(&self) -> HashMap<String, WaitingMark> {
        std::mem::take(&mut self.waiting.lock().marks)
    }

    /// The driver is gone: nothing is taken any more, and nobody is left waiting.
    pub(crate) fn stop(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_stopped = true;
        waiting.marks.clear();
    }
}
