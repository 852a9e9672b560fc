//! Accounts of the devices, and what they talk in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use antiphon_client::{Account, AccountError, Tokens};
use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{Say, Server};

/// Passwords are hashed to be slow: more at once only wait for each other.
const AT_ONCE: usize = 16;
/// Of one request (`conversation.request_users_max`), without the founder; others are added one by one.
const FOUNDERS_MAX: usize = 200;
/// After this many something is said.
const STEP: usize = 5_000;
const PASSWORD: &str = "correct horse battery";
/// The device that everybody logs in with.
pub(crate) const DEVICE: &str = "bench";

/// Who talks with whom.
pub(crate) struct Conversation {
    pub(crate) id: String,
    pub(crate) members: Vec<Tokens>,
}

/// Says how far something has come.
pub(crate) struct Progress {
    what: &'static str,
    of: usize,
    done: AtomicUsize,
    say: Say,
}

impl Progress {
    pub(crate) const fn new(what: &'static str, of: usize, say: Say) -> Self {
        let done = AtomicUsize::new(0);
        Self { what, of, done, say }
    }

    pub(crate) fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(STEP) {
            (self.say)(&format!("{done} of {} {}", self.of, self.what));
        }
    }
}

/// Registers this many users and logs each in.
pub(crate) async fn register(server: &Server, count: usize, say: Say) -> Result<Vec<Tokens>> {
    let run: u32 = rand::random();
    let account = server.account();
    let progress = Progress::new("users registered", count, say);
    let registering = stream::iter(0..count).map(|at| {
        let (account, progress) = (&account, &progress);
        async move {
            let name = format!("bench-{run:08x}-{at}");
            account.register(&name, PASSWORD).await?;
            let tokens = account.log_in(&name, PASSWORD, DEVICE).await?;
            progress.step();
            Ok(tokens)
        }
    });
    let registered: Result<_, AccountError> = registering.buffered(AT_ONCE).try_collect().await;
    registered.context("users cannot be registered")
}

/// Conversations of these sizes, each among users of its own.
pub(crate) async fn conversations(
    server: &Server,
    sizes: impl Iterator<Item = usize>,
    say: Say,
) -> Result<Vec<Conversation>> {
    let sizes: Vec<usize> = sizes.collect();
    let mut users = register(server, sizes.iter().sum(), say).await?.into_iter();
    let members = sizes.iter().map(|size| users.by_ref().take(*size).collect());
    begin_all(server, members.collect(), say).await
}

/// So many direct conversations among so many users.
pub(crate) async fn friends(server: &Server, users: usize, pairs: usize, say: Say) -> Result<Vec<Conversation>> {
    let of_each_side = users.saturating_sub(1) / 2;
    if pairs > users * of_each_side {
        bail!(
            "{pairs} pairs are too many for {users} users, who have {} at most",
            users * of_each_side
        );
    }
    let users = register(server, users, say).await?;
    // Each with the next, then each with the one after that, and so on.
    let mut members = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        let (first, further) = (pair % users.len(), pair / users.len() + 1);
        let second = (first + further) % users.len();
        members.push(vec![users[first].clone(), users[second].clone()]);
    }
    begin_all(server, members, say).await
}

async fn begin_all(server: &Server, members: Vec<Vec<Tokens>>, say: Say) -> Result<Vec<Conversation>> {
    let account = server.account();
    let progress = Progress::new("conversations begun", members.len(), say);
    let beginning = stream::iter(members).map(|members| {
        let (account, progress) = (&account, &progress);
        async move {
            let id = begin(account, &members, say).await?;
            progress.step();
            Ok(Conversation { id, members })
        }
    });
    let begun: Result<_, AccountError> = beginning.buffered(AT_ONCE).try_collect().await;
    begun.context("a conversation cannot be begun")
}

/// One who writes, those who listen, and the groups that they have in common.
pub(crate) struct Team {
    pub(crate) writer: Tokens,
    pub(crate) members: Vec<Tokens>,
    pub(crate) conversation_ids: Arc<[String]>,
}

/// Teams of users of their own.
pub(crate) async fn teams(
    server: &Server,
    count: usize,
    listeners: usize,
    conversations: usize,
    say: Say,
) -> Result<Vec<Team>> {
    let mut users = register(server, count * (listeners + 1), say).await?;
    let account = server.account();
    let progress = Progress::new("teams made", count, say);
    let members: Vec<Vec<Tokens>> = (0..count)
        .map(|_| users.split_off(users.len() - listeners - 1))
        .collect();
    let making = stream::iter(members).map(|mut members| {
        let (account, progress) = (&account, &progress);
        async move {
            let mut conversation_ids = Vec::new();
            for _ in 0..conversations {
                conversation_ids.push(group(account, &members, say).await?);
            }
            progress.step();
            Ok(Team {
                writer: members.remove(0),
                members,
                conversation_ids: conversation_ids.into(),
            })
        }
    });
    let made: Result<_, AccountError> = making.buffered(AT_ONCE).try_collect().await;
    made.context("a team cannot be made")
}

/// A direct conversation of two, a group of more.
async fn begin(account: &Account, members: &[Tokens], say: Say) -> Result<String, AccountError> {
    match members {
        [first, second] => account.open_direct(&first.access_token, &second.user_id).await,
        more => group(account, more, say).await,
    }
}

/// A group that the first of these users has founded.
async fn group(account: &Account, members: &[Tokens], say: Say) -> Result<String, AccountError> {
    let [founder, others @ ..] = members else {
        return Ok(String::new());
    };
    let token = founder.access_token.as_str();
    let (founders, later) = others.split_at(others.len().min(FOUNDERS_MAX));
    let founders: Vec<String> = founders.iter().map(|user| user.user_id.clone()).collect();
    let group = account.create_group(token, "bench", &founders).await?;
    let progress = Progress::new("members added", later.len(), say);
    let adding = stream::iter(later).map(Ok).try_for_each_concurrent(AT_ONCE, |member| {
        let (group, progress) = (group.as_str(), &progress);
        async move {
            account.add_member(token, group, &member.user_id).await?;
            progress.step();
            Ok::<_, AccountError>(())
        }
    });
    adding.await?;
    Ok(group)
}
