use std::fmt;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::tls::http_client;

/// What log-in and refresh return. The tokens do not show in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Short-lived; opens sessions.
    pub access_token: String,
    /// Long-lived and good for one use; gets the next pair.
    pub refresh_token: String,
    /// Seconds until the access token expires.
    pub expires_in_s: u64,
    /// The account.
    pub user_id: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("user_id", &self.user_id)
            .field("expires_in_s", &self.expires_in_s)
            .finish_non_exhaustive()
    }
}

/// Why a REST request failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The server refused; RFC 9457's problem document, in short.
    #[error("{code}: {detail}")]
    Refused {
        /// Upper snake case code.
        code: String,
        /// What is wrong.
        detail: String,
        /// When to try again.
        retry_after_ms: Option<u64>,
        /// The HTTP status.
        status: u16,
    },
    /// The server could not be reached or answered nonsense.
    #[error("the server cannot be reached: {0}")]
    Transport(#[from] reqwest::Error),
}

impl AccountError {
    /// The server's code; none when it was not reached.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Transport(_) => None,
        }
    }
}

/// A conversation as the list shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView {
    /// Its id.
    pub conversation_id: String,
    /// `direct` or `group`.
    pub kind: String,
    /// A group's title.
    #[serde(default)]
    pub title: String,
    /// The last message's seq; 0, as are the other numbers, while the conversation is unavailable.
    #[serde(default)]
    pub last_seq: u64,
    /// How far the caller has read.
    #[serde(default)]
    pub read_seq: u64,
    /// How far the caller's devices hold it.
    #[serde(default)]
    pub delivered_seq: u64,
    /// Messages not read.
    #[serde(default)]
    pub unread: u64,
    /// The last message.
    #[serde(default)]
    pub last_message: Option<MessageView>,
    /// The other member of a direct conversation.
    #[serde(default)]
    pub peer_id: Option<String>,
    /// Its home cannot be reached now, so its state is not known.
    #[serde(default)]
    pub unavailable: bool,
}

/// A message as history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageView {
    /// Its number in the conversation.
    pub seq: u64,
    /// Who sent it.
    pub sender_id: String,
    /// The sender's idempotency key.
    pub client_msg_id: String,
    /// The text.
    pub text: String,
    /// Milliseconds since the Unix epoch.
    pub sent_at_ms: u64,
}

/// A member of a conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// The member.
    pub user_id: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
}

/// The REST side of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account {
    server: String,
    http: reqwest::Client,
}

impl Account {
    /// Talks to `server`, as in `http://127.0.0.1:7400`.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self::pinned(server, None)
    }

    /// The same over HTTPS, where the certificate with this SHA-256 is taken and no other; without one, those that the system's
    /// authorities vouch for.
    #[must_use]
    pub fn pinned(server: &str, certificate_sha256: Option<&str>) -> Self {
        Self {
            server: server.trim_end_matches('/').to_owned(),
            http: http_client(certificate_sha256),
        }
    }

    /// The same, at another edge.
    pub(crate) fn at(&self, server: &str) -> Self {
        Self {
            server: server.to_owned(),
            http: self.http.clone(),
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Creates an account; returns its id.
    ///
    /// # Errors
    /// [`AccountError`]; `ALREADY_EXISTS` when the name is taken.
    pub async fn register(&self, username: &str, password: &str) -> Result<String, AccountError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Registered {
            user_id: String,
        }
        let body = json!({ "username": username, "password": password });
        let registered: Registered = self.ask(Method::POST, "/v1/accounts", None, Some(body)).await?;
        Ok(registered.user_id)
    }

    /// Logs a device in.
    ///
    /// # Errors
    /// [`AccountError`]; `UNAUTHENTICATED` for a wrong name or password.
    pub async fn log_in(&self, username: &str, password: &str, device_id: &str) -> Result<Tokens, AccountError> {
        let body = json!({ "username": username, "password": password, "deviceId": device_id });
        self.ask(Method::POST, "/v1/tokens", None, Some(body)).await
    }

    /// Trades a refresh token for the next pair; the old one is spent.
    ///
    /// # Errors
    /// [`AccountError`]; `UNAUTHENTICATED` when it was spent, revoked or has expired.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, AccountError> {
        let body = json!({ "refreshToken": refresh_token });
        self.ask(Method::POST, "/v1/tokens/refresh", None, Some(body)).await
    }

    /// Ends a log-in.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn log_out(&self, refresh_token: &str) -> Result<(), AccountError> {
        let body = json!({ "refreshToken": refresh_token });
        self.send(self.request(Method::DELETE, "/v1/tokens", None, Some(body)))
            .await
            .map(drop)
    }

    /// The id behind a username.
    ///
    /// # Errors
    /// [`AccountError`]; `NOT_FOUND` when nobody has the name.
    pub async fn user_by_name(&self, access_token: &str, username: &str) -> Result<String, AccountError> {
        Ok(self
            .user(access_token, &format!("/v1/users/by-name/{username}"))
            .await?
            .user_id)
    }

    /// The username of an account.
    ///
    /// # Errors
    /// [`AccountError`]; `NOT_FOUND` when there is no such account.
    pub async fn username(&self, access_token: &str, user_id: &str) -> Result<String, AccountError> {
        Ok(self.user(access_token, &format!("/v1/users/{user_id}")).await?.username)
    }

    async fn user(&self, access_token: &str, path: &str) -> Result<UserView, AccountError> {
        self.ask(Method::GET, path, Some(access_token), None).await
    }

    /// Opens the direct conversation with `peer_id`, creating it if need be; returns its id.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn open_direct(&self, access_token: &str, peer_id: &str) -> Result<String, AccountError> {
        self.create(access_token, json!({ "kind": "direct", "memberIds": [peer_id] }))
            .await
    }

    /// Creates a group; returns its id.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn create_group(
        &self,
        access_token: &str,
        title: &str,
        member_ids: &[String],
    ) -> Result<String, AccountError> {
        self.create(
            access_token,
            json!({ "kind": "group", "title": title, "memberIds": member_ids }),
        )
        .await
    }

    /// Adds a member to a group of the caller's.
    ///
    /// # Errors
    /// [`AccountError`]; `FORBIDDEN` when the caller's role does not allow it.
    pub async fn add_member(
        &self,
        access_token: &str,
        conversation_id: &str,
        user_id: &str,
    ) -> Result<(), AccountError> {
        let path = format!("/v1/conversations/{conversation_id}/members");
        let body = json!({ "userId": user_id });
        self.send(self.request(Method::POST, &path, Some(access_token), Some(body)))
            .await?;
        Ok(())
    }

    async fn create(&self, access_token: &str, body: Value) -> Result<String, AccountError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Created {
            conversation_id: String,
        }
        let created: Created = self
            .ask(Method::POST, "/v1/conversations", Some(access_token), Some(body))
            .await?;
        Ok(created.conversation_id)
    }

    /// The caller's conversations, most recently active first (the first page).
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn conversations(&self, access_token: &str) -> Result<Vec<ConversationView>, AccountError> {
        #[derive(Deserialize)]
        struct Listed {
            conversations: Vec<ConversationView>,
        }
        let listed: Listed = self
            .ask(Method::GET, "/v1/conversations", Some(access_token), None)
            .await?;
        Ok(listed.conversations)
    }

    /// The members of a conversation (the first page).
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn members(&self, access_token: &str, conversation_id: &str) -> Result<Vec<MemberView>, AccountError> {
        #[derive(Deserialize)]
        struct Listed {
            members: Vec<MemberView>,
        }
        let path = format!("/v1/conversations/{conversation_id}/members");
        let listed: Listed = self.ask(Method::GET, &path, Some(access_token), None).await?;
        Ok(listed.members)
    }

    /// A page of history: `query` as in `afterSeq=0&limit=50`; ascending seq.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn history(
        &self,
        access_token: &str,
        conversation_id: &str,
        query: &str,
    ) -> Result<Vec<MessageView>, AccountError> {
        #[derive(Deserialize)]
        struct Page {
            messages: Vec<MessageView>,
        }
        let path = format!("/v1/conversations/{conversation_id}/messages?{query}");
        let page: Page = self.ask(Method::GET, &path, Some(access_token), None).await?;
        Ok(page.messages)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access_token: Option<&str>,
        body: Option<Value>,
    ) -> Result<T, AccountError> {
        let response = self.send(self.request(method, path, access_token, body)).await?;
        Ok(response.json().await?)
    }

    fn request(&self, method: Method, path: &str, access_token: Option<&str>, body: Option<Value>) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.server));
        if let Some(token) = access_token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, AccountError> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refusal(status, response.json().await.ok()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserView {
    user_id: String,
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    retry_after_ms: Option<u64>,
}

fn refusal(status: StatusCode, problem: Option<Problem>) -> AccountError {
    let empty = Problem {
        code: None,
        detail: None,
        retry_after_ms: None,
    };
    let Problem {
        code,
        detail,
        retry_after_ms,
    } = problem.unwrap_or(empty);
    AccountError::Refused {
        code: code.unwrap_or_else(|| "INTERNAL".to_owned()),
        detail: detail.unwrap_or_else(|| format!("HTTP status {status}")),
        retry_after_ms,
        status: status.as_u16(),
    }
}
