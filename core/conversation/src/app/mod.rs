//! The use cases, one a file.

mod add_member;
mod check_members;
mod create_direct;
mod create_group;
mod list_conversations;
mod list_members;
mod list_membership;
mod open_direct;
mod pair_exists;
mod remove_member;
mod set_role;

use antiphon_directory::Route;
use antiphon_proto::log::Conversation;
use antiphon_slot::{SlotTxn, Slots};
use antiphon_types::{Clock, ConversationId, LogIndex, Slot, UserId};

pub(crate) use add_member::{AddMember, add_member};
pub(crate) use check_members::check_members;
pub(crate) use create_direct::{CreateDirect, create_direct};
pub(crate) use create_group::{CreateGroup, create_group};
pub(crate) use list_conversations::list_conversations;
pub(crate) use list_members::list_members;
pub(crate) use list_membership::list_membership;
pub(crate) use open_direct::open_direct;
pub(crate) use pair_exists::pair_exists;
pub(crate) use remove_member::remove_member;
pub(crate) use set_role::{SetRole, set_role};

use crate::{ConversationError, ConversationOptions, Rejection, adapters::store, domain::View};

/// What the use cases work with.
pub(crate) struct App {
    pub(crate) slots: Slots,
    pub(crate) route: Route,
    pub(crate) clock: Clock,
    pub(crate) options: ConversationOptions,
}

impl App {
    /// Waits until the members' own lists hold the change at `index`. Late is not lost: the courier goes on, and the answer
    /// is given all the same.
    async fn listed(&self, slot: Slot, index: LogIndex) {
        if !self.slots.carried(slot, index, self.options.carried_timeout).await {
            metrics::counter!("antiphon_conversation_listed_late_total").increment(1);
            tracing::warn!(slot = slot.number(), index, "members' lists do not hold a change yet");
        }
    }

    /// The length of a page: what was asked for within the limit, the limit where nothing was asked for.
    fn page_len(&self, limit: u32) -> usize {
        match usize::try_from(limit) {
            Ok(limit) if limit > 0 => limit.min(self.options.page_len_max),
            Ok(_) | Err(_) => self.options.page_len_max,
        }
    }
}

/// Reads what a command of `actor` about `target` is decided on.
async fn view(
    txn: &SlotTxn,
    id: ConversationId,
    actor: UserId,
    target: UserId,
) -> Result<(Conversation, View), ConversationError> {
    let Some(conversation) = store::conversation(txn, id).await? else {
        return Err(Rejection::NotAMember { conversation: id }.into());
    };
    let view = View {
        conversation: id,
        kind: conversation.kind(),
        census: store::census(&conversation),
        actor: store::standing(txn, id, actor).await?,
        target: store::standing(txn, id, target).await?,
    };
    Ok((conversation, view))
}
