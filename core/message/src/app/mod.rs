//! One use case a file.

mod history;
mod move_inbox;
mod send;
mod summaries;
mod typing;

pub(crate) use history::{Asked, history, tail};
pub(crate) use move_inbox::{Move, move_inbox};
pub(crate) use send::{Sending, send};
pub(crate) use summaries::summaries;
pub(crate) use typing::check_typist;
