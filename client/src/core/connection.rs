//! How a connection begins and ends.

use antiphon_proto::client::{ClientFrame, Cursor, Hello, Resumed, Welcome, client_frame};

use super::{Core, Event, Output, Pending, unavailable};
use crate::Transport;

impl Core {
    /// The first frame of a new connection.
    #[must_use]
    pub fn hello(&self, access_token: &str, device_id: &str, cursors_max: usize) -> ClientFrame {
        let cursors = self.cursors().into_iter().take(cursors_max);
        let cursors = cursors
            .map(|(conversation_id, after_seq)| Cursor {
                conversation_id,
                after_seq,
            })
            .collect();
        let hello = Hello {
            access_token: access_token.to_owned(),
            device_id: device_id.to_owned(),
            cursors,
        };
        ClientFrame {
            id: "hello".to_owned(),
            body: Some(client_frame::Body::Hello(hello)),
        }
    }

    /// The last seq held of each conversation: what to start the next process with.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, u64)> {
        self.conversations
            .iter()
            .filter_map(|(id, held)| Some((id.clone(), held.have()?)))
            .collect()
    }

    /// The server has welcomed the connection.
    pub fn connected(&mut self, welcome: Welcome, transport: Transport, now_ms: u64) {
        self.is_connected = true;
        self.own_id = welcome.user_id;
        self.outputs.push_back(Output::Event(Event::Connected {
            region: welcome.region,
            transport,
        }));
        for resumed in welcome.resumed {
            self.resumes(resumed, now_ms);
        }
        for unavailable in welcome.unavailable {
            self.tell(Event::Unavailable {
                conversation_id: unavailable.conversation_id,
                retry_after_ms: unavailable.retry_after_ms,
            });
        }
        self.transmit_outbox(now_ms);
        self.transmit_marks(now_ms);
    }

    /// A conversation that was unavailable at Welcome can be reached.
    pub(super) fn resumed(&mut self, resumed: Resumed, now_ms: u64) {
        let conversation_id = resumed.conversation_id.clone();
        self.resumes(resumed, now_ms);
        self.tell(Event::Resumed { conversation_id });
    }

    fn resumes(&mut self, resumed: Resumed, now_ms: u64) {
        let Some(conversation) = self.conversations.get_mut(&resumed.conversation_id) else {
            return;
        };
        let truncated_from_seq = resumed
            .truncated_from_seq
            .filter(|from_seq| conversation.truncate(*from_seq));
        conversation.reaches(resumed.tail_seq, now_ms + self.options.resume_patience_ms);
        if let Some(from_seq) = truncated_from_seq {
            self.tell(Event::Truncated {
                conversation_id: resumed.conversation_id,
                from_seq,
            });
        }
    }

    /// The connection is gone. What was under way is sent again on the next one.
    pub fn disconnected(&mut self, reason: String) {
        if self.is_connected {
            self.outputs.push_back(Output::Event(Event::Disconnected { reason }));
        }
        self.is_connected = false;
        self.outbox.disconnected();
        self.marks.disconnected();
        for conversation in self.conversations.values_mut() {
            conversation.disconnected();
        }
        for (_, pending) in std::mem::take(&mut self.pending) {
            if let Pending::App { number } = pending {
                self.answer(number, Err(unavailable("the connection was lost")));
            }
        }
    }
}
