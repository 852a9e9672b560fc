use antiphon_conversation::membership;
use antiphon_kv::RangeRead;
use antiphon_proto::{
    log::{StoredMessage, Tail},
    rpc::HistoryResponse,
};
use antiphon_slot::{SlotError, SlotRead, Slots};
use antiphon_types::{ConversationId, LogIndex, Seq, UserId};

use crate::{
    MessageError, MessageOptions,
    adapters::{keys, store},
    domain,
};

/// What is asked of history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) conversation: ConversationId,
    /// None: an edge asks for its feed.
    pub(crate) member: Option<UserId>,
    pub(crate) after_seq: Option<Seq>,
    pub(crate) before_seq: Option<Seq>,
    /// 0: the default.
    pub(crate) limit: usize,
}

/// Reads a page of history, in ascending seq, of what the high watermark has passed.
pub(crate) async fn history(
    slots: &Slots,
    options: &MessageOptions,
    asked: Asked,
) -> Result<HistoryResponse, MessageError> {
    slots
        .read_filtered(asked.conversation.slot(), |read| page(read, options, asked))
        .await
}

async fn page(read: SlotRead, options: &MessageOptions, asked: Asked) -> Result<HistoryResponse, MessageError> {
    if let Some(member) = asked.member {
        membership::member_at(&read, asked.conversation, member).await?;
    }
    let tail = tail(&read, asked.conversation).await?;
    let span = domain::span(asked.after_seq, asked.before_seq, tail.first_seq, tail.last_seq)?;
    let mut response = HistoryResponse {
        messages: Vec::new(),
        tail_seq: tail.last_seq,
        first_seq: tail.first_seq,
    };
    if span.first > span.last {
        return Ok(response);
    }
    let len_max = if asked.limit == 0 {
        options.page_len_default
    } else {
        asked.limit.min(options.page_len_max)
    };
    let range = RangeRead {
        start: keys::message(asked.conversation, span.first),
        end: keys::message(asked.conversation, span.last.saturating_add(1)),
        limit: len_max,
        reverse: span.from_end,
    };
    let mut bytes = 0;
    for pair in read.range(range).await?.pairs {
        let Some(seq) = keys::message_seq(&pair.key) else {
            return Err(SlotError::Corrupt {
                what: "a message's key".to_owned(),
                reason: format!("{:?}", pair.key),
            }
            .into());
        };
        bytes += pair.value.len();
        if bytes > options.page_bytes_max && !response.messages.is_empty() {
            break;
        }
        let stored: StoredMessage = store::decode("a message", pair.value)?;
        response.messages.push(store::shown(asked.conversation, seq, stored)?);
    }
    if span.from_end {
        response.messages.reverse();
    }
    Ok(response)
}

/// A conversation's tail as far as the high watermark shows it.
pub(crate) async fn tail(read: &SlotRead, conversation: ConversationId) -> Result<Tail, SlotError> {
    let stored: Option<Tail> = store::decoded("a tail", read.get(&keys::tail(conversation)).await?)?;
    let Some(mut tail) = stored else {
        return Ok(Tail {
            last_seq: 0,
            index: 0,
            first_seq: 1,
        });
    };
    // Messages above the high watermark are few: those of the batches under way.
    while tail.index > read.high_watermark() && tail.last_seq >= tail.first_seq {
        tail.last_seq -= 1;
        tail.index = index_of(read, conversation, tail.last_seq).await?;
    }
    Ok(tail)
}

/// The log index that wrote a message; 0 where there is none.
async fn index_of(read: &SlotRead, conversation: ConversationId, seq: Seq) -> Result<LogIndex, SlotError> {
    let stored = read.get(&keys::message(conversation, seq)).await?;
    Ok(store::decoded::<StoredMessage>("a message", stored)?.map_or(0, |message| message.index))
}
