//! The rules of membership: pure functions from what is stored and what is asked to what changes.

use antiphon_proto::log::{Kind, Membership, MembershipChanged, Role};
use antiphon_types::{ConversationId, ErrorCode, TimestampMs, UserId};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such conversation, or the caller is not a member of it. One answer for both, so that nobody can probe
    /// for conversations of others.
    #[error("conversation {conversation} does not exist, or you are not a member of it")]
    NotAMember {
        /// The conversation asked for.
        conversation: ConversationId,
    },
    /// No account has this id.
    #[error("user {user} does not exist")]
    UnknownUser {
        /// The id.
        user: UserId,
    },
    /// The user whose role is to change is not a member.
    #[error("user {user} is not a member of conversation {conversation}")]
    UnknownMember {
        /// The conversation.
        conversation: ConversationId,
        /// Who is no member of it.
        user: UserId,
    },
    /// A direct conversation with oneself.
    #[error("a direct conversation needs two users, and {user} was named twice")]
    WithOneself {
        /// The user.
        user: UserId,
    },
    /// The members of a direct conversation do not change.
    #[error("conversation {conversation} is direct: its two members can neither leave it nor be changed")]
    Direct {
        /// The conversation.
        conversation: ConversationId,
    },
    /// The caller's role does not allow it.
    #[error("as {} of conversation {conversation} you may not {what}", name(.role))]
    NotAllowed {
        /// The conversation.
        conversation: ConversationId,
        /// The caller's role.
        role: Role,
        /// What was asked.
        what: &'static str,
    },
    /// The only owner cannot step down.
    #[error("{user} is the only owner of conversation {conversation}: make another member an owner first")]
    LastOwner {
        /// The conversation.
        conversation: ConversationId,
        /// Its owner.
        user: UserId,
    },
    /// The group holds as many members as it may.
    #[error("conversation {conversation} has {members_max} members, which is the limit")]
    Full {
        /// The conversation.
        conversation: ConversationId,
        /// The limit.
        members_max: u32,
    },
    /// A request names more users than it may.
    #[error("{count} users in one request are over the limit of {limit}")]
    TooManyUsers {
        /// How many were named.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// So many members and so long a title do not fit into one log entry.
    #[error(
        "{members} members and a title of {title_bytes} bytes are too much for one request: shorten it, or add members later"
    )]
    FoundingTooLarge {
        /// How many members.
        members: usize,
        /// Bytes of the title.
        title_bytes: usize,
    },
    /// A role that nobody can be given.
    #[error("a member's role is member, admin or owner")]
    NoRole,
    /// The id of a new conversation is taken.
    #[error("conversation {conversation} exists already")]
    Exists {
        /// The id.
        conversation: ConversationId,
    },
}

impl Rejection {
    /// The code a client sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotAMember { .. } | Self::UnknownUser { .. } | Self::UnknownMember { .. } => ErrorCode::NotFound,
            Self::Direct { .. } | Self::NotAllowed { .. } => ErrorCode::Forbidden,
            Self::WithOneself { .. } | Self::TooManyUsers { .. } | Self::NoRole => ErrorCode::InvalidArgument,
            Self::FoundingTooLarge { .. } => ErrorCode::TooLarge,
            Self::LastOwner { .. } | Self::Full { .. } => ErrorCode::FailedPrecondition,
            Self::Exists { .. } => ErrorCode::AlreadyExists,
        }
    }
}

/// How many members a conversation has, and the version of their list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) version: u64,
    pub(crate) member_count: u32,
    pub(crate) owner_count: u32,
}

/// A member as the rules see one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    pub(crate) joined_at_ms: TimestampMs,
}

/// What a command about one member is decided on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) conversation: ConversationId,
    pub(crate) kind: Kind,
    pub(crate) census: Census,
    /// Who asks; none when not a member.
    pub(crate) actor: Option<Standing>,
    /// Whom it is about; none when not a member.
    pub(crate) target: Option<Standing>,
}

/// One member's new standing; role NONE: a member no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) standing: Standing,
    /// The version of the member list that this move made; each move has its own.
    pub(crate) version: u64,
}

/// What a command changes; without moves it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) census: Census,
    pub(crate) moves: Vec<Move>,
}

/// Decides who founds a group: the creator as owner, the others as members.
pub(crate) fn found_group(creator: UserId, members: &[UserId], now_ms: TimestampMs) -> Change {
    let mut change = Change::none(Census::default());
    change.admit(creator, Role::Owner, now_ms);
    for member in members.iter().filter(|member| **member != creator) {
        change.admit(*member, Role::Member, now_ms);
    }
    change
}

/// Decides the members of a direct conversation: two, neither above the other.
pub(crate) fn open_direct(creator: UserId, peer: UserId, now_ms: TimestampMs) -> Change {
    let mut change = Change::none(Census::default());
    change.admit(creator, Role::Member, now_ms);
    change.admit(peer, Role::Member, now_ms);
    change
}

/// Decides on adding `user`. Who is a member already stays as is.
pub(crate) fn add(
    view: &View,
    user: UserId,
    role: Role,
    now_ms: TimestampMs,
    members_max: u32,
) -> Result<Change, Rejection> {
    let actor = view.actor_in_group()?;
    match actor.role {
        Role::Owner => {}
        Role::Admin if role == Role::Member => {}
        Role::Admin => return Err(view.not_allowed(actor, "add admins or owners")),
        Role::Member | Role::None => return Err(view.not_allowed(actor, "add members")),
    }
    if role == Role::None {
        return Err(Rejection::NoRole);
    }
    let mut change = Change::none(view.census);
    if view.target.is_some() {
        return Ok(change);
    }
    if view.census.member_count >= members_max {
        return Err(Rejection::Full {
            conversation: view.conversation,
            members_max,
        });
    }
    change.admit(user, role, now_ms);
    Ok(change)
}

/// Decides on removing the target; removing oneself is leaving. `heir` is asked for only when the last owner goes: see [`View::needs_heir`].
pub(crate) fn remove(view: &View, heir: Option<Standing>) -> Result<Change, Rejection> {
    let actor = view.actor_in_group()?;
    let may = match (actor.role, view.target) {
        (Role::Owner, _) | (Role::Admin, None) => true,
        (_, Some(target)) if target.user == actor.user => true,
        (Role::Admin, Some(target)) => target.role == Role::Member,
        (Role::Member | Role::None, _) => false,
    };
    if !may {
        let what = match actor.role {
            Role::Admin | Role::Owner => "remove admins or owners",
            Role::Member | Role::None => "remove other members",
        };
        return Err(view.not_allowed(actor, what));
    }
    let mut change = Change::none(view.census);
    let Some(target) = view.target else {
        return Ok(change);
    };
    change.turn(target, Role::None);
    if view.needs_heir()
        && let Some(heir) = heir
    {
        change.turn(heir, Role::Owner);
    }
    Ok(change)
}

/// Decides on a new role of the target; only owners give and take roles.
pub(crate) fn set_role(view: &View, user: UserId, role: Role) -> Result<Change, Rejection> {
    let actor = view.actor_in_group()?;
    if actor.role != Role::Owner {
        return Err(view.not_allowed(actor, "change roles"));
    }
    if role == Role::None {
        return Err(Rejection::NoRole);
    }
    let Some(target) = view.target else {
        return Err(Rejection::UnknownMember {
            conversation: view.conversation,
            user,
        });
    };
    let mut change = Change::none(view.census);
    if target.role == role {
        return Ok(change);
    }
    if target.role == Role::Owner && view.census.owner_count == 1 {
        return Err(Rejection::LastOwner {
            conversation: view.conversation,
            user,
        });
    }
    change.turn(target, role);
    Ok(change)
}

/// Who inherits a group from its last owner, out of two who might: the higher role, then who joined first, then the
/// smaller id. Any order of asking ends at the same one.
pub(crate) fn heir(a: Standing, b: Standing) -> Standing {
    let rank = |standing: &Standing| (std::cmp::Reverse(standing.role), standing.joined_at_ms, standing.user);
    if rank(&a) <= rank(&b) { a } else { b }
}

/// Lays a change over what a user's own list holds of the conversation; none when the list holds this version or a later
/// one. A removal is kept as a tombstone, so that an older addition that arrives late brings nothing back.
pub(crate) fn merge(listed: Option<&Membership>, change: &MembershipChanged) -> Option<Membership> {
    if listed.is_some_and(|listed| listed.version >= change.version) {
        return None;
    }
    Some(Membership {
        role: change.role,
        kind: change.kind,
        title: change.title.clone(),
        peer_id: change.peer_id.clone(),
        version: change.version,
        joined_at_ms: change.joined_at_ms,
    })
}

impl View {
    /// Whether the target is the last owner and leaves others behind: the group then passes to an heir.
    pub(crate) fn needs_heir(&self) -> bool {
        self.target.is_some_and(|target| target.role == Role::Owner)
            && self.census.owner_count == 1
            && self.census.member_count > 1
    }

    fn actor_in_group(&self) -> Result<Standing, Rejection> {
        let conversation = self.conversation;
        let actor = self.actor.ok_or(Rejection::NotAMember { conversation })?;
        if self.kind == Kind::Direct {
            return Err(Rejection::Direct { conversation });
        }
        Ok(actor)
    }

    const fn not_allowed(&self, actor: Standing, what: &'static str) -> Rejection {
        Rejection::NotAllowed {
            conversation: self.conversation,
            role: actor.role,
            what,
        }
    }
}

impl Change {
    const fn none(census: Census) -> Self {
        Self {
            census,
            moves: Vec::new(),
        }
    }

    fn admit(&mut self, user: UserId, role: Role, now_ms: TimestampMs) {
        let newcomer = Standing {
            user,
            role: Role::None,
            joined_at_ms: now_ms,
        };
        self.turn(newcomer, role);
    }

    fn turn(&mut self, from: Standing, role: Role) {
        let census = &mut self.census;
        census.version += 1;
        census.member_count = census.member_count + u32::from(role != Role::None) - u32::from(from.role != Role::None);
        census.owner_count = census.owner_count + u32::from(role == Role::Owner) - u32::from(from.role == Role::Owner);
        self.moves.push(Move {
            standing: Standing { role, ..from },
            version: census.version,
        });
    }
}

const fn name(role: &Role) -> &'static str {
    match role {
        Role::None => "no member",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

#[cfg(test)]
#[path = "domain_tests.rs"]
mod tests;
