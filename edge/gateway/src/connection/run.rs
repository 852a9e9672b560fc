//! One connection: a single task that reads, writes and carries out what its session asks.

use std::{sync::Arc, time::Duration};

use antiphon_proto::{Codec, client::server_frame::Body, rpc::NewMessage};
use antiphon_session::{CloseReason, HelloRequest, Incoming, Output, Refusal, Send, Session, Ticket};
use antiphon_types::{ConversationId, TimestampMs, UserId};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, timeout},
};

use super::{catch_up, hello, requests, resume, sends::Sends};
use crate::{
    hub::{SessionHandle, Task},
    shared::Shared,
    transport::{Gone, Received, Transport},
};

/// What a future of the session has come to.
pub(super) enum Done {
    Reply(Ticket, Result<Body, Refusal>),
    /// Messages of this user in a conversation were answered.
    Sent(UserId, ConversationId, Vec<(Sending, Result<Body, Refusal>)>),
    Reauth(Ticket, Result<TimestampMs, Refusal>),
    /// A session was brought up in a conversation.
    CaughtUp,
}

/// A message that is not answered yet, and the room that it takes.
type Sending = (Ticket, OwnedSemaphorePermit);

type Work = FuturesUnordered<BoxFuture<'static, Done>>;

/// Runs a connection until it is closed. Not an `async fn`: that would keep its arguments beside what it makes of them, for as long as
/// the connection lives.
pub(crate) fn run<T: Transport>(
    shared: Arc<Shared>,
    transport: T,
    codec: Codec,
) -> impl Future<Output = ()> + std::marker::Send {
    let options = shared.session_options.clone();
    let handle = SessionHandle::new(shared.next_key(), codec, options, shared.clock.now_ms());
    shared.newcomers.insert(&handle);
    let mut connection = Connection {
        shared,
        transport,
        handle,
        work: Work::new(),
        sends: Sends::new(),
        opened: None,
    };
    async move {
        let reason = connection.run().await;
        connection.end(reason);
    }
}

struct Connection<T> {
    shared: Arc<Shared>,
    transport: T,
    handle: Arc<SessionHandle>,
    work: Work,
    sends: Sends<Sending>,
    /// Set once Hello was accepted.
    opened: Option<hello::Opened>,
}

impl<T: Transport> Connection<T> {
    async fn run(&mut self) -> CloseReason {
        let sleep = tokio::time::sleep(Duration::ZERO);
        let mut sleep = std::pin::pin!(sleep);
        let mut armed_ms = 0;
        loop {
            if let Some(reason) = self.write_out().await {
                return reason;
            }
            self.take_tasks();
            let (wants_input, timeout_ms) = self
                .handle
                .with(|session| (session.wants_input(), session.next_timeout_ms()));
            self.count();
            self.arm(sleep.as_mut(), &mut armed_ms, timeout_ms);
            tokio::select! {
                received = self.transport.receive(), if wants_input => {
                    if !self.take(received) {
                        return CloseReason::Disconnected;
                    }
                }
                () = self.handle.woken() => {}
                Some(done) = self.work.next(), if !self.work.is_empty() => self.finish(done),
                () = sleep.as_mut() => {
                    armed_ms = 0;
                    // What has come in time counts, also where this edge is late in reading it.
                    let waiting = wants_input.then(|| self.transport.receive().now_or_never()).flatten();
                    if waiting.is_some_and(|received| !self.take(received)) {
                        return CloseReason::Disconnected;
                    }
                    let now_ms = self.shared.clock.now_ms();
                    self.handle.with(|session| session.handle_timeout(now_ms));
                }
            }
        }
    }

    /// Sets the timer when it would fire too late. One that fires early costs less than setting it at each frame.
    fn arm(&self, sleep: std::pin::Pin<&mut Sleep>, armed_ms: &mut TimestampMs, timeout_ms: Option<TimestampMs>) {
        let Some(timeout_ms) = timeout_ms else { return };
        if *armed_ms != 0 && *armed_ms <= timeout_ms {
            return;
        }
        *armed_ms = timeout_ms.max(1);
        let wait_ms = timeout_ms
            .saturating_sub(self.shared.clock.now_ms())
            .clamp(1, 24 * 60 * 60 * 1_000);
        sleep.reset(Instant::now() + Duration::from_millis(wait_ms));
    }

    /// Does what the session wants done; the reason when it has ended.
    async fn write_out(&mut self) -> Option<CloseReason> {
        let mut has_written = false;
        while let Some(output) = self.handle.with(Session::poll_output) {
            match output {
                Output::Frame(frame) => {
                    has_written = true;
                    if let Some(reason) = self.feed(frame).await {
                        return Some(reason);
                    }
                }
                Output::Fleeting(frame) => {
                    if let Err(frame) = self.transport.send_datagram(frame) {
                        has_written = true;
                        if let Some(reason) = self.feed(frame).await {
                            return Some(reason);
                        }
                    }
                }
                Output::Hello(ticket, hello) => self.greet(ticket, *hello).await,
                Output::Reauth { ticket, access_token } => {
                    self.work.push(self.reauth(ticket, access_token));
                }
                Output::Send { ticket, send } => match requests::admit_send(&self.shared, &self.handle) {
                    Ok((who, room)) => self.send(who, (ticket, room), send),
                    Err(refusal) => self.handle.with(|session| session.reply(ticket, Err(refusal))),
                },
                Output::Request { ticket, request } => match requests::admit(&self.shared, &self.handle) {
                    Ok(who) => {
                        let answer = requests::carry_out(&self.shared, &self.handle, who, request);
                        self.work.push(answer.map(|answer| Done::Reply(ticket, answer)).boxed());
                    }
                    Err(refusal) => self.handle.with(|session| session.reply(ticket, Err(refusal))),
                },
                Output::Close(reason) => {
                    let _ = timeout(self.shared.options.write_timeout(), self.transport.close(reason)).await;
                    return Some(reason);
                }
            }
        }
        if has_written {
            let flushed = timeout(self.shared.options.write_timeout(), self.transport.flush()).await;
            if !matches!(flushed, Ok(Ok(()))) {
                return Some(gone(flushed.is_err()));
            }
        }
        self.handle.has_written();
        None
    }

    async fn feed(&mut self, frame: Bytes) -> Option<CloseReason> {
        let fed = timeout(self.shared.options.write_timeout(), self.transport.feed(frame)).await;
        match fed {
            Ok(Ok(())) => None,
            Ok(Err(Gone)) => Some(gone(false)),
            Err(_) => Some(gone(true)),
        }
    }

    /// Takes what came; false when the connection is gone.
    fn take(&mut self, received: Received) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.handle.with(|session| {
            match received {
                Received::Text(text) => session.handle_frame(Incoming::Text(&text), now_ms),
                Received::Binary(bytes) => session.handle_frame(Incoming::Binary(&bytes), now_ms),
                Received::Datagram(bytes) => session.handle_datagram(&bytes, now_ms),
                Received::SignOfLife => session.handle_sign_of_life(now_ms),
                Received::Broken(refusal, reason) => session.handle_broken_transport(refusal, reason),
                Received::Ended => return false,
            }
            true
        })
    }

    async fn greet(&mut self, ticket: Ticket, hello: HelloRequest) {
        let greeted = hello::greet(&self.shared, &self.handle, hello).boxed().await;
        let now_ms = self.shared.clock.now_ms();
        match greeted {
            Ok(mut opened) => {
                let accepted = opened.accepted(&self.shared, &self.handle);
                self.handle.with(|session| session.accept(ticket, accepted, now_ms));
                metrics::gauge!("antiphon_sessions", "transport" => T::NAME).increment(1);
                self.opened = Some(opened);
            }
            Err(refusal) => {
                self.shared.hub.end(&self.handle);
                self.handle.with(|session| session.refuse(ticket, refusal));
            }
        }
    }

    fn reauth(&self, ticket: Ticket, access_token: String) -> BoxFuture<'static, Done> {
        let (shared, handle) = (self.shared.clone(), self.handle.clone());
        async move { Done::Reauth(ticket, hello::reauth(&shared, &handle, &access_token).await) }.boxed()
    }

    fn send(&mut self, who: UserId, sending: Sending, send: Send) {
        let message = NewMessage {
            client_msg_id: send.client_msg_id.to_string(),
            text: send.text,
        };
        if let Some(sends) = self.sends.add(send.conversation_id, sending, message) {
            self.start_sends(who, send.conversation_id, sends);
        }
    }

    fn start_sends(&self, who: UserId, conversation: ConversationId, sends: Vec<(Sending, NewMessage)>) {
        let answers = requests::send(&self.shared, who, conversation, sends);
        self.work.push(
            answers
                .map(move |answers| Done::Sent(who, conversation, answers))
                .boxed(),
        );
    }

    /// Starts what others have given this session to do.
    fn take_tasks(&mut self) {
        for task in self.handle.take_tasks() {
            let (shared, handle) = (self.shared.clone(), self.handle.clone());
            self.work.push(match task {
                Task::CatchUp(id, start) => async move {
                    catch_up::run(&shared, &handle, id, start).await;
                    Done::CaughtUp
                }
                .boxed(),
                Task::Resume(waiting) => async move {
                    resume::run(&shared, &handle, waiting).await;
                    Done::CaughtUp
                }
                .boxed(),
                Task::ReadList => async move {
                    catch_up::read_list(&shared, &handle).await;
                    Done::CaughtUp
                }
                .boxed(),
            });
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Reply(ticket, answer) => self.handle.with(|session| session.reply(ticket, answer)),
            Done::Sent(who, conversation, answers) => {
                if let Some(sends) = self.sends.answered(conversation) {
                    self.start_sends(who, conversation, sends);
                }
                self.handle.with(|session| {
                    for ((ticket, _), answer) in answers {
                        session.reply(ticket, answer);
                    }
                });
            }
            Done::Reauth(ticket, Ok(expires_at_ms)) => {
                self.handle
                    .with(|session| session.reauthenticated(ticket, expires_at_ms));
            }
            Done::Reauth(ticket, Err(refusal)) => {
                self.handle.with(|session| session.reply(ticket, Err(refusal)));
            }
            Done::CaughtUp => {}
        }
    }

    /// Hands what the session has counted to the metrics.
    fn count(&self) {
        let counts = self.handle.with(Session::take_counts);
        if counts.lagged > 0 {
            metrics::counter!("antiphon_lagged_total").increment(counts.lagged);
        }
        for code in counts.refused {
            metrics::counter!("antiphon_rejections_total", "code" => code.as_str()).increment(1);
        }
    }

    fn end(self, reason: CloseReason) {
        self.shared.newcomers.remove(&self.handle);
        self.shared.hub.end(&self.handle);
        self.count();
        let Some(opened) = self.opened else { return };
        metrics::gauge!("antiphon_sessions", "transport" => T::NAME).decrement(1);
        metrics::counter!("antiphon_sessions_closed_total", "reason" => reason.as_str()).increment(1);
        opened.closed(&self.shared, reason);
    }
}

fn gone(was_too_slow: bool) -> CloseReason {
    if was_too_slow {
        CloseReason::SlowReader
    } else {
        CloseReason::Disconnected
    }
}
