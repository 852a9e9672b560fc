//! The rules, as functions of what is stored and what is asked.

use antiphon_proto::log::{Idempotency, Inbox, Tail};
use antiphon_types::{ErrorCode, LogIndex, Seq, TimestampMs};

/// What the rules refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A message needs text.
    #[error("text is empty")]
    EmptyText,
    /// The text is too long.
    #[error("text of {size} bytes is over the limit of {limit} bytes")]
    TextTooLong {
        /// Its bytes.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// The idempotency key belongs to another text.
    #[error("clientMsgId {client_msg_id:?} was used for another text (seq {seq})")]
    KeyReused {
        /// The key.
        client_msg_id: String,
        /// The message it belongs to.
        seq: Seq,
    },
    /// A seq that no message has yet.
    #[error("{field} {seq} is beyond the last seq {last_seq}")]
    BeyondTail {
        /// The field.
        field: &'static str,
        /// Its value.
        seq: Seq,
        /// The bound.
        last_seq: Seq,
    },
    /// Both ways at once.
    #[error("afterSeq and beforeSeq exclude each other")]
    BothWays,
    /// More messages than one request may send.
    #[error("{count} messages are over the limit of {limit}")]
    TooManyMessages {
        /// How many came.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// More moves than one request may hold.
    #[error("{count} moves are over the limit of {limit}")]
    TooManyMoves {
        /// How many came.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// More conversations than one request may name.
    #[error("{count} conversations are over the limit of {limit}")]
    TooManyConversations {
        /// How many were named.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// A conversation of another slot than the request was sent to.
    #[error("the conversations of one request have to be of one slot")]
    MixedSlots,
}

impl Rejection {
    /// The code a client sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TextTooLong { .. } => ErrorCode::TooLarge,
            Self::KeyReused { .. } => ErrorCode::IdempotencyMismatch,
            Self::EmptyText
            | Self::BeyondTail { .. }
            | Self::BothWays
            | Self::TooManyMessages { .. }
            | Self::TooManyMoves { .. }
            | Self::TooManyConversations { .. }
            | Self::MixedSlots => ErrorCode::InvalidArgument,
        }
    }
}

/// Checks the text of a message.
pub(crate) const fn check_text(text: &str, bytes_max: usize) -> Result<(), Rejection> {
    if text.is_empty() {
        return Err(Rejection::EmptyText);
    }
    if text.len() > bytes_max {
        return Err(Rejection::TextTooLong {
            size: text.len(),
            limit: bytes_max,
        });
    }
    Ok(())
}

/// A message that was sent before under the same idempotency key: its seq and time, if the text is the same.
pub(crate) fn sent_before(
    found: &Idempotency,
    client_msg_id: &str,
    text_hash: &[u8],
) -> Result<(Seq, TimestampMs), Rejection> {
    if found.text_hash != text_hash {
        return Err(Rejection::KeyReused {
            client_msg_id: client_msg_id.to_owned(),
            seq: found.seq,
        });
    }
    Ok((found.seq, found.sent_at_ms))
}

/// The tail after one more message, whose entry will have log index `index`.
pub(crate) fn appended(tail: Option<Tail>, index: LogIndex) -> Tail {
    let tail = tail.unwrap_or(Tail {
        last_seq: 0,
        index: 0,
        first_seq: 1,
    });
    Tail {
        last_seq: tail.last_seq + 1,
        index,
        ..tail
    }
}

/// The inbox after `delivered` and `read` were asked for; none when it stays as it is (I6).
pub(crate) fn moved(
    inbox: &Inbox,
    delivered: Option<Seq>,
    read: Option<Seq>,
    last_seq: Seq,
) -> Result<Option<Inbox>, Rejection> {
    for (field, seq) in [("deliveredSeq", delivered), ("readSeq", read)] {
        if let Some(seq) = seq.filter(|seq| *seq > last_seq) {
            return Err(Rejection::BeyondTail { field, seq, last_seq });
        }
    }
    let read_seq = inbox.read_seq.max(read.unwrap_or(0));
    let delivered_seq = inbox.delivered_seq.max(delivered.unwrap_or(0)).max(read_seq);
    let after = Inbox {
        delivered_seq,
        read_seq,
    };
    Ok((after != *inbox).then_some(after))
}

/// Who hears that an inbox has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Every member.
    Members,
    /// The member's own devices.
    OwnDevices,
    /// Nobody.
    Nobody,
}

/// Who hears that an inbox of a conversation of `members` members has moved. Where there are many, each message would be told as many
/// times as members times members; of that, only what one device of a member has read matters to another.
pub(crate) const fn told(before: &Inbox, after: &Inbox, members: u32, members_max: u32) -> Told {
    if members <= members_max {
        Told::Members
    } else if after.read_seq > before.read_seq {
        Told::OwnDevices
    } else {
        Told::Nobody
    }
}

/// Where a page of history lies: the seqs from `first` to `last`, both included; empty when `first` > `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    /// Whether a page that is cut short keeps its end and not its beginning.
    pub(crate) from_end: bool,
}

/// The seqs that a page asked for this way may hold, of those that are kept and visible.
pub(crate) fn span(after: Option<Seq>, before: Option<Seq>, first_seq: Seq, tail_seq: Seq) -> Result<Span, Rejection> {
    match (after, before) {
        (Some(_), Some(_)) => Err(Rejection::BothWays),
        (Some(after), None) => Ok(Span {
            first: after.saturating_add(1).max(first_seq),
            last: tail_seq,
            from_end: false,
        }),
        (None, before) => {
            let last = before.map_or(tail_seq, |before| before.saturating_sub(1).min(tail_seq));
            Ok(Span {
                first: first_seq,
                last,
                from_end: true,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_inbox_only_grows_and_read_never_passes_delivered(
            moves in prop::collection::vec((prop::option::of(0..30_u64), prop::option::of(0..30_u64)), 0..40),
            last_seq in 0..25_u64,
        ) {
            let mut inbox = Inbox::default();
            for (delivered, read) in moves {
                let result = moved(&inbox, delivered, read, last_seq);
                let is_beyond = delivered.max(read).is_some_and(|seq| seq > last_seq);
                prop_assert_eq!(result.is_err(), is_beyond);
                if let Ok(Some(after)) = result {
                    prop_assert!(after.delivered_seq >= inbox.delivered_seq && after.read_seq >= inbox.read_seq);
                    prop_assert!(after.read_seq <= after.delivered_seq && after.delivered_seq <= last_seq);
                    inbox = after;
                }
            }
        }

        #[test]
        fn pages_never_leave_what_is_kept_and_visible(
            after in prop::option::of(any::<u64>()),
            before in prop::option::of(any::<u64>()),
            first_seq in 1..100_u64,
            len in 0..100_u64,
        ) {
            let tail_seq = first_seq + len - 1;
            let Ok(span) = span(after, before, first_seq, tail_seq) else {
                prop_assert!(after.is_some() && before.is_some());
                return Ok(());
            };
            prop_assert!(span.first >= first_seq && span.last <= tail_seq);
            for seq in first_seq..=tail_seq {
                let wanted = after.is_none_or(|after| seq > after) && before.is_none_or(|before| seq < before);
                prop_assert_eq!(wanted, (span.first..=span.last).contains(&seq));
            }
        }
    }

    #[test]
    fn in_a_large_conversation_only_a_members_own_devices_hear_and_only_what_it_has_read() {
        let inbox = |delivered_seq, read_seq| Inbox {
            delivered_seq,
            read_seq,
        };
        let (before, delivered, read) = (inbox(3, 1), inbox(4, 1), inbox(4, 2));
        assert_eq!(told(&before, &delivered, 10, 10), Told::Members);
        assert_eq!(told(&before, &read, 10, 10), Told::Members);
        assert_eq!(told(&before, &delivered, 11, 10), Told::Nobody);
        assert_eq!(told(&before, &read, 11, 10), Told::OwnDevices);
    }

    #[test]
    fn a_key_used_for_another_text_is_refused() {
        let found = Idempotency {
            seq: 7,
            sent_at_ms: 1,
            text_hash: vec![1].into(),
        };
        assert_eq!(sent_before(&found, "k", &[1]), Ok((7, 1)));
        let refused = sent_before(&found, "k", &[2]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "clientMsgId \"k\" was used for another text (seq 7)"
        );
    }

    #[test]
    fn the_first_message_has_seq_one() {
        assert_eq!(
            appended(None, 9),
            Tail {
                last_seq: 1,
                index: 9,
                first_seq: 1
            }
        );
    }
}
