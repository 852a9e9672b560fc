use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{number, text};

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Asks once, of no edge in particular.
pub(crate) async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    antiphon_client::http_client(None).get(url).send().await
}

/// REST as any HTTP client speaks it.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    base: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    /// Null when there is none.
    pub(crate) body: Value,
}

impl Answer {
    /// The body, if the status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Holds that this is a problem document with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, text(&self.body["code"]).as_str()),
            (status, code),
            "{}",
            self.body
        );
        assert_eq!(self.content_type, "application/problem+json");
        assert_eq!(number(&self.body["status"]), u64::from(status));
        self.body
    }
}

impl Http {
    pub(crate) fn new(base: &str) -> Self {
        Self {
            client: antiphon_client::http_client(None),
            base: base.to_owned(),
        }
    }

    /// A request with what is given of token and JSON body. The connection may break: then None.
    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let name = format!("{method} {path}");
        self.try_ask(method, path, token, body)
            .await
            .unwrap_or_else(|| panic!("{name}: no answer"))
    }

    /// A POST of text that says it is JSON.
    pub(crate) async fn post_text(&self, path: &str, body: String) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base));
        answer(request.header("content-type", "application/json").body(body))
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, None, Some(body)).await
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str, device_id: &str) -> Answer {
        let body = json!({"username": name, "password": password, "deviceId": device_id});
        self.post("/v1/tokens", &body).await
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        self.post("/v1/tokens/refresh", &json!({"refreshToken": refresh_token}))
            .await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .map(|value| value.to_str().unwrap().to_owned());
    let bytes = response.bytes().await.ok()?;
    Some(Answer {
        status,
        content_type: content_type.unwrap_or_default(),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    })
}

/// A user, logged in on one device.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) http: Http,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) device_id: String,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

impl Person {
    /// Registers an account and logs its first device in.
    pub(crate) async fn register(http: &Http, name: &str) -> Self {
        let body = json!({"username": name, "password": PASSWORD});
        http.post("/v1/accounts", &body).await.expect(201);
        Self::log_in(http, name, &format!("{name}-phone")).await
    }

    pub(crate) async fn log_in(http: &Http, name: &str, device_id: &str) -> Self {
        let tokens = http.log_in(name, PASSWORD, device_id).await.expect(200);
        Self {
            http: http.clone(),
            id: text(&tokens["userId"]),
            name: name.to_owned(),
            device_id: device_id.to_owned(),
            token: text(&tokens["accessToken"]),
            refresh_token: text(&tokens["refreshToken"]),
        }
    }

    /// The same user on another device.
    pub(crate) async fn on(&self, device_id: &str) -> Self {
        Self::log_in(&self.http, &self.name, device_id).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.http.ask(method, path, Some(&self.token), body).await
    }

    /// Opens the direct conversation with `peer`.
    pub(crate) async fn direct(&self, peer: &Person) -> String {
        let body = json!({"kind": "direct", "memberIds": [peer.id]});
        let answer = self.ask(Method::POST, "/v1/conversations", Some(&body)).await;
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        text(&answer.body["conversationId"])
    }

    pub(crate) async fn group(&self, title: &str, members: &[&Person]) -> String {
        let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        let body = json!({"kind": "group", "title": title, "memberIds": ids});
        text(
            &self
                .ask(Method::POST, "/v1/conversations", Some(&body))
                .await
                .expect(201)["conversationId"],
        )
    }

    /// Sends with this idempotency key.
    pub(crate) async fn send_as(&self, conversation: &str, client_msg_id: &str, text: &str) -> Answer {
        let body = json!({"clientMsgId": client_msg_id, "text": text});
        self.ask(
            Method::POST,
            &format!("/v1/conversations/{conversation}/messages"),
            Some(&body),
        )
        .await
    }

    /// Sends something new; its seq.
    pub(crate) async fn send(&self, conversation: &str, text: &str) -> u64 {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let id = format!("rest-{}", SENT.fetch_add(1, Ordering::Relaxed));
        number(&self.send_as(conversation, &id, text).await.expect(201)["seq"])
    }

    /// A page of messages.
    pub(crate) async fn page(&self, conversation: &str, query: &str) -> Vec<Value> {
        let path = format!("/v1/conversations/{conversation}/messages?{query}");
        self.get(&path).await.expect(200)["messages"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// What the list says of one conversation; None when it is not listed.
    pub(crate) async fn listed(&self, conversation: &str) -> Option<Value> {
        let list = self.get("/v1/conversations").await.expect(200);
        let found = list["conversations"].as_array().unwrap().iter();
        found
            .into_iter()
            .find(|entry| entry["conversationId"] == conversation)
            .cloned()
    }
}
