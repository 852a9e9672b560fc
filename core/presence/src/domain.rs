//! The rules of one user's presence.

use antiphon_proto::log::{PresenceSession, StoredPresence};
use antiphon_types::{ErrorCode, TimestampMs, UserId};

use crate::PresenceOptions;

/// Bytes of a session id, a device id or the name of an edge.
const NAME_BYTES_MAX: usize = 128;

/// Why presence refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A name in a report is missing or too long.
    #[error("{field} of {len} bytes must be 1 to {NAME_BYTES_MAX} bytes")]
    Name {
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
    },
    /// The asker may not see this user.
    #[error("the presence of {user} is shown only to those who share a direct conversation")]
    Hidden {
        /// Who was asked for.
        user: UserId,
    },
}

impl Rejection {
    /// The code a client sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Name { .. } => ErrorCode::InvalidArgument,
            Self::Hidden { .. } => ErrorCode::Forbidden,
        }
    }
}

/// What an edge says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// It is there.
    Online {
        session_id: String,
        edge: String,
        device_id: String,
    },
    /// It has gone.
    Gone { session_id: String },
}

impl Report {
    pub(crate) fn online(session_id: String, edge: String, device_id: String) -> Result<Self, Rejection> {
        check("edge", &edge)?;
        check("deviceId", &device_id)?;
        Ok(Self::Online {
            session_id: checked("sessionId", session_id)?,
            edge,
            device_id,
        })
    }

    pub(crate) fn gone(session_id: String) -> Result<Self, Rejection> {
        Ok(Self::Gone {
            session_id: checked("sessionId", session_id)?,
        })
    }
}

fn checked(field: &'static str, name: String) -> Result<String, Rejection> {
    check(field, &name)?;
    Ok(name)
}

fn check(field: &'static str, name: &str) -> Result<(), Rejection> {
    let len = name.len();
    if !(1..=NAME_BYTES_MAX).contains(&len) {
        return Err(Rejection::Name { field, len });
    }
    Ok(())
}

/// What is shown of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shown {
    pub(crate) online: bool,
    /// 0 when never seen.
    pub(crate) last_seen_ms: TimestampMs,
}

/// What is known of one user.
#[derive(Debug, Default)]
pub(crate) struct User {
    sessions: Vec<Session>,
    shown: Shown,
    record: Record,
}

#[derive(Debug)]
struct Session {
    session: PresenceSession,
    expires_at_ms: TimestampMs,
}

/// How the stored record stands to what is known.
#[derive(Debug, Default)]
struct Record {
    /// Since when it lacks something.
    behind_since_ms: Option<TimestampMs>,
    /// When the last write began.
    written_at_ms: TimestampMs,
    is_being_written: bool,
}

impl User {
    /// Takes up what was stored before this node started at `started_at_ms`.
    pub(crate) fn restored(
        stored: StoredPresence,
        started_at_ms: TimestampMs,
        now_ms: TimestampMs,
        options: &PresenceOptions,
    ) -> Self {
        let expires_at_ms = started_at_ms.saturating_add(options.restored_ms);
        let session = |session| Session { session, expires_at_ms };
        Self {
            sessions: stored.sessions.into_iter().map(session).collect(),
            shown: Shown {
                online: stored.online,
                last_seen_ms: stored.last_seen_ms,
            },
            record: Record {
                written_at_ms: now_ms,
                ..Record::default()
            },
        }
    }

    /// Takes a report. The goodbye of a session that is not known says nothing.
    pub(crate) fn report(&mut self, report: Report, now_ms: TimestampMs, options: &PresenceOptions) {
        match report {
            Report::Online {
                session_id,
                edge,
                device_id,
            } => {
                let expires_at_ms = now_ms.saturating_add(options.lease_ms);
                let known = self
                    .sessions
                    .iter_mut()
                    .find(|known| known.session.session_id == session_id);
                if let Some(known) = known {
                    known.expires_at_ms = expires_at_ms;
                } else {
                    let session = PresenceSession {
                        session_id,
                        edge,
                        device_id,
                        since_ms: now_ms,
                    };
                    self.begin(Session { session, expires_at_ms }, options.sessions_max);
                    self.fall_behind(now_ms);
                }
                self.seen(now_ms);
            }
            Report::Gone { session_id } => {
                let before = self.sessions.len();
                self.sessions.retain(|known| known.session.session_id != session_id);
                if self.sessions.len() < before {
                    self.seen(now_ms);
                    self.fall_behind(now_ms);
                }
            }
        }
    }

    /// Lets go of what has expired. Returns what is shown now, where the watchers are to be told.
    pub(crate) fn settle(&mut self, now_ms: TimestampMs, options: &PresenceOptions) -> Option<Shown> {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.expires_at_ms > now_ms);
        if self.sessions.len() < before {
            self.fall_behind(now_ms);
        }
        let in_grace = self.shown.online && now_ms < self.grace_ends_at_ms(options);
        let online = !self.sessions.is_empty() || in_grace;
        if online == self.shown.online {
            return None;
        }
        self.shown.online = online;
        self.fall_behind(now_ms);
        Some(self.shown)
    }

    /// When [`User::settle`] has something to do next.
    pub(crate) fn settles_at_ms(&self, options: &PresenceOptions) -> Option<TimestampMs> {
        let first = self.sessions.iter().map(|session| session.expires_at_ms).min();
        first.or_else(|| self.shown.online.then(|| self.grace_ends_at_ms(options)))
    }

    /// When the record is to be written next.
    pub(crate) fn writes_at_ms(&self, options: &PresenceOptions) -> Option<TimestampMs> {
        let record = &self.record;
        if record.is_being_written {
            return None;
        }
        let behind = record
            .behind_since_ms
            .map(|since| since.saturating_add(options.write_pause_ms));
        let aged = self
            .shown
            .online
            .then(|| record.written_at_ms.saturating_add(options.rewrite_ms));
        behind.or(aged)
    }

    /// The record to be written now. Nothing else is to be written of the user until [`User::written`].
    pub(crate) fn write(&mut self, now_ms: TimestampMs) -> StoredPresence {
        self.record = Record {
            behind_since_ms: None,
            written_at_ms: now_ms,
            is_being_written: true,
        };
        StoredPresence {
            online: self.shown.online,
            last_seen_ms: self.shown.last_seen_ms,
            sessions: self.sessions.iter().map(|session| session.session.clone()).collect(),
        }
    }

    /// The write has ended; one that failed is tried again after a pause.
    pub(crate) fn written(&mut self, is_written: bool, now_ms: TimestampMs) {
        self.record.is_being_written = false;
        if !is_written {
            self.record.behind_since_ms = Some(now_ms);
        }
    }

    /// Whether the record lacks something and nobody is writing it.
    pub(crate) const fn is_behind(&self) -> bool {
        self.record.behind_since_ms.is_some() && !self.record.is_being_written
    }

    /// Whether the record says all that is to be known.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.shown.online
            && self.sessions.is_empty()
            && self.record.behind_since_ms.is_none()
            && !self.record.is_being_written
    }

    pub(crate) const fn shown(&self) -> Shown {
        self.shown
    }

    fn begin(&mut self, session: Session, sessions_max: usize) {
        if self.sessions.len() >= sessions_max.max(1) {
            let oldest = self
                .sessions
                .iter()
                .enumerate()
                .min_by_key(|(_, other)| other.expires_at_ms);
            if let Some((at, _)) = oldest {
                self.sessions.swap_remove(at);
            }
        }
        self.sessions.push(session);
    }

    fn seen(&mut self, now_ms: TimestampMs) {
        self.shown.last_seen_ms = self.shown.last_seen_ms.max(now_ms);
    }

    fn fall_behind(&mut self, now_ms: TimestampMs) {
        self.record.behind_since_ms.get_or_insert(now_ms);
    }

    fn grace_ends_at_ms(&self, options: &PresenceOptions) -> TimestampMs {
        self.shown.last_seen_ms.saturating_add(options.grace_ms)
    }
}
