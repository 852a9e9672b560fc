//! What is fuzzed: any bytes as a frame, and any bytes as the life of a session. The workspace's tests run the same.

use std::sync::Arc;

use antiphon_proto::{
    Codec,
    client::{Ok as Done, server_frame::Body},
};
use antiphon_session::{Accepted, CloseReason, Incoming, Output, Push, Refusal, Session, SessionOptions, Ticket};
use antiphon_types::{ConversationId, ErrorCode, Slot, UserId};
use bytes::Bytes;
use prost::Message as _;

const FRAME_BYTES_MAX: usize = 4_096;

/// Neither codec panics, and what one has read it reads again from its own bytes.
pub fn frame(data: &[u8]) {
    if let Ok(frame) = Incoming::Binary(data).decode(Codec::Binary, FRAME_BYTES_MAX) {
        let again = Incoming::Binary(&frame.encode_to_vec()).decode(Codec::Binary, usize::MAX);
        assert_eq!(again.as_ref(), Ok(&frame));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Incoming::Text(text).decode(Codec::Json, FRAME_BYTES_MAX);
    }
}

/// A session of any kind of device lives through whatever comes: queues keep their bounds, and nothing follows the close.
///
/// The first byte picks the codec; then each step is a byte that says what happens, one that says how much, and so many bytes.
pub fn session(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(first % 2)];
    let options = SessionOptions {
        frame_bytes_max: 200,
        push_frames_max: 4,
        push_bytes_max: 400,
        reply_frames_max: 4,
        in_flight_max: 3,
        lagged_max: 4,
        ..SessionOptions::default()
    };
    let mut session = Session::new(codec, Arc::new(options.clone()), 0);
    let (mut shell, mut now_ms) = (Shell::default(), 0);
    while let [what, amount, tail @ ..] = rest {
        let (bytes, after) = tail.split_at(usize::from(*amount).min(tail.len()));
        rest = after;
        match what % 10 {
            0 | 1 => session.handle_frame(Incoming::Binary(bytes), now_ms),
            2 | 3 => {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    session.handle_frame(Incoming::Text(text), now_ms);
                }
            }
            4 => session.handle_datagram(bytes, now_ms),
            5 => {
                now_ms += u64::from(*amount) * 1_000;
                session.handle_timeout(now_ms);
            }
            6 => session.push(Push::Message {
                conversation_id: ConversationId::new(Slot::DEPLOYMENT, 1, u64::from(amount % 8)),
                seq: now_ms,
                frame: Bytes::copy_from_slice(bytes),
            }),
            7 => session.push(Push::Notice(Bytes::copy_from_slice(bytes))),
            8 => shell.answer(&mut session, now_ms, amount % 2 == 0),
            _ => session.go_away(CloseReason::Draining, now_ms),
        }
        shell.poll(&mut session);
        let (push_frames, _, reply_frames) = session.waiting();
        assert!(push_frames <= options.push_frames_max * 2);
        assert!(reply_frames <= options.reply_frames_max + options.in_flight_max + 1);
        assert!(shell.tickets.len() <= options.in_flight_max);
    }
}

/// Carries out nothing, and keeps what there is to answer.
#[derive(Default)]
struct Shell {
    hello: Option<Ticket>,
    tickets: Vec<Ticket>,
    is_closed: bool,
}

impl Shell {
    fn poll(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            assert!(!self.is_closed, "{output:?} after the close");
            match output {
                Output::Frame(_) | Output::Fleeting(_) => {}
                Output::Hello(ticket, _) => self.hello = Some(ticket),
                Output::Reauth { ticket, .. } | Output::Send { ticket, .. } | Output::Request { ticket, .. } => {
                    self.tickets.push(ticket);
                }
                Output::Close(_) => self.is_closed = true,
            }
        }
    }

    fn answer(&mut self, session: &mut Session, now_ms: u64, is_fine: bool) {
        let refusal = || Refusal::new(ErrorCode::Internal, "no");
        if let Some(ticket) = self.hello.take() {
            if !is_fine {
                return session.refuse(ticket, refusal());
            }
            let accepted = Accepted {
                user_id: UserId::new(Slot::DEPLOYMENT, 1, 1),
                token_expires_at_ms: now_ms + 60_000,
                session_id: String::new(),
                region: String::new(),
                resumed: Vec::new(),
                unavailable: Vec::new(),
                edges: Vec::new(),
            };
            session.accept(ticket, accepted, now_ms);
        } else if let Some(ticket) = self.tickets.pop() {
            session.reply(ticket, if is_fine { Ok(Body::Ok(Done {})) } else { Err(refusal()) });
        }
    }
}
