//! The use cases.

mod keep;
mod query;
mod report;

use std::sync::Arc;

use antiphon_feed::Topics;
use antiphon_slot::Slots;
use antiphon_types::{Clock, UserId};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

pub(crate) use self::{keep::keep, query::query, report::report};
use crate::{
    PresenceOptions,
    adapters::announce::announce,
    roster::{Change, Roster},
};

/// Whether the first user may see the presence of the second.
pub type MaySee = Arc<dyn Fn(UserId, UserId) -> BoxFuture<'static, bool> + Send + Sync>;

/// What the use cases work with.
pub(crate) struct App {
    pub(crate) slots: Slots,
    pub(crate) topics: Arc<Topics>,
    pub(crate) clock: Clock,
    pub(crate) options: PresenceOptions,
    pub(crate) may_see: Option<MaySee>,
    pub(crate) roster: Mutex<Roster>,
}

impl App {
    /// Changes the roster and tells the watchers, in the order of the changes: both under one lock.
    fn change<C: IntoIterator<Item = Change>>(&self, act: impl FnOnce(&mut Roster) -> C) {
        let mut roster = self.roster.lock();
        for change in act(&mut roster) {
            announce(&self.topics, change);
        }
    }
}
