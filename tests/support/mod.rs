//! What black-box tests share: the real binary as a process, and clients that are not the SDK.

pub(crate) mod binary;
pub(crate) mod fdb;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod open_files;
pub(crate) mod proxy;
pub(crate) mod quic;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod store;
pub(crate) mod wire;
pub(crate) mod world;

use std::{future::Future, time::Duration};

use antiphon_probe::Seen;
pub(crate) use http::{Http, Person};
use serde_json::Value;
pub(crate) use server::Server;
pub(crate) use session::RawSession;
use tokio::time::{Instant, sleep};

/// How long a test waits for what has to come: long, because machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test waits for what must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Asks again until `look` finds something; `what` is said when it never does.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        sleep(LOOK_AGAIN).await;
    }
}

/// Takes `ANTIPHON_CHAOS_…`, `ANTIPHON_TEST_…` and `ANTIPHON_FDB_…` out of the environment of a program, which would refuse it as a setting that it does not know.
pub(crate) fn forget_what_steers_tests(command: &mut tokio::process::Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    let prefixes = ["ANTIPHON_CHAOS_", "ANTIPHON_TEST_", "ANTIPHON_FDB_"];
    let steers = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    for name in names.filter(|name| steers(&name.to_string_lossy())) {
        command.env_remove(name);
    }
}

/// A number of a frame or a body: text in canonical JSON, a number in REST, absent when it is 0.
pub(crate) fn number(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Number(number) => number.as_u64().unwrap_or_else(|| panic!("{number} is no whole number")),
        Value::String(text) => text.parse().unwrap_or_else(|_| panic!("{text:?} is no number")),
        other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => panic!("{other} is no number"),
    }
}

/// Text of a frame or a body; empty when it is absent.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A message of a frame or a REST body, as the checker takes it.
pub(crate) fn seen(message: &Value) -> Seen {
    Seen {
        conversation: text(&message["conversationId"]),
        seq: number(&message["seq"]),
        sender: text(&message["senderId"]),
        client_msg_id: text(&message["clientMsgId"]),
        text: text(&message["text"]),
    }
}
