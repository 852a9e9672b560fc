//! The conversation itself.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use antiphon_client::{Client, ClientOptions, Event, OutboxFull, Sending, Tokens, Transport};
use antiphon_proto::client::{ConversationEvent, Fetch, Message, Receipt};
use anyhow::{Result, bail};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    log_in::{Picked, Session},
    screen::Screen,
};

/// Messages of history shown at the start and by `/history`.
const HISTORY_LEN: u32 = 20;

/// How long the first connection may take before it is said that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A typing hint is shown at most this often.
const TYPING_SHOWN: Duration = Duration::from_secs(5);

const HELP: &str = "\
/history [SEQ]  earlier messages (before SEQ)
/members        who is here
/list           your conversations
/quit           leave (or Ctrl-D)";

pub(crate) struct Talk {
    session: Session,
    picked: Picked,
    screen: Screen,
    client: Client,
    names: HashMap<String, String>,
    read_by: HashMap<String, u64>,
    oldest_shown: u64,
    typing_shown_at: Option<Instant>,
    sending: JoinSet<Result<u64, String>>,
    /// A line that the full outbox did not take; no other is read before it.
    held: Option<String>,
}

impl Talk {
    /// Talks until the user leaves or the log-in ends.
    pub(crate) async fn start(
        session: Session,
        picked: Picked,
        transport: Option<Transport>,
        screen: Screen,
    ) -> Result<()> {
        let options = ClientOptions {
            transport,
            certificate_sha256: session.certificate_sha256.clone(),
            ..ClientOptions::new(session.account.server(), &session.device_id)
        };
        let (client, events, driver) = Client::start(options, session.tokens.clone());
        let own_id = session.tokens.user_id.clone();
        let mut talk = Self {
            session,
            picked,
            screen,
            client,
            names: HashMap::from([(own_id, "you".to_owned())]),
            read_by: HashMap::new(),
            oldest_shown: 0,
            typing_shown_at: None,
            sending: JoinSet::new(),
            held: None,
        };
        let result = talk.run(events).await;
        talk.client.close().await;
        // The driver ends with its client; a panic in it was logged.
        let _ = driver.await;
        result
    }

    async fn run(&mut self, mut events: mpsc::Receiver<Event>) -> Result<()> {
        match timeout(PATIENCE, events.recv()).await {
            Ok(Some(event)) => self.event(event).await?,
            Ok(None) => bail!("the client has stopped"),
            Err(_) => self.screen.note("no connection yet; trying on"),
        }
        let title = self.screen.bold(&self.picked.title);
        self.screen
            .note(&format!("talking with {title}; /help lists the commands"));
        self.history(None).await;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event).await?,
                    None => return Ok(()),
                },
                line = self.screen.line(), if self.held.is_none() => match line.as_deref().map(str::trim) {
                    None | Some("/quit") => return self.leave(&mut events).await,
                    Some("") => {}
                    Some(line) => self.line(line).await?,
                },
                Some(sent) = self.sending.join_next() => self.sent(sent.unwrap_or_else(|error| Err(error.to_string()))),
            }
        }
    }

    async fn line(&mut self, line: &str) -> Result<()> {
        let Some(command) = line.strip_prefix('/') else {
            self.send(line);
            return Ok(());
        };
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "help" => self.screen.say(HELP),
            "history" => {
                let before = rest
                    .trim()
                    .parse()
                    .ok()
                    .or_else(|| (self.oldest_shown > 1).then_some(self.oldest_shown));
                self.history(before).await;
            }
            "members" => self.members().await?,
            "list" => self.list().await?,
            _ => self
                .screen
                .note(&format!("/{verb} is not known; /help lists the commands")),
        }
        Ok(())
    }

    fn send(&mut self, text: &str) {
        match self.client.send(&self.picked.id, text) {
            Ok(sending) => self.follow(sending),
            // Who types can type it again; a pipe cannot, and waits.
            Err(full) if self.screen.is_terminal() => self.screen.note(&format!("not sent: {full}")),
            Err(OutboxFull { .. }) => self.held = Some(text.to_owned()),
        }
    }

    fn follow(&mut self, sending: Sending) {
        self.sending.spawn(async move {
            sending
                .sent()
                .await
                .map(|sent| sent.seq)
                .map_err(|error| error.to_string())
        });
    }

    fn sent(&mut self, sent: Result<u64, String>) {
        match sent {
            Ok(seq) => {
                let mark = self.screen.dim(&format!("✓ {seq}"));
                self.screen.say(&mark);
            }
            Err(error) => self.screen.note(&format!("not sent: {error}")),
        }
        // An answer has made room.
        if let Some(text) = self.held.take() {
            self.send(&text);
        }
    }

    /// Lets what was typed last still be sent. Events are taken meanwhile: a client that cannot pass them on reads no answers.
    async fn leave(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        let mut answered_at = Instant::now();
        while !self.sending.is_empty() {
            tokio::select! {
                Some(sent) = self.sending.join_next() => {
                    answered_at = Instant::now();
                    self.sent(sent.unwrap_or_else(|error| Err(error.to_string())));
                }
                Some(event) = events.recv() => self.event(event).await?,
                () = sleep_until((answered_at + PATIENCE).into()) => {
                    bail!("{} messages could not be sent", self.sending.len());
                }
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Message(message) if message.conversation_id == self.picked.id => {
                let seq = message.seq;
                self.show(message).await;
                self.client.read(&self.picked.id, seq);
            }
            Event::Message(message) => {
                let name = self.name(&message.sender_id).await;
                self.screen.note(&format!("{name} wrote to you elsewhere"));
            }
            Event::Receipt(receipt) => self.receipt(receipt).await,
            Event::Typing(typing) if typing.conversation_id == self.picked.id => {
                if self.typing_shown_at.is_none_or(|at| at.elapsed() > TYPING_SHOWN) {
                    self.typing_shown_at = Some(Instant::now());
                    let name = self.name(&typing.user_id).await;
                    self.screen.note(&format!("{name} is typing"));
                }
            }
            Event::Conversation(change) => self.membership(change).await,
            Event::Connected { region, transport } => {
                self.screen.note(&format!("connected to {region} over {transport}"));
            }
            Event::Disconnected { reason } => {
                self.screen.note(&format!(
                    "connection lost ({reason}); what you write is kept and sent later"
                ));
            }
            Event::Truncated { from_seq, .. } => {
                self.screen
                    .note(&format!("messages before {from_seq} are not kept any more"));
            }
            Event::Unavailable { conversation_id, .. } if conversation_id == self.picked.id => {
                self.screen
                    .note("where this conversation is kept cannot be reached now; what you write is sent when it can");
            }
            Event::Resumed { conversation_id } if conversation_id == self.picked.id => {
                self.screen.note("this conversation can be reached again");
            }
            Event::Tokens(tokens) => self.renewed(tokens),
            Event::LoggedOut { reason } => bail!("logged out: {reason}"),
            Event::Typing(_) | Event::Presence(_) | Event::Unavailable { .. } | Event::Resumed { .. } => {}
        }
        Ok(())
    }

    fn renewed(&mut self, tokens: Tokens) {
        self.session.tokens = tokens;
    }

    async fn history(&mut self, before_seq: Option<u64>) {
        let conversation_id = self.picked.id.clone();
        let fetch = Fetch {
            conversation_id,
            after_seq: None,
            before_seq,
            limit: HISTORY_LEN,
        };
        match self.client.fetch(fetch).await {
            Ok(page) => {
                if page.messages.is_empty() {
                    self.screen.note("no earlier messages");
                }
                let last = page.messages.last().map(|message| message.seq);
                for message in page.messages {
                    self.show(message).await;
                }
                if let (Some(last), None) = (last, before_seq) {
                    self.client.read(&self.picked.id, last);
                }
            }
            Err(error) => self.screen.note(&format!("history cannot be read: {error}")),
        }
    }

    async fn show(&mut self, message: Message) {
        if self.oldest_shown == 0 || message.seq < self.oldest_shown {
            self.oldest_shown = message.seq;
        }
        let name = self.name(&message.sender_id).await;
        let (time, name) = (
            self.screen.dim(&time_of_day(message.sent_at_ms)),
            self.screen.bold(&name),
        );
        self.screen.say(&format!("{time} {name}: {}", printable(&message.text)));
    }

    async fn receipt(&mut self, receipt: Receipt) {
        if receipt.conversation_id != self.picked.id || receipt.user_id == self.session.tokens.user_id {
            return;
        }
        let read = self.read_by.entry(receipt.user_id.clone()).or_default();
        if receipt.read_seq > *read {
            *read = receipt.read_seq;
            let name = self.name(&receipt.user_id).await;
            let mark = self
                .screen
                .dim(&format!("✓✓ {name} has read up to {}", receipt.read_seq));
            self.screen.say(&mark);
        }
    }

    async fn membership(&mut self, change: ConversationEvent) {
        if change.conversation_id != self.picked.id {
            return;
        }
        let name = self.name(&change.user_id).await;
        self.screen.note(&format!("{name}: {} {}", change.change, change.role));
    }

    async fn members(&mut self) -> Result<()> {
        let members = self
            .session
            .account
            .members(&self.session.tokens.access_token, &self.picked.id)
            .await?;
        for member in members {
            let name = self.name(&member.user_id).await;
            self.screen.say(&format!("  {name} ({})", member.role));
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<()> {
        for view in self
            .session
            .account
            .conversations(&self.session.tokens.access_token)
            .await?
        {
            let title = match &view.peer_id {
                Some(peer) if !peer.is_empty() => self.name(peer).await,
                Some(_) | None => view.title,
            };
            self.screen.say(&match view.unavailable {
                true => format!("  {title}: cannot be reached now"),
                false => format!("  {title}: {} messages, {} unread", view.last_seq, view.unread),
            });
        }
        Ok(())
    }

    /// The name of a user; the id where it cannot be had.
    async fn name(&mut self, user_id: &str) -> String {
        if let Some(name) = self.names.get(user_id) {
            return name.clone();
        }
        match self
            .session
            .account
            .username(&self.session.tokens.access_token, user_id)
            .await
        {
            Ok(name) => {
                self.names.insert(user_id.to_owned(), name.clone());
                name
            }
            Err(_) => user_id.to_owned(),
        }
    }
}

/// Hours and minutes, UTC.
fn time_of_day(at_ms: u64) -> String {
    let minutes = at_ms / 60_000;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// Text without what would move the cursor or paint the terminal of whoever reads it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a [2Jb c");
    }

    #[test]
    fn time_is_shown_as_hours_and_minutes() {
        assert_eq!(time_of_day(45_240_000), "12:34");
    }
}
