//! The shell around [`crate::Core`]: the socket, the clock, the tokens.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use antiphon_proto::client::{self, ClientFrame, Welcome, client_frame, server_frame::Body};
use antiphon_types::Clock;
use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    Account, Backoff, ClientError, ClientOptions, Core, Event, Output, Request, Sent, Tokens,
    client::Command,
    connection::{Connection, Connector},
    edges::Edges,
    intake::{Intake, MarkAnswer, SendAnswer, WaitingMessage},
    quiet::Quiet,
    tokens::{Keeper, Renewal},
};

pub(crate) struct Driver {
    options: ClientOptions,
    core: Core,
    keeper: Keeper,
    edges: Edges,
    connector: Connector,
    commands: mpsc::Receiver<Command>,
    intake: Arc<Intake>,
    to_app: mpsc::Sender<Event>,
    events: VecDeque<Event>,
    /// Client message id and who waits, by the core's number.
    sends: HashMap<u64, (String, SendAnswer)>,
    /// Who waits for read marks, by conversation and seq.
    marks: HashMap<String, Vec<(u64, MarkAnswer)>>,
    requests: HashMap<u64, oneshot::Sender<Result<Box<Body>, client::Error>>>,
    clock: Clock,
    backoff: Backoff,
    /// The server said when to come back.
    come_back_after: Option<Duration>,
    is_token_refused: bool,
}

/// Why a connection, or the client, is over.
enum Ended {
    /// Try again.
    Lost(String),
    /// The log-in is over.
    LoggedOut(String),
    /// The app has closed the client.
    Closed,
}

/// A connection that lived this long starts the pauses from the shortest again.
const HEALTHY: Duration = Duration::from_secs(10);

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(50);

/// How long a renewal that failed for want of a server waits.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Cursors that one hello may hold when the server has not said how many.
const CURSORS_MAX: usize = 1_000;

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        account: Account,
        tokens: Tokens,
        commands: mpsc::Receiver<Command>,
        intake: Arc<Intake>,
        to_app: mpsc::Sender<Event>,
    ) -> Self {
        let edges = Edges::new(&options.server);
        let connector = Connector::new(
            options.transport,
            options.head_start,
            options.certificate_sha256.as_deref(),
        );
        let core = Core::new(options.core.clone(), options.cursors.clone());
        let backoff = Backoff::new(options.reconnect_base_ms, options.reconnect_max_ms);
        Self {
            options,
            core,
            keeper: Keeper::new(account, tokens),
            edges,
            connector,
            commands,
            intake,
            to_app,
            events: VecDeque::new(),
            sends: HashMap::new(),
            marks: HashMap::new(),
            requests: HashMap::new(),
            clock: Clock::system(),
            backoff,
            come_back_after: None,
            is_token_refused: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let started = Instant::now();
            let ended = match self.open().await {
                Ok((connection, mut welcome)) => {
                    self.edges.welcomed(std::mem::take(&mut welcome.edges));
                    self.serve(connection, welcome).await
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Closed => return,
                Ended::LoggedOut(reason) => {
                    self.core.disconnected(reason.clone());
                    self.collect();
                    self.events.push_back(Event::LoggedOut { reason });
                    while let Some(event) = self.events.pop_front() {
                        if self.to_app.send(event).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
                Ended::Lost(reason) => self.core.disconnected(reason),
            }
            self.collect();
            if started.elapsed() > HEALTHY {
                self.backoff.reset();
            }
            let told = self.come_back_after.take();
            let pause = told.unwrap_or_else(|| self.backoff.pause(rand::random()));
            if self.wait(pause).await.is_err() {
                return;
            }
        }
    }

    /// Connects and says hello, with an access token that is still good.
    async fn open(&mut self) -> Result<(Connection, Welcome), Ended> {
        if self.is_token_refused || self.keeper.is_renewal_due() {
            match self.keeper.renewal(self.edges.first()).await {
                Renewal::Renewed(tokens) => self.renewed(tokens),
                Renewal::LoggedOut(reason) => return Err(Ended::LoggedOut(reason)),
                Renewal::Failed(reason) => return Err(self.not_reached(reason)),
            }
        }
        let within = self.options.connect_timeout;
        let hello = self
            .core
            .hello(self.keeper.access_token(), &self.options.device_id, CURSORS_MAX);
        let (connection, answer) = match self.connector.open(self.edges.first(), &hello, within).await {
            Ok(opened) => opened,
            Err(reason) => return Err(self.not_reached(reason)),
        };
        match answer.body {
            Some(Body::Welcome(welcome)) => Ok((connection, welcome)),
            Some(Body::Error(error)) => Err(self.hello_refused(&error)),
            Some(Body::Goaway(goaway)) => Err(self.sent_away(goaway)),
            _ => Err(Ended::Lost("the server did not welcome us".to_owned())),
        }
    }

    fn hello_refused(&mut self, error: &client::Error) -> Ended {
        match error.code.as_str() {
            "UNAUTHENTICATED" | "TOKEN_EXPIRED" => {
                self.is_token_refused = true;
                self.keeper.expire();
            }
            _ => {
                // Others were told the same time.
                let jitter = self.backoff.pause(rand::random());
                self.come_back_after = Some(Duration::from_millis(error.retry_after_ms.unwrap_or(0)) + jitter);
                self.edges.failed();
            }
        }
        Ended::Lost(format!("{}: {}", error.code, error.message))
    }

    fn not_reached(&mut self, reason: String) -> Ended {
        self.edges.failed();
        Ended::Lost(reason)
    }

    /// The edge asks us to come back, there or elsewhere.
    fn sent_away(&mut self, goaway: client::Goaway) -> Ended {
        self.come_back_after = Some(Duration::from_millis(goaway.reconnect_after_ms.into()));
        self.edges.sent_away(goaway.edges);
        Ended::Lost(goaway.reason)
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, mut connection: Connection, welcome: Welcome) -> Ended {
        let heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1)));
        let keep_alive = self.options.keep_alive.min(heartbeat / 2);
        self.core
            .connected(welcome, connection.transport(), self.clock.now_ms());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = Quiet::new();
        let mut renewal: OptionFuture<BoxFuture<'static, Renewal>> = None.into();
        let mut is_renewing = false;
        let (to_app, intake) = (self.to_app.clone(), Arc::clone(&self.intake));
        let mut is_closing = false;
        loop {
            self.gather();
            while let Some(output) = self.core.poll() {
                if let Output::Frame(frame) = &output {
                    quiet.written(!frame.id.is_empty());
                }
                if let Err(ended) = self.act(output, &mut connection).await {
                    if !matches!(ended, Ended::Closed) {
                        connection.close().await;
                    }
                    return ended;
                }
            }
            if is_closing {
                connection.close().await;
                return Ended::Closed;
            }
            tokio::select! {
                // A slow app slows down reading, and nothing else.
                frame = connection.receive(), if self.events.is_empty() => match frame {
                    Ok(frame) => {
                        quiet.heard();
                        self.core.receive(frame, self.clock.now_ms());
                    }
                    Err(reason) => return Ended::Lost(reason),
                },
                permit = to_app.reserve(), if !self.events.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.events.pop_front() { permit.send(event) },
                    Err(_) => return Ended::Closed,
                },
                command = self.commands.recv() => match command {
                    // What was handed over before is still transmitted.
                    Some(Command::Close) | None => is_closing = true,
                    Some(Command::NetworkChanged) => {
                        self.connector.forget_network();
                        connection.network_changed();
                        quiet.doubt();
                    }
                    Some(command) => self.take(command),
                },
                () = intake.changed() => {}
                Some(done) = &mut renewal, if is_renewing => {
                    is_renewing = false;
                    match done {
                        Renewal::Renewed(tokens) => {
                            let access_token = tokens.access_token.clone();
                            self.renewed(tokens);
                            self.core.request(Request::Reauth(client::Reauth { access_token }));
                        }
                        Renewal::LoggedOut(reason) => return Ended::LoggedOut(reason),
                        Renewal::Failed(_) => self.keeper.postpone(RENEWAL_PAUSE),
                    }
                }
                _ = tick.tick() => {
                    let is_deaf = !self.events.is_empty();
                    if is_deaf {
                        quiet.heard();
                    }
                    if let Some(silent) = quiet.is_lost(self.options.silence_max) {
                        return Ended::Lost(format!("the server was silent for {} ms", silent.as_millis()));
                    }
                    if quiet.is_ping_due(keep_alive, self.options.silence_max) {
                        quiet.pinged();
                        let ping = ClientFrame { id: "ping".into(), body: Some(client_frame::Body::Ping(client::Ping {})) };
                        if let Err(reason) = connection.send(&ping).await {
                            return Ended::Lost(reason);
                        }
                    }
                    if !is_renewing && self.keeper.is_renewal_due() {
                        is_renewing = true;
                        renewal = Some(self.keeper.renewal(self.edges.first()).boxed()).into();
                    }
                    self.core.tick(self.clock.now_ms());
                }
            }
        }
    }

    async fn act(&mut self, output: Output, connection: &mut Connection) -> Result<(), Ended> {
        match output {
            Output::Frame(frame) if is_fleeting(&frame) => connection.send_fleeting(&frame).await.map_err(Ended::Lost),
            Output::Frame(frame) => connection.send(&frame).await.map_err(Ended::Lost),
            Output::Goaway(goaway) => {
                if ["replaced", "revoked"].contains(&goaway.reason.as_str()) {
                    return Err(Ended::LoggedOut(goaway.reason));
                }
                Err(self.sent_away(goaway))
            }
            Output::Unauthenticated(error) => Err(self.hello_refused(&error)),
            other @ (Output::Event(_)
            | Output::Sent { .. }
            | Output::NotSent { .. }
            | Output::Marked { .. }
            | Output::NotMarked { .. }
            | Output::Answer { .. }) => {
                self.tell(other);
                Ok(())
            }
        }
    }

    /// Passes on what needs no connection.
    fn tell(&mut self, output: Output) {
        match output {
            Output::Event(event) => self.events.push_back(event),
            Output::Sent { number, sent, attempts } => {
                if let Some((client_msg_id, answer)) = self.sends.remove(&number) {
                    answer.send(Ok(Sent {
                        client_msg_id,
                        seq: sent.seq,
                        sent_at_ms: sent.sent_at_ms,
                        attempts,
                    }));
                }
            }
            Output::NotSent { number, error } => {
                if let Some((_, answer)) = self.sends.remove(&number) {
                    answer.send(Err(error));
                }
            }
            Output::Marked { conversation_id, seq } => self.settle_marks(&conversation_id, seq, &Ok(())),
            Output::NotMarked {
                conversation_id,
                seq,
                error,
            } => self.settle_marks(&conversation_id, seq, &Err(error.into())),
            Output::Answer { number, result } => {
                if let Some(answer) = self.requests.remove(&number) {
                    let _ = answer.send(result);
                }
            }
            Output::Frame(_) | Output::Goaway(_) | Output::Unauthenticated(_) => {}
        }
    }

    /// Tells everybody who waits for `seq` or less.
    fn settle_marks(&mut self, conversation_id: &str, seq: u64, result: &Result<(), ClientError>) {
        let Some(answers) = self.marks.get_mut(conversation_id) else {
            return;
        };
        for (_, answer) in answers.extract_if(.., |(marked, _)| *marked <= seq) {
            let _ = answer.send(result.clone());
        }
        if answers.is_empty() {
            self.marks.remove(conversation_id);
        }
    }

    /// Takes what the app has handed over.
    fn gather(&mut self) {
        let now_ms = self.clock.now_ms();
        for WaitingMessage { message, answer } in self.intake.take_messages() {
            let client_msg_id = message.client_msg_id.clone();
            let taken = self
                .core
                .send(message.conversation_id, message.client_msg_id, message.text, now_ms);
            // Never refused: each holds a place of the outbox since the app handed it over.
            if let Ok(number) = taken {
                self.sends.insert(number, (client_msg_id, answer));
            }
        }
        for (conversation_id, mark) in self.intake.take_marks() {
            let answers = self.marks.entry(conversation_id.clone()).or_default();
            answers.retain(|(_, answer)| !answer.is_closed());
            answers.extend(mark.answers);
            self.core.read(conversation_id, mark.seq, now_ms);
        }
    }

    fn collect(&mut self) {
        while let Some(output) = self.core.poll() {
            self.tell(output);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Request { request, answer } => {
                let number = self.core.request(request);
                self.requests.insert(number, answer);
            }
            Command::Typing { conversation_id } => self.core.typing(conversation_id),
            Command::Cursors { answer } => {
                let _ = answer.send(self.core.cursors().into_iter().collect());
            }
            Command::NetworkChanged => self.connector.forget_network(),
            Command::Close => {}
        }
    }

    /// Waits before the next attempt; commands and events go on meanwhile.
    async fn wait(&mut self, pause: Duration) -> Result<(), ()> {
        let (to_app, intake) = (self.to_app.clone(), Arc::clone(&self.intake));
        let mut waited = std::pin::pin!(sleep(pause));
        loop {
            self.gather();
            self.collect();
            tokio::select! {
                () = &mut waited => return Ok(()),
                permit = to_app.reserve(), if !self.events.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.events.pop_front() { permit.send(event) },
                    Err(_) => return Err(()),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Close) | None => return Err(()),
                    Some(Command::NetworkChanged) => {
                        self.connector.forget_network();
                        return Ok(());
                    }
                    Some(command) => self.take(command),
                },
                () = intake.changed() => {}
            }
        }
    }

    fn renewed(&mut self, tokens: Tokens) {
        self.is_token_refused = false;
        self.events.push_back(Event::Tokens(tokens.clone()));
        self.keeper.renewed(tokens);
    }
}

/// Whether it is worth nothing a moment later, and nobody waits for an answer.
fn is_fleeting(frame: &ClientFrame) -> bool {
    frame.id.is_empty() && matches!(frame.body, Some(client_frame::Body::Typing(_)))
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.intake.stop();
    }
}
