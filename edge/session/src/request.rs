use antiphon_proto::client::{Hello, client_frame::Body};
use antiphon_types::{ClientMsgId, ConversationId, DeviceId, ErrorCode, IdError, NameError, Seq, UserId};

use crate::{HelloRequest, Refusal, SessionOptions};

/// Users that one request may ask the presence of.
pub(crate) const PRESENCE_USERS_MAX: usize = 100;

/// A message that a device sends; answered with `sent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub conversation_id: ConversationId,
    /// The idempotency key.
    pub client_msg_id: ClientMsgId,
    /// The text.
    pub text: String,
}

/// Any other request of a device with its fields read: once it exists, its form is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Everything up to this seq is on the device; answered with `ok`.
    Ack {
        /// Of which conversation.
        conversation_id: ConversationId,
        /// Cumulative.
        delivered_seq: Seq,
    },
    /// Everything up to this seq was read; answered with `ok`.
    Read {
        /// Of which conversation.
        conversation_id: ConversationId,
        /// Cumulative.
        seq: Seq,
    },
    /// Read history; answered with `page`.
    Fetch {
        /// Of which conversation.
        conversation_id: ConversationId,
        /// Ascending from here.
        after_seq: Option<Seq>,
        /// Descending from here.
        before_seq: Option<Seq>,
        /// 0 means the default page.
        limit: u32,
    },
    /// List conversations; answered with `conversations`.
    Sync {
        /// 0 means the default page.
        limit: u32,
        /// Where the page starts; empty for the first.
        cursor: String,
    },
    /// Say that the user is typing; answered with `ok`.
    Typing {
        /// Where.
        conversation_id: ConversationId,
    },
    /// Ask for presence and watch it; answered with `presences`.
    Presence {
        /// Of whom.
        user_ids: Vec<UserId>,
    },
}

impl Request {
    /// A stable word for metrics and spans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "ack",
            Self::Read { .. } => "read",
            Self::Fetch { .. } => "fetch",
            Self::Sync { .. } => "sync",
            Self::Typing { .. } => "typing",
            Self::Presence { .. } => "presence",
        }
    }
}

/// What a frame asks for.
pub(crate) enum Asked {
    Hello(Hello),
    Reauth(String),
    Ping,
    Send(Send),
    Request(Request),
}

/// Reads the fields of a frame's body.
pub(crate) fn read(body: Body, text_bytes_max: usize) -> Result<Asked, Refusal> {
    let request = match body {
        Body::Hello(hello) => return Ok(Asked::Hello(hello)),
        Body::Reauth(reauth) => return Ok(Asked::Reauth(reauth.access_token)),
        Body::Ping(_) => return Ok(Asked::Ping),
        Body::Send(send) => {
            if send.text.len() > text_bytes_max {
                let message = format!(
                    "a text of {} bytes is over the limit of {text_bytes_max} bytes",
                    send.text.len()
                );
                return Err(Refusal::new(ErrorCode::TooLarge, message));
            }
            return Ok(Asked::Send(Send {
                conversation_id: conversation(&send.conversation_id)?,
                client_msg_id: ClientMsgId::parse(&send.client_msg_id).map_err(|error| invalid_name(&error))?,
                text: send.text,
            }));
        }
        Body::Ack(ack) => Request::Ack {
            conversation_id: conversation(&ack.conversation_id)?,
            delivered_seq: ack.delivered_seq,
        },
        Body::Read(read) => Request::Read {
            conversation_id: conversation(&read.conversation_id)?,
            seq: read.seq,
        },
        Body::Fetch(fetch) => {
            if fetch.after_seq.is_some() && fetch.before_seq.is_some() {
                return Err(Refusal::new(
                    ErrorCode::InvalidArgument,
                    "fetch takes afterSeq or beforeSeq, not both",
                ));
            }
            Request::Fetch {
                conversation_id: conversation(&fetch.conversation_id)?,
                after_seq: fetch.after_seq,
                before_seq: fetch.before_seq,
                limit: fetch.limit,
            }
        }
        Body::Sync(sync) => Request::Sync {
            limit: sync.limit,
            cursor: sync.cursor,
        },
        Body::Typing(typing) => Request::Typing {
            conversation_id: conversation(&typing.conversation_id)?,
        },
        Body::Presence(query) => {
            if query.user_ids.len() > PRESENCE_USERS_MAX {
                let message = format!(
                    "presence of {} users asked, the limit is {PRESENCE_USERS_MAX}",
                    query.user_ids.len()
                );
                return Err(Refusal::new(ErrorCode::InvalidArgument, message));
            }
            let user_ids = query.user_ids.iter().map(|id| UserId::parse(id));
            Request::Presence {
                user_ids: user_ids.collect::<Result<_, _>>().map_err(|error| invalid_id(&error))?,
            }
        }
    };
    Ok(Asked::Request(request))
}

/// Reads the fields of Hello.
pub(crate) fn read_hello(hello: Hello, options: &SessionOptions) -> Result<HelloRequest, Refusal> {
    if hello.cursors.len() > options.cursors_max {
        let message = format!(
            "{} cursors are over the limit of {}",
            hello.cursors.len(),
            options.cursors_max
        );
        return Err(Refusal::new(ErrorCode::InvalidArgument, message));
    }
    let device_id = DeviceId::parse(&hello.device_id).map_err(|error| invalid_name(&error))?;
    let cursors = hello
        .cursors
        .iter()
        .map(|cursor| Ok((conversation(&cursor.conversation_id)?, cursor.after_seq)));
    let cursors = cursors.collect::<Result<_, Refusal>>()?;
    Ok(HelloRequest {
        access_token: hello.access_token,
        device_id,
        cursors,
    })
}

fn conversation(text: &str) -> Result<ConversationId, Refusal> {
    ConversationId::parse(text).map_err(|error| invalid_id(&error))
}

fn invalid_id(error: &IdError) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgument, error.to_string())
}

fn invalid_name(error: &NameError) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgument, error.to_string())
}
