//! One request, until it is answered.

use std::{sync::Arc, time::Duration};

use antiphon_proto::refusal;
use antiphon_types::{Slot, trace};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status, body::Body};
use tower::{Service as _, ServiceExt as _};
use tracing::Span;

use super::{Owner, Shared, owner::Place};

/// How long a request may take that says nothing of it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// By how much a transport may end a request before its deadline: it was told in whole milliseconds.
const TRANSPORT_EARLY: Duration = Duration::from_millis(5);
/// How long the sender waits: gRPC over HTTP/2, "Requests".
const GRPC_TIMEOUT_HEADER: &str = "grpc-timeout";
/// The longest pause before a request is sent again.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Requests that may be sent twice: what they do is the same, however often. Others are sent again only when they were refused for
/// the slot's sake, before anything was done.
const IDEMPOTENT: [&str; 22] = [
    "Message/Send",
    "Message/History",
    "Message/MoveInboxes",
    "Message/Summaries",
    "Message/Typing",
    "Conversation/OpenDirect",
    "Conversation/CreateDirect",
    "Conversation/ListMembers",
    "Conversation/CheckMembers",
    "Conversation/PairExists",
    "Conversation/ListMembership",
    "Conversation/ListConversations",
    "Identity/Resolve",
    "Identity/CreateAccount",
    "Identity/GetAccount",
    "Identity/Jwks",
    "Identity/SigningKeys",
    "Identity/LogOut",
    "Presence/Report",
    "Presence/Query",
    "Directory/State",
    "Directory/Renew",
];

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Slot(Slot),
    Region(Arc<str>),
    Owner(Owner),
    Here,
}

/// What came of sending a request once.
enum Sent {
    Answer(Response<Body>),
    /// The slot lives elsewhere; nothing was done.
    NotHome(Response<Body>, u64),
    /// The other region was not reached, or was lost on the way, or lost the slot: whether anything was done is not known.
    Lost(Status),
}

impl Sent {
    /// Whether the transport has ended the request.
    fn gave_up(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Answer(response) => {
                Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Cancelled)
            }
            Self::NotHome(..) => false,
        }
    }
}

/// Takes the request to its target. Requests for slots are sent again when the slot has moved, until their time is over.
pub(super) async fn answer(shared: Arc<Shared>, target: Target, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    // Streams are passed on as they are: what has been said on one cannot be said again.
    if is_stream(parts.uri.path()) {
        return match shared.send(&target, Request::from_parts(parts, body)).await {
            Sent::Answer(response) | Sent::NotHome(response, _) => response,
            Sent::Lost(status) => status.into_http(),
        };
    }
    let deadline = Instant::now() + timeout_of(&parts).unwrap_or(TIMEOUT);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(status) => return status.into_http(),
    };
    let traceparent = trace::of(&Span::current());
    if let Ok(value) = HeaderValue::from_str(&traceparent)
        && !traceparent.is_empty()
    {
        parts.headers.insert("traceparent", value);
    }
    let is_idempotent = is_idempotent(parts.uri.path());
    let mut pause = Duration::from_millis(10);
    loop {
        let seen = shared.seen();
        let sending = shared.send(&target, copy_of(&parts, &body, deadline));
        let sent = match &target {
            // A home that is lost may never answer; the next one will.
            Target::Slot(slot) if is_idempotent => {
                tokio::select! {
                    sent = timeout_at(deadline, sending) => sent,
                    () = shared.moves(*slot) => continue,
                }
            }
            Target::Slot(_) | Target::Region(_) | Target::Owner(_) | Target::Here => {
                timeout_at(deadline, sending).await
            }
        };
        let (response, reason) = match sent {
            Err(_) => return too_late(&target).into_http(),
            // The transport of either end gives up at the same moment, and says so in other words.
            Ok(sent) if sent.gave_up() && Instant::now() + TRANSPORT_EARLY >= deadline => {
                return too_late(&target).into_http();
            }
            Ok(Sent::Answer(response)) => return response,
            Ok(Sent::NotHome(response, epoch)) => {
                let known =
                    matches!(&target, Target::Slot(slot) if shared.table.load().placement(*slot).epoch >= epoch);
                tracing::trace!(?target, epoch, known, "the slot is not where the table says");
                (response, "not_home")
            }
            Ok(Sent::Lost(status)) if is_idempotent => (status.into_http(), "lost"),
            Ok(Sent::Lost(status)) => return status.into_http(),
        };
        if !matches!(target, Target::Slot(_)) || Instant::now() + pause >= deadline {
            return response;
        }
        metrics::counter!("antiphon_route_retries_total", "reason" => reason).increment(1);
        // A newer table or share is the reason to hope; without one, full jitter.
        tokio::select! {
            _ = shared.changed(seen) => {}
            () = sleep(pause.mul_f64(rand::random_range(0.5..1.0))) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

impl Shared {
    async fn send(&self, target: &Target, request: Request<Body>) -> Sent {
        let place = match target {
            Target::Here => Place::Here,
            Target::Region(region) if **region == *self.region => Place::Here,
            Target::Region(region) => self.place_of(&Owner {
                region: region.clone(),
                node: None,
            }),
            Target::Owner(owner) => self.place_of(owner),
            Target::Slot(slot) => {
                let (owner, epoch) = self.owner(*slot);
                match owner.map_or(Place::Nowhere, |owner| self.place_of(&owner)) {
                    // Nothing is lost by waiting for one.
                    Place::Nowhere => return nobody(*slot, epoch),
                    place @ (Place::Here | Place::There(..)) => place,
                }
            }
        };
        let (region, address) = match place {
            Place::Here => return self.near(request).await,
            Place::There(region, address) => (region, address),
            Place::Nowhere => {
                let message = format!("{target:?} is not known here");
                return Sent::Answer(refusal::status("UNAVAILABLE", message, Some(1_000)).into_http());
            }
        };
        let Some(mut channel) = self.far.as_ref().and_then(|far| far.channel(&region, &address)) else {
            let message = format!("region {region} is not reached from here");
            return Sent::Answer(refusal::status("UNAVAILABLE", message, Some(1_000)).into_http());
        };
        let is_stream = is_stream(request.uri().path());
        let sent = match channel.ready().await {
            Ok(channel) => channel.call(request).await,
            Err(error) => Err(error),
        };
        let sent = match sent {
            Ok(response) if is_stream => Ok(response),
            Ok(response) => whole(response).await.map_err(|status| chain(&status)),
            Err(error) => Err(chain(&error)),
        };
        match sent {
            Ok(response) => judged(response),
            Err(why) => {
                let message = format!("region {region} was not reached: {why}");
                Sent::Lost(refusal::status("UNAVAILABLE", message, Some(500)))
            }
        }
    }

    async fn near(&self, request: Request<Body>) -> Sent {
        match self.local.get() {
            Some(services) => {
                let Ok(response) = services.clone().call(request).await;
                judged(response)
            }
            None => {
                let message = "the services of this node are starting";
                Sent::Answer(refusal::status("UNAVAILABLE", message, Some(100)).into_http())
            }
        }
    }
}

/// No live node is known whose share the slot could be.
fn nobody(slot: Slot, epoch: u64) -> Sent {
    let status = refusal::not_home(format!("nobody is known to serve {slot:?}"), None, epoch);
    Sent::NotHome(status.into_http(), epoch)
}

fn judged(response: Response<Body>) -> Sent {
    // A refusal comes without a body, its status among the headers.
    let Some(status) = Status::from_header_map(response.headers()) else {
        return Sent::Answer(response);
    };
    let refused = refusal::of(&status);
    if refused.code == "NOT_HOME" {
        return Sent::NotHome(response, refused.epoch.unwrap_or_default());
    }
    // The slot has gone to another owner in the middle of it, or may go to one now.
    if refused.epoch.is_some() {
        return Sent::Lost(status);
    }
    Sent::Answer(response)
}

/// An answer with its end, which has the status: one whose connection is lost after the headers is none.
async fn whole(response: Response<Body>) -> Result<Response<Body>, Status> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    let ends = [Some(&parts.headers), body.trailers()];
    if !ends
        .into_iter()
        .flatten()
        .any(|end| end.contains_key(Status::GRPC_STATUS))
    {
        return Err(Status::unavailable("the answer has no status"));
    }
    Ok(Response::from_parts(
        parts,
        Body::new(body.map_err(|never| match never {})),
    ))
}

fn is_stream(path: &str) -> bool {
    path.ends_with("/Follow")
}

fn is_idempotent(path: &str) -> bool {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    IDEMPOTENT.contains(&name)
}

/// The request once more, with the time that it has left.
fn copy_of(parts: &Parts, body: &Bytes, deadline: Instant) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(body.clone()).map_err(|never| match never {})));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    *request.extensions_mut() = parts.extensions.clone();
    let left_ms = deadline
        .saturating_duration_since(Instant::now())
        .as_millis()
        .min(99_999_999);
    if let Ok(value) = HeaderValue::from_str(&format!("{left_ms}m")) {
        request.headers_mut().insert(GRPC_TIMEOUT_HEADER, value);
    }
    request
}

/// The header `grpc-timeout`: up to eight digits and a unit.
fn timeout_of(parts: &Parts) -> Option<Duration> {
    let value = parts.headers.get(GRPC_TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3_600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn too_late(target: &Target) -> Status {
    let message = format!("{target:?} has not answered in time; the outcome is unknown");
    refusal::status("DEADLINE_EXCEEDED", message, None)
}

/// An error with its causes: the transport's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
