//! The services of the world. What no test needs is unimplemented.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use antiphon_feed::{FeedStream, Subscriber, Topic};
use antiphon_proto::{
    log::{Kind, Membership, Role},
    refusal,
    rpc::{
        self, conversation_server::ConversationServer, delivery_server::DeliveryServer, feed_item::Body,
        identity_server::IdentityServer, message_server::MessageServer, presence_server::PresenceServer,
    },
};
use antiphon_types::{ConversationId, UserId};
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use super::{World, tokens};

type Answer<T> = Result<Response<T>, Status>;

pub fn routes(world: &Arc<World>) -> Routes {
    let home = Home(world.clone());
    let mut routes = Routes::builder();
    routes
        .add_service(IdentityServer::new(home.clone()))
        .add_service(ConversationServer::new(home.clone()))
        .add_service(MessageServer::new(home.clone()))
        .add_service(PresenceServer::new(home.clone()))
        .add_service(DeliveryServer::new(home));
    routes.routes()
}

#[derive(Clone)]
struct Home(Arc<World>);

fn conversation(bytes: &[u8]) -> Result<ConversationId, Status> {
    ConversationId::from_bytes(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn user(bytes: &[u8]) -> Result<UserId, Status> {
    UserId::from_bytes(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Counts a write; why it is refused.
fn refused(world: &World) -> Option<rpc::NotDone> {
    world.writes.fetch_add(1, Ordering::SeqCst);
    let retry_after_ms = (*world.busy.lock())?;
    Some(rpc::NotDone {
        refusal: Some(rpc::Refusal {
            code: "RESOURCE_EXHAUSTED".to_owned(),
            retry_after_ms: Some(retry_after_ms),
            ..rpc::Refusal::default()
        }),
        message: "too much to do".to_owned(),
    })
}

fn not_found() -> Status {
    refusal::status("NOT_FOUND", "no such conversation", None)
}

#[tonic::async_trait]
impl rpc::delivery_server::Delivery for Home {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<rpc::FeedBatch, Status>> + Send>>;

    async fn follow(&self, request: Request<Streaming<rpc::Interest>>) -> Answer<Self::FollowStream> {
        let topics = self.0.topics.lock().clone();
        let (subscriber, stream) = topics.subscriber();
        let world = self.0.clone();
        let mut interests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(interest)) = interests.message().await {
                interest.unsubscribe.iter().for_each(|topic| {
                    subscriber.unsubscribe(&Topic::try_from(&**topic).unwrap());
                });
                interest
                    .subscribe
                    .iter()
                    .for_each(|topic| subscribe(&world, &subscriber, topic));
            }
        });
        let broken = {
            let (world, topics) = (self.0.clone(), topics);
            async move {
                while Arc::ptr_eq(&world.topics.lock(), &topics) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        };
        let stream: FeedStream = stream;
        let stream = stream
            .map(|batch| batch.map_err(|error| Status::aborted(error.to_string())))
            .take_until(broken);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn subscribe(world: &World, subscriber: &Subscriber, topic: &[u8]) {
    let topic = Topic::try_from(topic).unwrap();
    let state = world.state.lock();
    if !subscriber.subscribe(topic).unwrap() {
        return;
    }
    let tail = topic
        .conversation()
        .and_then(|id| state.conversations.get(&id))
        .map_or(0, |it| it.messages.len() as u64);
    subscriber.offer(rpc::FeedItem {
        topic: topic.to_bytes(),
        body: Some(Body::Tail(tail)),
        traceparent: String::new(),
    });
}

#[tonic::async_trait]
impl rpc::message_server::Message for Home {
    async fn send(&self, request: Request<rpc::SendRequest>) -> Answer<rpc::SendResponse> {
        let request = request.into_inner();
        let (id, sender) = (conversation(&request.conversation_id)?, user(&request.sender_id)?);
        let is_member = self
            .0
            .state
            .lock()
            .conversations
            .get(&id)
            .is_some_and(|found| found.members.contains_key(&sender));
        if !is_member {
            return Err(not_found());
        }
        let stored = |message: rpc::NewMessage| rpc::Stored {
            seq: self.0.send(id, sender, &message.text, false),
            sent_at_ms: 1,
            duplicate: false,
        };
        let results = request.messages.into_iter().map(|message| rpc::SendResult {
            result: Some(match refused(&self.0) {
                Some(not_done) => rpc::send_result::Result::NotDone(not_done),
                None => rpc::send_result::Result::Stored(stored(message)),
            }),
        });
        Ok(Response::new(rpc::SendResponse {
            results: results.collect(),
        }))
    }

    async fn history(&self, request: Request<rpc::HistoryRequest>) -> Answer<rpc::HistoryResponse> {
        let request = request.into_inner();
        let state = self.0.state.lock();
        let found = state
            .conversations
            .get(&conversation(&request.conversation_id)?)
            .ok_or_else(not_found)?;
        if request.user_id.is_empty() {
            self.0.fills.fetch_add(1, Ordering::SeqCst);
        } else if !found.members.contains_key(&user(&request.user_id)?) {
            return Err(not_found());
        }
        let limit = request.limit as usize;
        let all = &found.messages;
        let messages = match (request.after_seq, request.before_seq) {
            (Some(after), _) => all
                .iter()
                .filter(|message| message.seq > after)
                .take(limit)
                .cloned()
                .collect(),
            (None, _) => all[all.len().saturating_sub(limit)..].to_vec(),
        };
        Ok(Response::new(rpc::HistoryResponse {
            messages,
            tail_seq: all.len() as u64,
            first_seq: 1,
        }))
    }

    async fn move_inboxes(&self, request: Request<rpc::MoveInboxesRequest>) -> Answer<rpc::MoveInboxesResponse> {
        let mut results = Vec::new();
        for moves in request.into_inner().moves {
            let result = match refused(&self.0) {
                Some(not_done) => rpc::move_inbox_result::Result::NotDone(not_done),
                None => {
                    let read_seq = moves.read_seq.unwrap_or_default();
                    let delivered_seq = moves.delivered_seq.unwrap_or_default().max(read_seq);
                    let whose = (conversation(&moves.conversation_id)?, user(&moves.user_id)?);
                    self.0.delivered.lock().insert(whose, delivered_seq);
                    rpc::move_inbox_result::Result::Moved(rpc::InboxMoved {
                        delivered_seq,
                        read_seq,
                    })
                }
            };
            results.push(rpc::MoveInboxResult { result: Some(result) });
        }
        Ok(Response::new(rpc::MoveInboxesResponse { results }))
    }

    async fn summaries(&self, request: Request<rpc::SummariesRequest>) -> Answer<rpc::SummariesResponse> {
        let request = request.into_inner();
        let asked: Result<Vec<ConversationId>, Status> = request
            .conversation_ids
            .iter()
            .map(|bytes| conversation(bytes))
            .collect();
        let asked = asked?;
        let is_silent = {
            let silent = self.0.silent.lock();
            asked.iter().any(|id| silent.contains(id))
        };
        if is_silent {
            return std::future::pending().await;
        }
        let (state, who) = (self.0.state.lock(), user(&request.user_id)?);
        let mut summaries = Vec::new();
        for bytes in request.conversation_ids {
            let found = state.conversations.get(&conversation(&bytes)?);
            summaries.push(rpc::Summary {
                conversation_id: bytes,
                last_seq: found.map_or(0, |found| found.messages.len() as u64),
                first_seq: 1,
                member: found.is_some_and(|found| found.members.contains_key(&who)),
                last_message: found.and_then(|found| found.messages.last().cloned()),
                ..rpc::Summary::default()
            });
        }
        Ok(Response::new(rpc::SummariesResponse { summaries }))
    }

    async fn typing(&self, _: Request<rpc::TypingRequest>) -> Answer<rpc::TypingResponse> {
        Ok(Response::new(rpc::TypingResponse {}))
    }
}

#[tonic::async_trait]
impl rpc::conversation_server::Conversation for Home {
    async fn check_members(&self, request: Request<rpc::CheckMembersRequest>) -> Answer<rpc::CheckMembersResponse> {
        let request = request.into_inner();
        let state = self.0.state.lock();
        let found = state
            .conversations
            .get(&conversation(&request.conversation_id)?)
            .ok_or_else(not_found)?;
        let mut member_ids = request.user_ids;
        member_ids.retain(|bytes| user(bytes).is_ok_and(|who| found.members.contains_key(&who)));
        Ok(Response::new(rpc::CheckMembersResponse { member_ids }))
    }

    async fn pair_exists(&self, _: Request<rpc::PairExistsRequest>) -> Answer<rpc::PairExistsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_conversations(
        &self,
        request: Request<rpc::ListConversationsRequest>,
    ) -> Answer<rpc::ListConversationsResponse> {
        let who = user(&request.into_inner().user_id)?;
        let memberships = |state: &super::State| {
            state
                .conversations
                .iter()
                .filter_map(|(id, found)| {
                    let (version, joined_at_ms) = *found.members.get(&who)?;
                    let membership = Membership {
                        role: Role::Member.into(),
                        kind: Kind::Group.into(),
                        version,
                        joined_at_ms,
                        ..Membership::default()
                    };
                    Some(rpc::MembershipEntry {
                        conversation_id: id.to_bytes(),
                        membership: Some(membership),
                    })
                })
                .collect()
        };
        let memberships = memberships(&self.0.state.lock());
        let late = self.0.joins_late.lock().take();
        if let Some((id, who)) = late {
            self.0.set_member(id, who, true, true);
            (0..5).for_each(|_| _ = self.0.send(id, who, "late", false));
            // So that the feed is before the answer.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(Response::new(rpc::ListConversationsResponse {
            memberships,
            more: false,
        }))
    }

    async fn open_direct(&self, _: Request<rpc::OpenDirectRequest>) -> Answer<rpc::OpenDirectResponse> {
        Err(Status::unimplemented(""))
    }
    async fn create_group(&self, _: Request<rpc::CreateGroupRequest>) -> Answer<rpc::CreateGroupResponse> {
        Err(Status::unimplemented(""))
    }
    async fn create_direct(&self, _: Request<rpc::CreateDirectRequest>) -> Answer<rpc::CreateDirectResponse> {
        Err(Status::unimplemented(""))
    }
    async fn add_member(&self, _: Request<rpc::AddMemberRequest>) -> Answer<rpc::AddMemberResponse> {
        Err(Status::unimplemented(""))
    }
    async fn remove_member(&self, _: Request<rpc::RemoveMemberRequest>) -> Answer<rpc::RemoveMemberResponse> {
        Err(Status::unimplemented(""))
    }
    async fn set_role(&self, _: Request<rpc::SetRoleRequest>) -> Answer<rpc::SetRoleResponse> {
        Err(Status::unimplemented(""))
    }
    async fn list_members(&self, _: Request<rpc::ListMembersRequest>) -> Answer<rpc::ListMembersResponse> {
        Err(Status::unimplemented(""))
    }
    async fn list_membership(&self, _: Request<rpc::ListMembershipRequest>) -> Answer<rpc::ListMembershipResponse> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl rpc::presence_server::Presence for Home {
    async fn report(&self, request: Request<rpc::PresenceReport>) -> Answer<rpc::PresenceReported> {
        let report = request.into_inner();
        self.0
            .state
            .lock()
            .presence
            .push((user(&report.user_id)?, report.online));
        Ok(Response::new(rpc::PresenceReported {}))
    }

    async fn query(&self, request: Request<rpc::PresenceQueryRequest>) -> Answer<rpc::PresenceQueryResponse> {
        let who = user(&request.into_inner().user_id)?;
        let online = self
            .0
            .state
            .lock()
            .presence
            .iter()
            .rev()
            .find(|(other, _)| *other == who)
            .is_some_and(|it| it.1);
        Ok(Response::new(rpc::PresenceQueryResponse {
            online,
            last_seen_ms: 5,
        }))
    }
}

#[tonic::async_trait]
impl rpc::identity_server::Identity for Home {
    async fn jwks(&self, _: Request<rpc::JwksRequest>) -> Answer<rpc::JwksResponse> {
        Ok(Response::new(rpc::JwksResponse {
            jwks_json: tokens::jwks(),
        }))
    }

    async fn register(&self, _: Request<rpc::RegisterRequest>) -> Answer<rpc::RegisterResponse> {
        Err(Status::unimplemented(""))
    }
    async fn resolve(&self, _: Request<rpc::ResolveRequest>) -> Answer<rpc::ResolveResponse> {
        Err(Status::unimplemented(""))
    }
    async fn create_account(&self, _: Request<rpc::CreateAccountRequest>) -> Answer<rpc::CreateAccountResponse> {
        Err(Status::unimplemented(""))
    }
    async fn log_in(&self, _: Request<rpc::LogInRequest>) -> Answer<rpc::Tokens> {
        Err(Status::unimplemented(""))
    }
    async fn refresh(&self, _: Request<rpc::RefreshRequest>) -> Answer<rpc::Tokens> {
        Err(Status::unimplemented(""))
    }
    async fn log_out(&self, _: Request<rpc::LogOutRequest>) -> Answer<rpc::LogOutResponse> {
        Err(Status::unimplemented(""))
    }
    async fn get_account(&self, _: Request<rpc::GetAccountRequest>) -> Answer<rpc::GetAccountResponse> {
        Err(Status::unimplemented(""))
    }
    async fn signing_keys(&self, _: Request<rpc::SigningKeysRequest>) -> Answer<rpc::SigningKeysResponse> {
        Err(Status::unimplemented(""))
    }
    async fn rotate_keys(&self, _: Request<rpc::RotateKeysRequest>) -> Answer<rpc::RotateKeysResponse> {
        Err(Status::unimplemented(""))
    }
}
