use std::{future::Future, sync::Arc};

use antiphon_types::{LogIndex, trace};
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use crate::{SlotError, SlotTxn};

/// A value and the log position that made it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed<T> {
    /// The value.
    pub value: T,
    /// Index of the entry; of the last entry that was seen where nothing was written.
    pub index: LogIndex,
}

/// A command in the slot's queue, its types erased.
pub(crate) trait Command: Send + Sync {
    /// Runs the body; true when it wants its writes kept. May run more than once: the last run counts.
    fn run<'a>(&'a self, txn: SlotTxn) -> BoxFuture<'a, bool>;

    /// Runs the body for what it reads, and forgets what it returns: that is not an answer.
    fn rehearse<'a>(&'a self, txn: SlotTxn) -> BoxFuture<'a, ()>;

    /// Answers with what the last run returned. The entry at `index` is at or below the high watermark.
    fn answer(&self, index: LogIndex);

    /// Answers with a failure of the slot.
    fn fail(&self, error: SlotError);

    /// It may wait a little for others to be committed with.
    fn is_patient(&self) -> bool;

    /// The request's span.
    fn span(&self) -> &Span;

    /// The request's trace context; empty when it is not sampled.
    fn traceparent(&self) -> &str;
}

/// Where the answer of a command arrives.
pub(crate) type Answer<T, E> = oneshot::Receiver<Result<Committed<T>, E>>;

/// Pairs a body with the receiver of its answer.
pub(crate) fn command<T, E, F, Fut>(body: F, is_patient: bool) -> (Arc<dyn Command>, Answer<T, E>)
where
    T: Send + 'static,
    E: From<SlotError> + Send + 'static,
    F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let span = Span::current();
    let traceparent = trace::of(&span);
    let state = Mutex::new(State {
        result: None,
        reply: Some(reply),
    });
    (
        Arc::new(Typed {
            body,
            is_patient,
            state,
            span,
            traceparent,
        }),
        answer,
    )
}

struct Typed<T, E, F> {
    body: F,
    is_patient: bool,
    state: Mutex<State<T, E>>,
    span: Span,
    traceparent: String,
}

struct State<T, E> {
    result: Option<Result<T, E>>,
    reply: Option<oneshot::Sender<Result<Committed<T>, E>>>,
}

impl<T, E, F, Fut> Command for Typed<T, E, F>
where
    T: Send + 'static,
    E: From<SlotError> + Send + 'static,
    F: Fn(SlotTxn) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    fn run<'a>(&'a self, txn: SlotTxn) -> BoxFuture<'a, bool> {
        let body = (self.body)(txn).instrument(self.span.clone());
        async move {
            let result = body.await;
            let keep = result.is_ok();
            self.state.lock().result = Some(result);
            keep
        }
        .boxed()
    }

    fn rehearse<'a>(&'a self, txn: SlotTxn) -> BoxFuture<'a, ()> {
        (self.body)(txn).instrument(self.span.clone()).map(drop).boxed()
    }

    fn answer(&self, index: LogIndex) {
        let mut state = self.state.lock();
        if let (Some(reply), Some(result)) = (state.reply.take(), state.result.take()) {
            // The caller may have stopped waiting.
            let _ = reply.send(result.map(|value| Committed { value, index }));
        }
    }

    fn fail(&self, error: SlotError) {
        if let Some(reply) = self.state.lock().reply.take() {
            let _ = reply.send(Err(error.into()));
        }
    }

    fn is_patient(&self) -> bool {
        self.is_patient
    }

    fn span(&self) -> &Span {
        &self.span
    }

    fn traceparent(&self) -> &str {
        &self.traceparent
    }
}
