use std::collections::{BTreeMap, VecDeque};

use antiphon_proto::{
    Codec,
    client::{Lagged, ServerFrame, server_frame::Body},
};
use antiphon_types::{ConversationId, Seq};
use bytes::Bytes;

use crate::{Output, SessionOptions};

/// Something to be pushed, encoded already in the session's codec, so that many sessions share the bytes.
#[derive(Debug, Clone)]
pub enum Push {
    /// A message. When there is no room it is dropped, and `lagged` follows as soon as there is.
    Message {
        /// Its conversation.
        conversation_id: ConversationId,
        /// Its seq.
        seq: Seq,
        /// The encoded frame.
        frame: Bytes,
    },
    /// Messages up to `tail_seq` are not going to be pushed: the device is told to fetch.
    Lagged {
        /// Their conversation.
        conversation_id: ConversationId,
        /// The last of them.
        tail_seq: Seq,
    },
    /// A state that the next one replaces or a list shows (receipt, presence): dropped when there is no room.
    Signal(Bytes),
    /// What is worth nothing a moment later (somebody types): as a signal, and the transport may lose it or let it overtake.
    Fleeting(Bytes),
    /// What the device has to know (a membership changed): kept beyond the bound that messages have.
    Notice(Bytes),
}

/// A queue is over the bound that nothing may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// What waits to be written: one queue in order, with one bound for replies and one for pushes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Queued>,
    reply_frames: usize,
    push_frames: usize,
    push_bytes: usize,
    /// Conversations with dropped messages, and the last seq dropped.
    lagged: BTreeMap<ConversationId, Seq>,
}

#[derive(Debug)]
struct Queued {
    frame: Bytes,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reply,
    Push,
    Fleeting,
}

impl Outbox {
    /// Queues a reply, which is never dropped.
    pub(crate) fn reply(&mut self, frame: Bytes, options: &SessionOptions) -> Result<(), Overrun> {
        if self.reply_frames >= options.reply_frames_max + options.in_flight_max {
            return Err(Overrun);
        }
        self.reply_frames += 1;
        self.frames.push_back(Queued {
            frame,
            kind: Kind::Reply,
        });
        Ok(())
    }

    /// Queues the reply that every other frame comes after.
    pub(crate) fn welcome(&mut self, frame: Bytes) {
        self.reply_frames += 1;
        // The least that a queue grows to is four, and most sessions never have two frames waiting.
        self.frames.reserve_exact(1);
        self.frames.push_front(Queued {
            frame,
            kind: Kind::Reply,
        });
    }

    pub(crate) fn push(&mut self, push: Push, options: &SessionOptions) -> Result<(), Overrun> {
        match push {
            Push::Message {
                conversation_id,
                seq,
                frame,
            } => {
                // Behind a dropped message nothing of its conversation is pushed before `lagged` has said so.
                if !self.lagged.contains_key(&conversation_id) && self.has_room(frame.len(), options) {
                    self.queue(frame, Kind::Push);
                    return Ok(());
                }
                self.mark(conversation_id, seq, options)
            }
            Push::Lagged {
                conversation_id,
                tail_seq,
            } => self.mark(conversation_id, tail_seq, options),
            Push::Signal(frame) => {
                if self.has_room(frame.len(), options) {
                    self.queue(frame, Kind::Push);
                }
                Ok(())
            }
            Push::Fleeting(frame) => {
                if self.has_room(frame.len(), options) {
                    self.queue(frame, Kind::Fleeting);
                }
                Ok(())
            }
            Push::Notice(frame) => {
                if self.push_frames >= options.push_frames_max.saturating_mul(2) {
                    return Err(Overrun);
                }
                self.queue(frame, Kind::Push);
                Ok(())
            }
        }
    }

    /// The next frame to write.
    pub(crate) fn pop(&mut self, codec: Codec, options: &SessionOptions) -> Option<Output> {
        if !self.lagged.is_empty() {
            self.tell_lagged(codec, options);
        }
        let Some(queued) = self.frames.pop_front() else {
            // A burst is over: an idle session does not keep its room.
            if self.frames.capacity() > 16 {
                self.frames = VecDeque::new();
            }
            return None;
        };
        if queued.kind == Kind::Reply {
            self.reply_frames -= 1;
            return Some(Output::Frame(queued.frame));
        }
        self.push_frames -= 1;
        self.push_bytes -= queued.frame.len();
        Some(match queued.kind {
            Kind::Fleeting => Output::Fleeting(queued.frame),
            Kind::Reply | Kind::Push => Output::Frame(queued.frame),
        })
    }

    /// Drops every push that waits; replies stay.
    pub(crate) fn drop_pushes(&mut self) {
        self.frames.retain(|queued| queued.kind == Kind::Reply);
        (self.push_frames, self.push_bytes) = (0, 0);
        self.lagged.clear();
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn reply_frames(&self) -> usize {
        self.reply_frames
    }

    pub(crate) fn push_frames(&self) -> usize {
        self.push_frames
    }

    pub(crate) fn push_bytes(&self) -> usize {
        self.push_bytes
    }

    pub(crate) fn lagged_len(&self) -> usize {
        self.lagged.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.lagged.is_empty()
    }

    /// Turns marks into frames once the queue is half empty, so that a session at its bound is not told at every frame.
    fn tell_lagged(&mut self, codec: Codec, options: &SessionOptions) {
        if self.push_frames > options.push_frames_max / 2 || self.push_bytes > options.push_bytes_max / 2 {
            return;
        }
        while self.push_frames < options.push_frames_max
            && let Some((conversation_id, tail_seq)) = self.lagged.pop_first()
        {
            let lagged = Lagged {
                conversation_id: conversation_id.to_string(),
                tail_seq,
            };
            let frame = codec.encode(&ServerFrame {
                id: String::new(),
                body: Some(Body::Lagged(lagged)),
            });
            self.queue(frame, Kind::Push);
        }
    }

    fn mark(&mut self, conversation_id: ConversationId, seq: Seq, options: &SessionOptions) -> Result<(), Overrun> {
        if self.lagged.len() >= options.lagged_max && !self.lagged.contains_key(&conversation_id) {
            return Err(Overrun);
        }
        let tail_seq = self.lagged.entry(conversation_id).or_default();
        *tail_seq = seq.max(*tail_seq);
        Ok(())
    }

    fn has_room(&self, bytes: usize, options: &SessionOptions) -> bool {
        self.push_frames < options.push_frames_max && self.push_bytes.saturating_add(bytes) <= options.push_bytes_max
    }

    fn queue(&mut self, frame: Bytes, kind: Kind) {
        self.push_frames += 1;
        self.push_bytes += frame.len();
        self.frames.push_back(Queued { frame, kind });
    }
}
