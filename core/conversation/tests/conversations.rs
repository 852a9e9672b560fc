//! Conversations over real slots and the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod world;

use std::{collections::BTreeSet, time::Duration};

use antiphon_conversation::{ConversationOptions, ConversationService, carrier};
use antiphon_directory::{Route, Table, TableWatch};
use antiphon_proto::{
    log::{Kind, MembershipChanged, Role},
    rpc::{
        AddMemberRequest, CreateGroupRequest, ListMembershipRequest, OpenDirectRequest, SetRoleRequest,
        conversation_client::ConversationClient, identity_server::IdentityServer,
    },
};
use antiphon_slot::{Hooks, SlotOptions, Slots};
use antiphon_types::{Clock, ConversationId, UserId};
use futures_util::future::join_all;
use tonic::{Status, service::Routes};
use world::{Accounts, World, code, grant_all, group, ids, nobody, open, server, user};

#[tokio::test(flavor = "multi_thread")]
async fn racing_requests_of_both_users_open_one_direct_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let (one, other) = (user(1), user(2));
    let open = |number: u32| {
        let (creator, peer) = if number.is_multiple_of(2) {
            (one, other)
        } else {
            (other, one)
        };
        world.open_direct(creator, peer)
    };
    let opened: Vec<_> = join_all((0..50).map(open))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    let distinct: BTreeSet<_> = opened.iter().map(|answer| answer.conversation_id.clone()).collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    assert_eq!(opened.iter().filter(|answer| answer.created).count(), 1);
    let id = ConversationId::from_bytes(&opened[0].conversation_id).unwrap();
    let mut members = world.roles(id, one).await;
    members.sort_by_key(|(user, _)| *user);
    let mut expected = vec![(one, Role::Member), (other, Role::Member)];
    expected.sort_by_key(|(user, _)| *user);
    assert_eq!(members, expected);
    for (user, peer) in [(one, other), (other, one)] {
        let [entry] = &world.listed(user).await[..] else {
            panic!("not listed once")
        };
        let membership = entry.membership.clone().unwrap();
        assert_eq!(
            (&entry.conversation_id, membership.kind()),
            (&id.to_bytes(), Kind::Direct)
        );
        assert_eq!(membership.peer_id, peer.to_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_pair_and_conversation_ends_with_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (user(1), user(2));
    {
        // Nobody serves conversations on the route, so all that happens is the pair's write.
        let kv = open(folder.path()).await;
        let route = Route::new("r0", TableWatch::new(Table::single("r0")));
        route.serve(Routes::new(IdentityServer::new(Accounts)));
        let slots = Slots::start(
            kv.clone(),
            SlotOptions::default(),
            [1; 16],
            Hooks {
                carriers: vec![carrier(route_of_nobody())],
                ..Hooks::default()
            },
        );
        grant_all(&slots);
        let request = OpenDirectRequest {
            creator_id: one.to_bytes(),
            peer_id: other.to_bytes(),
        };
        let refused = ConversationClient::new(server(&slots, &route))
            .open_direct(request)
            .await;
        assert!(refused.is_err(), "{refused:?}");
        kv.close().await.unwrap();
        slots.close().await;
    }

    // The slot is opened by nobody but the recovery.
    let world = World::over(open(folder.path()).await, 2);
    assert_eq!(world.slots.recover().await.unwrap(), 1);
    let id = eventually_listed(&world, one).await;
    assert_eq!(eventually_listed(&world, other).await, id);
    let again = world.open_direct(other, one).await.unwrap();
    assert_eq!((again.conversation_id, again.created), (id.to_bytes(), false));
}

/// Whatever is carried over it is refused, to be tried again.
fn route_of_nobody() -> Route {
    Route::new("r0", TableWatch::new(Table::single("r0")))
}

async fn eventually_listed(world: &World, user: UserId) -> ConversationId {
    for _ in 0..500 {
        if let [id] = world.listed_ids(user).await[..] {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{user} has no conversation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_lacks_its_conversation_is_completed_by_opening_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path()).await;
    let (one, other) = (user(1), user(2));
    let route = Route::new("r0", TableWatch::new(Table::single("r0")));
    let slots = Slots::start(kv, SlotOptions::default(), [1; 16], Hooks::default());
    grant_all(&slots);
    let accounts_alone = Route::new("r0", TableWatch::new(Table::single("r0")));
    accounts_alone.serve(Routes::new(IdentityServer::new(Accounts)));
    let request = OpenDirectRequest {
        creator_id: one.to_bytes(),
        peer_id: other.to_bytes(),
    };
    let mut lacking = ConversationClient::new(server(&slots, &accounts_alone));
    assert!(lacking.open_direct(request).await.is_err());

    // No carrier runs: what completes it is the request.
    let options = ConversationOptions::default();
    let clock = Clock::manual(9_000);
    let service = ConversationService::new(slots.clone(), route.clone(), clock, options);
    route.serve(Routes::new(IdentityServer::new(Accounts)).add_service(service.into_server()));
    let world = World { slots, route };
    let opened = world.open_direct(other, one).await.unwrap();
    assert!(!opened.created);
    let id = ConversationId::from_bytes(&opened.conversation_id).unwrap();
    assert_eq!(world.roles(id, one).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_without_an_account_and_oneself_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let refused = world.open_direct(user(1), nobody()).await.unwrap_err();
    assert_eq!(code(&refused), "NOT_FOUND");
    assert!(refused.message().contains(&nobody().to_string()), "{refused}");
    let refused = world.open_direct(user(1), user(1)).await.unwrap_err();
    assert_eq!(code(&refused), "INVALID_ARGUMENT");
    let refused = world
        .create_group(group(1), user(1), &[user(2), nobody()], "")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "NOT_FOUND");
    assert!(!world.is_member(group(1), user(1)).await);
    let refused = add(&world, group(1), user(1), nobody()).await.unwrap_err();
    assert!(!refused.message().contains(&nobody().to_string()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_listed_for_everybody_when_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let members = ids(2..8);
    world
        .create_group(group(1), user(1), &members, " Choir ")
        .await
        .unwrap();
    for (user, role) in members
        .iter()
        .map(|user| (*user, Role::Member))
        .chain([(user(1), Role::Owner)])
    {
        let [entry] = &world.listed(user).await[..] else {
            panic!("{user}: not listed once")
        };
        let membership = entry.membership.clone().unwrap();
        assert_eq!((membership.role(), membership.title.as_str()), (role, "Choir"));
        assert_eq!(membership.joined_at_ms, 5_000);
    }
    assert_eq!(world.members(group(1), user(3)).await.unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn founding_a_group_again_changes_nothing_and_its_id_is_taken_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    world
        .create_group(group(1), user(1), &ids([2, 3]), "Choir")
        .await
        .unwrap();
    world.remove(group(1), user(1), user(3)).await.unwrap();
    world
        .create_group(group(1), user(1), &ids([2, 3]), "Choir")
        .await
        .unwrap();
    assert!(!world.is_member(group(1), user(3)).await);
    let refused = world.create_group(group(1), user(2), &[], "Mine").await.unwrap_err();
    assert_eq!(code(&refused), "ALREADY_EXISTS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_a_member_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    world.create_group(group(1), user(1), &ids([2, 3]), "").await.unwrap();
    world.remove(group(1), user(1), user(2)).await.unwrap();
    assert!(!world.is_member(group(1), user(2)).await);
    assert_eq!(world.listed_ids(user(2)).await, []);
    assert_eq!(code(&world.members(group(1), user(2)).await.unwrap_err()), "NOT_FOUND");
    // And may come back.
    add(&world, group(1), user(1), user(2)).await.unwrap();
    assert!(world.is_member(group(1), user(2)).await);
    assert_eq!(world.listed_ids(user(2)).await, [group(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_arrives_late_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    world.create_group(group(1), user(1), &ids([2]), "").await.unwrap();
    world.remove(group(1), user(1), user(2)).await.unwrap();
    let late = MembershipChanged {
        conversation_id: group(1).to_bytes(),
        user_id: user(2).to_bytes(),
        version: 2,
        role: Role::Member.into(),
        kind: Kind::Group.into(),
        ..MembershipChanged::default()
    };
    let request = ListMembershipRequest { change: Some(late) };
    world.at(user(2).slot()).list_membership(request).await.unwrap();
    assert_eq!(world.listed_ids(user(2)).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_outlives_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    world.create_group(group(1), user(1), &ids([2, 3]), "").await.unwrap();
    set_role(&world, group(1), user(1), user(3), Role::Admin).await.unwrap();
    world.remove(group(1), user(1), user(1)).await.unwrap();
    let roles = world.roles(group(1), user(2)).await;
    assert!(
        roles.contains(&(user(3), Role::Owner)) && roles.contains(&(user(2), Role::Member)),
        "{roles:?}"
    );
    assert_eq!(
        world.listed(user(3)).await[0].membership.as_ref().unwrap().role(),
        Role::Owner
    );
    // Who joined when is not what a change of role says.
    assert_eq!(
        world.listed(user(3)).await[0].membership.as_ref().unwrap().joined_at_ms,
        5_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_of_others_looks_like_one_that_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let (theirs, absent, stranger) = (group(1), group(2), user(9));
    world.create_group(theirs, user(1), &ids([2]), "Secret").await.unwrap();
    let mut answers = Vec::new();
    for id in [theirs, absent] {
        let refusals = [
            world.members(id, stranger).await.map(drop).unwrap_err(),
            add(&world, id, stranger, user(3)).await.unwrap_err(),
            add(&world, id, stranger, nobody()).await.unwrap_err(),
            world.remove(id, stranger, user(2)).await.unwrap_err(),
            world.remove(id, stranger, stranger).await.unwrap_err(),
            set_role(&world, id, stranger, user(2), Role::Admin).await.unwrap_err(),
        ];
        let text = |status: &Status| (code(status), status.message().replace(&id.to_string(), "?"));
        answers.push(refusals.iter().map(text).collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].iter().all(|(code, _)| code == "NOT_FOUND"), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_group_that_may_be_founded_at_once_is_founded() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let others = ids(1..256);
    let title = "a".repeat(80_000 / 256 - 230);
    let refused = world
        .create_group(group(1), user(0), &others, &format!("{title}a"))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "TOO_LARGE");
    world.create_group(group(1), user(0), &others, &title).await.unwrap();
    assert_eq!(world.members(group(1), user(0)).await.unwrap().len(), 256);
    let refused = world
        .create_group(group(2), user(0), &ids(1..258), "")
        .await
        .unwrap_err();
    assert_eq!(
        (code(&refused).as_str(), refused.message().contains("256")),
        ("INVALID_ARGUMENT", true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_conversations_is_read_in_pages_without_those_that_were_left() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let groups: Vec<ConversationId> = (1..8).map(group).collect();
    for id in &groups {
        world.create_group(*id, user(1), &ids([2]), "").await.unwrap();
    }
    for id in groups.iter().step_by(2) {
        world.remove(*id, user(2), user(2)).await.unwrap();
    }
    let mut expected: Vec<_> = groups.iter().skip(1).step_by(2).copied().collect();
    expected.sort_unstable();
    assert_eq!(world.listed_ids(user(2)).await, expected);
    assert_eq!(world.listed_ids(user(1)).await.len(), groups.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_by_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let refused = world
        .create_group(group(1), user(1), &[], &"x".repeat(129))
        .await
        .unwrap_err();
    assert_eq!(
        (code(&refused).as_str(), refused.message().contains("128")),
        ("INVALID_ARGUMENT", true)
    );
    let request = CreateGroupRequest {
        conversation_id: user(1).to_bytes(),
        creator_id: user(1).to_bytes(),
        ..CreateGroupRequest::default()
    };
    let refused = world.at(group(1).slot()).create_group(request).await.unwrap_err();
    assert!(
        code(&refused) == "INVALID_ARGUMENT" && refused.message().contains("conversationId"),
        "{refused}"
    );
}

async fn add(world: &World, id: ConversationId, actor: UserId, user: UserId) -> Result<(), Status> {
    let request = AddMemberRequest {
        conversation_id: id.to_bytes(),
        actor_id: actor.to_bytes(),
        user_id: user.to_bytes(),
        role: Role::Member.into(),
    };
    world.at(id.slot()).add_member(request).await?;
    Ok(())
}

async fn set_role(world: &World, id: ConversationId, actor: UserId, user: UserId, role: Role) -> Result<(), Status> {
    let request = SetRoleRequest {
        conversation_id: id.to_bytes(),
        actor_id: actor.to_bytes(),
        user_id: user.to_bytes(),
        role: role.into(),
    };
    world.at(id.slot()).set_role(request).await?;
    Ok(())
}
