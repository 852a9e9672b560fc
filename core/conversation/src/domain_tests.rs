use std::collections::BTreeMap;

use antiphon_types::Slot;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const MEMBERS_MAX: u32 = 6;

fn user(number: u8) -> UserId {
    UserId::new(Slot::DEPLOYMENT, 1, u64::from(number))
}

fn conversation() -> ConversationId {
    ConversationId::new(Slot::DEPLOYMENT, 1, 1)
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Add(u8, u8, Role),
    Remove(u8, u8),
    SetRole(u8, u8, Role),
}

fn roles() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::None, Role::Member, Role::Admin, Role::Owner])
}

fn commands() -> impl Strategy<Value = Command> {
    let users = 0..8_u8;
    prop_oneof![
        (users.clone(), users.clone(), roles()).prop_map(|(actor, target, role)| Command::Add(actor, target, role)),
        (users.clone(), users.clone()).prop_map(|(actor, target)| Command::Remove(actor, target)),
        (users.clone(), users, roles()).prop_map(|(actor, target, role)| Command::SetRole(actor, target, role)),
    ]
}

/// The members as a store would hold them.
#[derive(Default)]
struct Group {
    census: Census,
    members: BTreeMap<UserId, Standing>,
}

impl Group {
    fn founded(others: u8) -> Self {
        let mut group = Self::default();
        let others: Vec<UserId> = (1..=others).map(user).collect();
        group.apply(&found_group(user(0), &others, 0));
        group
    }

    fn view(&self, actor: u8, target: u8) -> View {
        View {
            conversation: conversation(),
            kind: Kind::Group,
            census: self.census,
            actor: self.members.get(&user(actor)).copied(),
            target: self.members.get(&user(target)).copied(),
        }
    }

    fn decide(&self, command: Command, now_ms: TimestampMs) -> Result<Change, Rejection> {
        match command {
            Command::Add(actor, target, role) => {
                add(&self.view(actor, target), user(target), role, now_ms, MEMBERS_MAX)
            }
            Command::Remove(actor, target) => {
                let others = self
                    .members
                    .values()
                    .copied()
                    .filter(|member| member.user != user(target));
                remove(&self.view(actor, target), others.reduce(heir))
            }
            Command::SetRole(actor, target, role) => set_role(&self.view(actor, target), user(target), role),
        }
    }

    fn apply(&mut self, change: &Change) {
        self.census = change.census;
        for step in &change.moves {
            if step.standing.role == Role::None {
                self.members.remove(&step.standing.user);
            } else {
                self.members.insert(step.standing.user, step.standing);
            }
        }
    }

    fn role(&self, number: u8) -> Role {
        self.members.get(&user(number)).map_or(Role::None, |member| member.role)
    }
}

proptest! {
    #[test]
    fn a_group_with_members_has_an_owner_and_exact_counts(
        others in 0..5_u8,
        commands in prop::collection::vec(commands(), 0..60),
    ) {
        let mut group = Group::founded(others);
        for (now_ms, command) in (1..).zip(commands) {
            let before = group.census;
            let Ok(change) = group.decide(command, now_ms) else { continue };
            group.apply(&change);
            let owners = group.members.values().filter(|member| member.role == Role::Owner).count();
            prop_assert_eq!(group.census.member_count as usize, group.members.len());
            prop_assert_eq!(group.census.owner_count as usize, owners);
            prop_assert!(owners > 0 || group.members.is_empty());
            prop_assert!(group.census.member_count <= MEMBERS_MAX);
            prop_assert_eq!(group.census.version, before.version + change.moves.len() as u64);
            let versions: Vec<u64> = change.moves.iter().map(|step| step.version).collect();
            prop_assert_eq!(versions, (before.version + 1..=group.census.version).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_gains_or_takes_more_than_the_own_role_allows(
        others in 0..5_u8,
        commands in prop::collection::vec(commands(), 0..60),
    ) {
        let mut group = Group::founded(others);
        for (now_ms, command) in (1..).zip(commands) {
            let (Command::Add(actor, target, _) | Command::Remove(actor, target) | Command::SetRole(actor, target, _)) =
                command;
            let (role, target_role) = (group.role(actor), group.role(target));
            let decided = group.decide(command, now_ms);
            let allowed = match command {
                _ if role == Role::None => false,
                Command::Add(_, _, wanted) => role == Role::Owner || role == Role::Admin && wanted == Role::Member,
                Command::Remove(..) if actor == target => true,
                Command::Remove(..) => role == Role::Owner || role == Role::Admin && target_role <= Role::Member,
                Command::SetRole(..) => role == Role::Owner,
            };
            match decided {
                Ok(change) => {
                    prop_assert!(allowed, "{:?} by {:?} on {:?}", command, role, target_role);
                    group.apply(&change);
                }
                Err(Rejection::NotAMember { .. }) => prop_assert_eq!(role, Role::None),
                Err(Rejection::NotAllowed { .. }) => prop_assert!(!allowed, "{:?} by {:?}", command, role),
                Err(other) => prop_assert!(allowed, "{:?}", other),
            }
        }
    }

    #[test]
    fn the_heir_does_not_depend_on_the_order_of_asking(
        mut members in prop::collection::vec((0..200_u8, roles(), 0..4_u64), 1..20),
        seed: u64,
    ) {
        members.sort_by_key(|member| member.0);
        members.dedup_by_key(|member| member.0);
        let standings: Vec<Standing> = members
            .iter()
            .map(|(number, role, joined_at_ms)| Standing { user: user(*number), role: *role, joined_at_ms: *joined_at_ms })
            .collect();
        let mut turned = standings.clone();
        turned.rotate_left(usize::try_from(seed % standings.len() as u64).unwrap());
        prop_assert_eq!(standings.into_iter().reduce(heir), turned.into_iter().reduce(heir));
    }

    #[test]
    fn a_list_ends_the_same_whatever_the_order_and_repeats_of_changes(
        roles in prop::collection::vec(roles(), 1..8),
        arrivals in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let changes: Vec<MembershipChanged> = (1..).zip(&roles).map(|(version, role)| changed(version, *role)).collect();
        let mut listed = None;
        for change in changes.iter().chain(arrivals.iter().map(|index| index.get(&changes))).rev() {
            listed = merge(listed.as_ref(), change).or(listed);
        }
        let last = changes.last().unwrap();
        prop_assert_eq!(listed, merge(None, last));
    }
}

fn changed(version: u64, role: Role) -> MembershipChanged {
    MembershipChanged {
        conversation_id: conversation().to_bytes(),
        user_id: user(1).to_bytes(),
        version,
        role: role.into(),
        kind: Kind::Group.into(),
        title: format!("title at {version}"),
        peer_id: Bytes::new(),
        changed_at_ms: version,
        joined_at_ms: version,
    }
}

#[test]
fn an_older_addition_does_not_undo_a_removal() {
    let removed = merge(None, &changed(2, Role::None)).unwrap();
    assert_eq!(merge(Some(&removed), &changed(1, Role::Member)), None);
}

#[test]
fn a_leaving_last_owner_is_followed_by_the_longest_standing_admin() {
    let mut group = Group::founded(1);
    for (now_ms, command) in [
        (1, Command::Add(0, 3, Role::Member)),
        (2, Command::Add(0, 4, Role::Member)),
        (3, Command::SetRole(0, 4, Role::Admin)),
        (4, Command::SetRole(0, 3, Role::Admin)),
        (5, Command::Remove(0, 0)),
    ] {
        let change = group.decide(command, now_ms).unwrap();
        group.apply(&change);
    }
    assert_eq!(
        (group.role(0), group.role(3), group.role(4)),
        (Role::None, Role::Owner, Role::Admin)
    );
}

#[test]
fn a_leaving_last_owner_without_admins_is_followed_by_a_member() {
    let mut group = Group::founded(2);
    let change = group.decide(Command::Remove(0, 0), 1).unwrap();
    group.apply(&change);
    assert_eq!((group.role(1), group.role(2)), (Role::Owner, Role::Member));
}

#[test]
fn the_only_owner_cannot_step_down() {
    let group = Group::founded(2);
    let refused = group.decide(Command::SetRole(0, 0, Role::Member), 1);
    assert!(matches!(refused, Err(Rejection::LastOwner { .. })), "{refused:?}");
}

#[test]
fn the_last_member_leaves_an_empty_group() {
    let group = Group::founded(0);
    let change = group.decide(Command::Remove(0, 0), 1).unwrap();
    assert_eq!((change.census.member_count, change.census.owner_count), (0, 0));
}

#[test]
fn adding_a_member_again_changes_nothing() {
    let group = Group::founded(1);
    let change = group.decide(Command::Add(0, 1, Role::Admin), 1).unwrap();
    assert_eq!((change.census, change.moves), (group.census, Vec::new()));
}

#[test]
fn a_full_group_takes_nobody_in() {
    let group = Group::founded(5);
    let refused = group.decide(Command::Add(0, 6, Role::Member), 1);
    assert!(
        matches!(
            refused,
            Err(Rejection::Full {
                members_max: MEMBERS_MAX,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn a_direct_conversation_can_be_neither_left_nor_changed() {
    let mut group = Group::default();
    group.apply(&open_direct(user(0), user(1), 1));
    let view = View {
        kind: Kind::Direct,
        ..group.view(0, 0)
    };
    let expected = Err(Rejection::Direct {
        conversation: conversation(),
    });
    assert_eq!(remove(&view, None), expected);
    assert_eq!(add(&view, user(2), Role::Member, 1, MEMBERS_MAX), expected);
    assert_eq!(set_role(&view, user(0), Role::Owner), expected);
}

#[test]
fn a_founder_named_among_the_members_is_owner_once() {
    let change = found_group(user(0), &[user(0), user(1)], 1);
    assert_eq!((change.census.member_count, change.census.owner_count), (2, 1));
}
