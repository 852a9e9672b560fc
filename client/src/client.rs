use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use antiphon_proto::client::{self as frames, server_frame::Body};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    Account, CoreOptions, Event, OutboxFull, Request, SendError, Tokens, Transport, driver::Driver, intake::Intake,
};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The edge, as in `http://127.0.0.1:7400`.
    pub server: String,
    /// SHA-256, lower-case hex, of the only certificate to take over HTTPS; none: those that the system's authorities vouch for.
    pub certificate_sha256: Option<String>,
    /// The installed app, as given at log-in.
    pub device_id: String,
    /// The last seq held of each conversation, from the process before.
    pub cursors: HashMap<String, u64>,
    /// Bounds and intervals of the session.
    pub core: CoreOptions,
    /// Events that may wait for the app; a slow app slows down reading.
    pub events_len_max: usize,
    /// The longest first pause before connecting again.
    pub reconnect_base_ms: u64,
    /// The longest pause.
    pub reconnect_max_ms: u64,
    /// How long connecting and the welcome may take.
    pub connect_timeout: Duration,
    /// The only transport to use; none: whichever gets through first.
    pub transport: Option<Transport>,
    /// How long one transport is tried before the next one is tried beside it.
    pub head_start: Duration,
    /// How long nothing may be written before a ping is, so that whatever forgets connections on the way does not forget this one. Longer
    /// lets a radio sleep; more than half of the server's heartbeat is shortened to that.
    pub keep_alive: Duration,
    /// How long the server may be silent after something was written. Half of it, and it is asked for a sign of life.
    pub silence_max: Duration,
}

impl ClientOptions {
    /// The defaults for a device at an edge.
    #[must_use]
    pub fn new(server: &str, device_id: &str) -> Self {
        Self {
            server: server.trim_end_matches('/').to_owned(),
            certificate_sha256: None,
            device_id: device_id.to_owned(),
            cursors: HashMap::new(),
            core: CoreOptions::default(),
            events_len_max: 1_024,
            reconnect_base_ms: 250,
            reconnect_max_ms: 30_000,
            connect_timeout: Duration::from_secs(10),
            transport: None,
            head_start: Duration::from_millis(250),
            keep_alive: Duration::from_secs(15),
            silence_max: Duration::from_secs(12),
        }
    }
}

/// Why a request had no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server refused it, or the connection was lost.
    #[error("{code}: {message}")]
    Refused {
        /// Upper snake case code; `UNAVAILABLE` when there was no connection.
        code: String,
        /// What is wrong.
        message: String,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
    /// The answer was of another kind than the request.
    #[error("the server's answer does not belong to the request")]
    Unexpected,
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

impl From<frames::Error> for ClientError {
    fn from(error: frames::Error) -> Self {
        Self::Refused {
            code: error.code,
            message: error.message,
            retry_after_ms: error.retry_after_ms,
        }
    }
}

/// A session that survives the network. Cheap to clone; it ends when [`Client::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    intake: Arc<Intake>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What the app asks of the driver.
pub(crate) enum Command {
    Request {
        request: Request,
        answer: oneshot::Sender<Result<Box<Body>, frames::Error>>,
    },
    Typing {
        conversation_id: String,
    },
    NetworkChanged,
    Cursors {
        answer: oneshot::Sender<HashMap<String, u64>>,
    },
    Close,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The idempotency key it was sent under.
    pub client_msg_id: String,
    /// Its number in the conversation.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub sent_at_ms: u64,
    /// How often it was transmitted: more than once after a refusal for now or a lost connection.
    pub attempts: u32,
}

/// A message in the outbox: await [`Sending::sent`], or drop it and the message is sent all the same.
#[derive(Debug)]
pub struct Sending {
    client_msg_id: String,
    answer: oneshot::Receiver<Result<Sent, SendError>>,
}

impl Sending {
    /// The idempotency key it is sent under.
    #[must_use]
    pub fn client_msg_id(&self) -> &str {
        &self.client_msg_id
    }

    /// Waits until the message is durable.
    ///
    /// # Errors
    /// [`SendError::Refused`] when it was refused for good; [`SendError::Stopped`] when the client stopped before it was answered.
    pub async fn sent(self) -> Result<Sent, SendError> {
        self.answer.await.unwrap_or(Err(SendError::Stopped))
    }
}

/// A read mark on its way: await [`Marking::marked`], or drop it and the mark is sent all the same.
#[derive(Debug)]
pub struct Marking {
    answer: oneshot::Receiver<Result<(), ClientError>>,
}

impl Marking {
    /// Waits until the server has confirmed this mark or a later one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the mark was refused for good: there is no such conversation, or it has no such seq.
    /// [`ClientError::Stopped`].
    pub async fn marked(self) -> Result<(), ClientError> {
        self.answer.await.unwrap_or(Err(ClientError::Stopped))
    }
}

/// Commands that may wait for the driver.
const COMMANDS_LEN_MAX: usize = 1_024;

impl Client {
    /// Starts a session with the tokens of a log-in; events come on the receiver.
    #[must_use]
    pub fn start(options: ClientOptions, tokens: Tokens) -> (Self, mpsc::Receiver<Event>, JoinHandle<()>) {
        let (commands, to_driver) = mpsc::channel(COMMANDS_LEN_MAX);
        let (to_app, events) = mpsc::channel(options.events_len_max);
        let account = Account::pinned(&options.server, options.certificate_sha256.as_deref());
        let intake = Arc::new(Intake::new(options.core.outbox_len_max));
        let driver = Driver::new(options, account, tokens, to_driver, Arc::clone(&intake), to_app);
        (Self { commands, intake }, events, tokio::spawn(driver.run()))
    }

    /// Puts a message into the outbox under a new idempotency key; returns at once, whether there is a connection or not.
    ///
    /// # Errors
    /// [`OutboxFull`] when [`CoreOptions::outbox_len_max`] messages wait for their answer. The message was not taken: wait for the
    /// [`Sending::sent`] of an earlier one and send it again, or tell the user.
    pub fn send(&self, conversation_id: &str, text: &str) -> Result<Sending, OutboxFull> {
        self.send_as(conversation_id, &new_client_msg_id(), text)
    }

    /// As [`Client::send`] under a key of the app's own, for a message that it has kept across a restart.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_as(&self, conversation_id: &str, client_msg_id: &str, text: &str) -> Result<Sending, OutboxFull> {
        let message = frames::Send {
            conversation_id: conversation_id.to_owned(),
            client_msg_id: client_msg_id.to_owned(),
            text: text.to_owned(),
        };
        Ok(Sending {
            client_msg_id: client_msg_id.to_owned(),
            answer: self.intake.send(message)?,
        })
    }

    /// Marks everything up to `seq` as read; returns at once, whether there is a connection or not.
    ///
    /// The mark is sent until the server has answered it, across reconnects. Of several marks of a conversation the highest counts,
    /// so this may be called for every message that is shown; a mark below one that was made before changes nothing. A mark beyond
    /// the last message is refused, and with it those below it that had not been sent yet.
    #[allow(clippy::must_use_candidate, reason = "most apps have no use for the confirmation")]
    pub fn read(&self, conversation_id: &str, seq: u64) -> Marking {
        Marking {
            answer: self.intake.read(conversation_id, seq),
        }
    }

    /// Says that the user is typing.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn typing(&self, conversation_id: &str) -> Result<(), ClientError> {
        self.command(Command::Typing {
            conversation_id: conversation_id.to_owned(),
        })
        .await
    }

    /// Reads a page of history.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self, fetch: frames::Fetch) -> Result<frames::Page, ClientError> {
        let Body::Page(page) = *self.request(Request::Fetch(fetch)).await? else {
            return Err(ClientError::Unexpected);
        };
        Ok(page)
    }

    /// Lists conversations, most recently active first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sync(&self, limit: u32, cursor: &str) -> Result<frames::Conversations, ClientError> {
        let sync = frames::Sync {
            limit,
            cursor: cursor.to_owned(),
        };
        let Body::Conversations(page) = *self.request(Request::Sync(sync)).await? else {
            return Err(ClientError::Unexpected);
        };
        Ok(page)
    }

    /// Asks who is online and hears of changes from then on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn presence(&self, user_ids: Vec<String>) -> Result<Vec<frames::Presence>, ClientError> {
        let request = Request::Presence(frames::PresenceQuery { user_ids });
        let Body::Presences(list) = *self.request(request).await? else {
            return Err(ClientError::Unexpected);
        };
        Ok(list.presences)
    }

    /// The last seq held of each conversation: what to start the next process with.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn cursors(&self) -> Result<HashMap<String, u64>, ClientError> {
        let (answer, cursors) = oneshot::channel();
        self.command(Command::Cursors { answer }).await?;
        cursors.await.map_err(|_| ClientError::Stopped)
    }

    /// Says that the device has another network now, as phones are told. Over QUIC the session goes on from there; over others the
    /// connection is tried at once, and opened again if nothing comes back.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn network_changed(&self) -> Result<(), ClientError> {
        self.command(Command::NetworkChanged).await
    }

    /// Ends the session. Messages in the outbox and read marks are not waited for.
    pub async fn close(&self) {
        let _ = self.command(Command::Close).await;
    }

    async fn request(&self, request: Request) -> Result<Box<Body>, ClientError> {
        let (sender, answer) = oneshot::channel();
        self.command(Command::Request {
            request,
            answer: sender,
        })
        .await?;
        Ok(answer.await.map_err(|_| ClientError::Stopped)??)
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Stopped)
    }
}

fn new_client_msg_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
