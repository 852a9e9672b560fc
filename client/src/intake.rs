//! What the app has handed over and the driver has not taken yet.

use std::{collections::HashMap, sync::Arc};

use antiphon_proto::client::Send;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{ClientError, OutboxFull, SendError, Sent};

/// Handing over never waits for the driver, which may be busy with the network; what waits here is bounded all the same: a message
/// takes a place of the outbox at once, and marks of a conversation become one.
pub(crate) struct Intake {
    waiting: Mutex<Waiting>,
    is_changed: Notify,
    places: Arc<Semaphore>,
    places_max: usize,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<WaitingMessage>,
    marks: HashMap<String, WaitingMark>,
    is_stopped: bool,
}

/// A message and who wants to know where it is.
pub(crate) struct WaitingMessage {
    pub(crate) message: Send,
    pub(crate) answer: SendAnswer,
}

/// Whoever waits for a message; it holds its place of the outbox until it is answered.
pub(crate) struct SendAnswer {
    sender: oneshot::Sender<Result<Sent, SendError>>,
    place: OwnedSemaphorePermit,
}

impl SendAnswer {
    pub(crate) fn send(self, result: Result<Sent, SendError>) {
        // Whoever hears of the answer may count on the place.
        drop(self.place);
        // Whoever sent it may not wait for it.
        let _ = self.sender.send(result);
    }
}

/// Whoever waits for a read mark.
pub(crate) type MarkAnswer = oneshot::Sender<Result<(), ClientError>>;

/// How far a conversation is read, and who wants to know when each seq is confirmed.
#[derive(Default)]
pub(crate) struct WaitingMark {
    pub(crate) seq: u64,
    pub(crate) answers: Vec<(u64, MarkAnswer)>,
}

impl Intake {
    /// Room for so many messages at once, those included that the driver has taken and nobody has answered.
    pub(crate) fn new(places_max: usize) -> Self {
        let places_max = places_max.min(Semaphore::MAX_PERMITS);
        Self {
            waiting: Mutex::default(),
            is_changed: Notify::new(),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
        }
    }

    /// Takes a message. The answer comes to nothing when the driver has stopped.
    pub(crate) fn send(&self, message: Send) -> Result<oneshot::Receiver<Result<Sent, SendError>>, OutboxFull> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(OutboxFull { limit: self.places_max });
        };
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.is_stopped {
            return Ok(answer);
        }
        let answer_to = SendAnswer { sender, place };
        waiting.messages.push(WaitingMessage {
            message,
            answer: answer_to,
        });
        drop(waiting);
        self.is_changed.notify_one();
        Ok(answer)
    }

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

    /// The messages handed over, in order.
    pub(crate) fn take_messages(&self) -> Vec<WaitingMessage> {
        std::mem::take(&mut self.waiting.lock().messages)
    }

    pub(crate) fn take_marks(&self) -> HashMap<String, WaitingMark> {
        std::mem::take(&mut self.waiting.lock().marks)
    }

    /// The driver is gone: nothing is taken any more, and nobody is left waiting.
    pub(crate) fn stop(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_stopped = true;
        waiting.messages.clear();
        waiting.marks.clear();
    }
}
